"""What a worker measures of its GPUs: before the start who else is there, after the end whether all of it is back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cyxwiz_agent import gpu_memory
from cyxwiz_agent.devices import Device, Devices
from cyxwiz_agent.devices.readings import GpuReading
from cyxwiz_agent.gpu_memory import AttemptMemory
from cyxwiz_agent.gpu_room import IDLE_MIB
from cyxwiz_agent.node import Node
from cyxwiz_protocol.runner_api import JobProcess, Snapshot

GPU = "GPU-a"
ENDED = JobProcess(
    assignment_id="u-1", job_uid="u", attempt=1, key="team/digits", state="Reaped", gpus=[GPU], gpu_memory_bytes=2**30
)


class Meter:
    """A driver that says what the test wants."""

    def __init__(self) -> None:
        self.used_by_strangers_mib = 0
        self.asked = 0

    async def used_mib(self, uuids: Iterable[str]) -> Mapping[str, int]:
        self.asked += 1
        return dict.fromkeys(uuids, self.used_by_strangers_mib + IDLE_MIB)


@pytest.fixture
def meter() -> Meter:
    return Meter()


@pytest.fixture
def memory(meter: Meter) -> AttemptMemory:
    devices = Devices((Device(GpuReading(GPU, "NVIDIA H200", 143_771, 615)),))
    runner = SimpleNamespace(snapshot=Snapshot(instance="r", sharing="MPS"))
    node: Any = SimpleNamespace(runner=runner, memory=meter, devices=lambda: devices)
    return AttemptMemory("team/digits", cast(Node, node))


async def is_back(memory: AttemptMemory, process: JobProcess) -> bool:
    return memory.is_back(process, await memory.room((), process, []))


async def test_an_end_waits_until_its_memory_is_free_and_then_asks_no_more(memory: AttemptMemory, meter: Meter) -> None:
    meter.used_by_strangers_mib = 500
    assert not await is_back(memory, ENDED)
    assert memory.is_coming(ENDED)
    meter.used_by_strangers_mib = 0
    assert await is_back(memory, ENDED)
    asked = meter.asked
    assert await is_back(memory, ENDED)
    assert (meter.asked, memory.note, memory.is_coming(ENDED)) == (asked, None, False)


async def test_what_a_stranger_held_before_the_start_is_not_waited_for(memory: AttemptMemory, meter: Meter) -> None:
    meter.used_by_strangers_mib = 500
    room = await memory.room([GPU], None, [])
    assert room.unaccounted_mib == {GPU: 500}
    assert await is_back(memory, ENDED)


async def test_the_wait_ends_in_words(memory: AttemptMemory, meter: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_memory, "BACK_WITHIN_S", 0.0)
    meter.used_by_strangers_mib = 2048
    assert await is_back(memory, ENDED)
    assert memory.note == "2Gi of GPU GPU-a were still in use 0 s after its processes had gone"


async def test_a_running_job_and_one_without_gpus_are_never_measured(memory: AttemptMemory, meter: Meter) -> None:
    meter.used_by_strangers_mib = 500
    assert await is_back(memory, ENDED.model_copy(update={"state": "Running"}))
    assert await is_back(memory, ENDED.model_copy(update={"gpus": []}))
    assert meter.asked == 0
