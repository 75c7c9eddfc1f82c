"""Job logs over HTTP: what is shown, and where it ends."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from cyxwiz_agent.address import Address
from cyxwiz_agent.downloads import MOST_READERS
from cyxwiz_agent.logs import LONGEST_TAIL_BYTES, tail_offset
from cyxwiz_protocol.job_folder import JobFolder

from .served import Served, serving

LOG = "u-1/logs"


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path) as found:
        yield found


def attempt(served: Served, log: str | None) -> JobFolder:
    """The folder of an attempt that has printed `log`."""
    folder = JobFolder.of(served.state, "u-1")
    folder.path.mkdir(parents=True)
    if log is not None:
        folder.log.write_text(log)
    return folder


async def test_the_last_lines_are_shown(served: Served) -> None:
    attempt(served, "a\nb\nc\nunfinished")
    assert await served.text(LOG + "?tail=2") == (200, "c\nunfinished")
    assert await served.text(LOG + "?tail=0") == (200, "")


@pytest.mark.parametrize("tail", ["-1", "many", "10001", "9" * 50, ""])
async def test_a_tail_that_is_no_number_is_refused(served: Served, tail: str) -> None:
    attempt(served, "a\n")
    assert (await served.text(f"{LOG}?tail={tail}"))[0] == 400


@pytest.mark.parametrize("make", [lambda path, target: path.symlink_to(target), lambda path, _: os.mkfifo(path)])
async def test_what_is_not_a_file_of_the_job_is_not_shown(served: Served, make: object, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    folder = attempt(served, None)
    assert callable(make)
    make(folder.log, secret)
    assert await served.text(LOG) == (200, "")


async def test_a_log_is_followed_until_the_attempt_has_ended(served: Served) -> None:
    folder = attempt(served, None)
    async with served.session.get(served.url(f"{LOG}?follow=1")) as answer, asyncio.timeout(10):
        folder.log.write_text("one\n")
        assert await answer.content.readline() == b"one\n"
        with folder.log.open("a") as log:
            log.write("two\n")
        assert await answer.content.readline() == b"two\n"
        with folder.log.open("a") as log:
            log.write("last\n")
        folder.exit.write_text("{}")
        assert await answer.content.read() == b"last\n"


async def test_readers_are_bounded_and_a_reader_that_leaves_makes_room(served: Served) -> None:
    attempt(served, "a\n")
    followers = [await served.session.get(served.url(f"{LOG}?follow=1")) for _ in range(MOST_READERS)]
    assert (await served.text(LOG))[0] == 503
    followers[0].close()
    async with asyncio.timeout(10):
        while (await served.text(LOG))[0] != 200:  # noqa: ASYNC110  # nothing tells that a reader left
            await asyncio.sleep(0.05)
    for follower in followers:
        follower.close()


def offset_of(path: Path, content: bytes, lines: int) -> int:
    path.write_bytes(content)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return tail_offset(descriptor, lines)
    finally:
        os.close(descriptor)


@given(st.lists(st.binary(max_size=3).map(lambda line: line.replace(b"\n", b"")), max_size=6), st.integers(0, 8))
def test_the_tail_is_the_last_lines(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], tail: int) -> None:
    content = b"".join(line + b"\n" for line in lines)
    offset = offset_of(tmp_path_factory.getbasetemp() / "tail", content, tail)
    assert content[offset:] == b"".join(line + b"\n" for line in (lines[-tail:] if tail else []))


def test_a_line_without_end_is_cut(tmp_path: Path) -> None:
    assert offset_of(tmp_path / "log", b"x" * (LONGEST_TAIL_BYTES + 5), 1) == 5


@pytest.mark.parametrize("text", ["127.0.0.1:8444", "[::1]:1", "10.0.3.7:8444", "[fd00::7]:8444", "100.64.0.9:80"])
def test_logs_are_served_on_loopback_and_private_addresses(text: str) -> None:
    assert Address.parse(text).port == int(text.rpartition(":")[2])


@pytest.mark.parametrize(
    "text", ["0.0.0.0:8444", "[::]:8444", "8.8.8.8:80", ":80", "localhost:80", "127.0.0.1", "10.0.0.1:-1"]
)
def test_logs_are_served_nowhere_else(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        Address.parse(text)
