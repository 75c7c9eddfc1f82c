"""What of a node is worth a write."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, cast

import pytest

from cyxwiz_agent.admission import Capacity
from cyxwiz_agent.agent import gpus_to_keep_warm
from cyxwiz_agent.devices import Device, Devices
from cyxwiz_agent.devices.health import Health
from cyxwiz_agent.devices.readings import GpuReading, Xid
from cyxwiz_agent.registration import READINGS_EVERY_S, Registration, inventory, worth_writing
from cyxwiz_agent.settings import GpuMode
from cyxwiz_crds.compute_node import AgentInfo, Inventory
from cyxwiz_kube import Kube
from cyxwiz_protocol.runner_api import Snapshot

READING = GpuReading("GPU-a", "NVIDIA H200", 143_771, 615, 143_156, temperature_celsius=40, power_watts=100)
LATER, SOON = READINGS_EVERY_S, 30.0


def make_inventory(device: Device | None = None, **reading: Any) -> Inventory:
    device = device or Device(replace(READING, **reading))
    capacity = Capacity(frozenset({"GPU-a"}), cpus=4, memory_bytes=2**33, max_jobs=16)
    return inventory(Devices((device,)), capacity, None, {})


@pytest.mark.parametrize(
    ("now", "since_s", "expected"),
    [
        pytest.param(make_inventory(), LATER, False, id="nothing changed"),
        pytest.param(make_inventory(temperature_celsius=41, energy_joules=10**9), LATER, False, id="one degree"),
        pytest.param(make_inventory(temperature_celsius=70), SOON, False, id="hot, but told a short while ago"),
        pytest.param(make_inventory(temperature_celsius=70), LATER, True, id="hot"),
        pytest.param(make_inventory(memory_free_mib=9), LATER, True, id="full"),
        pytest.param(make_inventory(ecc_uncorrected=1), SOON, True, id="a memory error"),
        pytest.param(make_inventory(Device(READING, Health("Lost", "gone"))), SOON, True, id="its health"),
        pytest.param(make_inventory(Device(READING, xid=Xid("GPU-a", 31, 1.0))), SOON, True, id="its first error"),
    ],
)
def test_what_is_written(now: Inventory, since_s: float, expected: bool) -> None:
    assert worth_writing(make_inventory(), now, since_s) is expected


def test_a_node_that_was_never_written_is() -> None:
    assert worth_writing(None, make_inventory(), 0.0)


def test_a_node_tells_how_its_gpus_are_shared_and_what_that_costs_each_job() -> None:
    devices = Devices((Device(READING),))
    told = [
        inventory(devices, Capacity(frozenset({"GPU-a"}), 4, 2**33, 16), Snapshot(instance="r", sharing=way), {})
        for way in ("MPS", "time slices")
    ]
    assert [(each.gpu_sharing, each.gpu_context_mi_b) for each in told] == [("MPS", 0), ("time slices", 1024)]


def test_a_node_with_gpus_says_how_they_are_given() -> None:
    capacity = Capacity(frozenset({"GPU-a"}), cpus=4, memory_bytes=2**33, max_jobs=16)
    for devices, told in ((Devices((Device(READING),)), "reserve"), (Devices(), None)):
        assert inventory(devices, capacity, None, {}, GpuMode.RESERVE).gpu_mode == told


def test_trainers_wait_on_healthy_gpus_and_on_none_of_a_node_that_drains() -> None:
    ill = Device(replace(READING, uuid="GPU-b"), Health("Unhealthy", "it wants a reset"))
    devices = Devices((Device(READING), ill))
    assert gpus_to_keep_warm(devices, draining=False) == ["GPU-a"]
    assert gpus_to_keep_warm(devices, draining=True) == []
    assert gpus_to_keep_warm(Devices((Device(replace(READING, name="Simulated H200")),)), draining=False) == []


class FakeKube:
    """An API server with one node, which drains."""

    def __init__(self) -> None:
        self.phase = "Draining"

    async def get(self, path: str) -> dict[str, Any]:
        return {"metadata": {"name": "n1", "uid": "u"}, "status": {"phase": self.phase} if "cyxwiz" in path else {}}

    async def merge_patch(self, path: str, body: dict[str, Any]) -> None: ...


async def test_the_agent_hears_when_its_node_begins_to_drain_and_when_that_is_over() -> None:
    kube, heard = FakeKube(), asyncio.Event()
    info = AgentInfo(version="0", instance="n1-a", started_at="2026-01-01T00:00:00Z")
    node = Registration(cast(Kube, kube), "n1", info, lambda _: make_inventory(), heard.set)
    keeping = asyncio.create_task(node.keep())
    async with asyncio.timeout(30):
        await heard.wait()
        assert node.draining
        heard.clear()
        kube.phase = "Online"
        node.wake()
        await heard.wait()
    assert not node.draining
    keeping.cancel()


def test_simulated_devices_say_so() -> None:
    simulated = make_inventory(name="Simulated H200")
    assert simulated.simulated
    assert simulated.gpu_text == "1 x Simulated H200"
    assert not make_inventory().simulated
