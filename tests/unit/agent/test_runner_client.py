"""When a runner counts as lost: one that died, one that is stuck, and one that came back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cyxwiz_agent import runner_client
from cyxwiz_agent.runner_client import LOST_AFTER_S, RunnerClient
from cyxwiz_protocol.runner_api import Snapshot, socket_path


class Clock:
    """Time as the test has it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readline()
    writer.write(Snapshot(instance="i", jobs=[]).model_dump_json(by_alias=True).encode() + b"\n")
    writer.close()


async def stuck(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def test_a_runner_is_lost_only_when_it_has_been_silent_for_longer_than_a_restart_takes(tmp_path: Path) -> None:
    clock = Clock()
    client = RunnerClient(tmp_path, lambda: None, clock)
    assert not await client.is_lost(), "never asked"
    with pytest.raises(runner_client.RunnerUnavailable):
        await client.look()
    clock.now += LOST_AFTER_S
    assert not await client.is_lost()
    clock.now += 1
    assert await client.is_lost()
    socket_path(tmp_path).parent.mkdir(parents=True, exist_ok=True)
    async with await asyncio.start_unix_server(answering, socket_path(tmp_path)):
        assert not await client.is_lost()
    clock.now += 1
    assert not await client.is_lost(), "its silence began anew"


async def test_a_runner_that_is_stuck_is_lost_like_one_that_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its socket takes connections, so that the agent saw no end of it."""
    monkeypatch.setattr(runner_client, "ANSWER_WITHIN_S", 0.05)
    clock = Clock()
    client = RunnerClient(tmp_path, lambda: None, clock)
    socket_path(tmp_path).parent.mkdir(parents=True, exist_ok=True)
    async with await asyncio.start_unix_server(stuck, socket_path(tmp_path)):
        with pytest.raises(runner_client.RunnerUnavailable):
            await client.renew({})
        clock.now += LOST_AFTER_S + 1
        assert await client.is_lost()
