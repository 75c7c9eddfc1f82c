"""The node's devices on a real driver: every field read, no session left, a thread that hears of changes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from cyxwiz_agent.devices import DeviceMonitor, Devices, read_devices
from cyxwiz_agent.devices.nvml import Driver, memory_in_use

DEVICES: Devices = read_devices()

pytestmark = pytest.mark.skipif(not DEVICES.known, reason=f"needs an NVIDIA GPU: {DEVICES.message}")


def test_a_real_gpu_answers_every_field() -> None:
    for device, gpu in zip(DEVICES.known, DEVICES.gpus, strict=True):
        print(gpu.model_dump_json(by_alias=True, indent=1), f"events={device.reading.events}")
        assert gpu.health in ("Healthy", "Degraded", "Unmonitored"), gpu.health_reason
        assert gpu.uuid.startswith(("GPU-", "MIG-"))
        assert gpu.memory_total_mi_b > 1024
        assert gpu.compute_capability
        assert gpu.architecture
        assert gpu.pci_bus_id
        assert gpu.readings is not None
        assert gpu.readings.temperature_celsius
        assert gpu.readings.power_watts
    assert DEVICES.driver_version
    assert DEVICES.cuda_version
    assert DEVICES.message is None
    assert not DEVICES.simulated


def test_a_session_is_closed_and_opened_again() -> None:
    driver = Driver()
    first = driver.look()
    driver.close()
    again = driver.look()
    assert [gpu.uuid for gpu in again.gpus] == [gpu.uuid for gpu in first.gpus]
    assert driver.wait(0.2) is None
    driver.close()


def test_memory_in_use_grows_with_a_process_and_is_back_when_it_is_gone() -> None:
    uuid = DEVICES.known[0].reading.uuid
    before_mib = memory_in_use([uuid])[uuid]
    holds = "import torch; held = torch.ones(2**30, device='cuda', dtype=torch.uint8); torch.cuda.synchronize();"
    holds += "print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", holds],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": uuid},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        held_mib = memory_in_use([uuid])[uuid] - before_mib
        process.kill()
    after_mib = memory_in_use([uuid])[uuid] - before_mib
    print(f"{held_mib} MiB more while it held 1024, {after_mib} MiB more once it was reaped")
    assert held_mib >= 1024
    assert after_mib < 64


async def test_the_monitor_has_the_devices_and_leaves_the_loop_free() -> None:
    looked = asyncio.Event()
    monitor = DeviceMonitor(looked.set)
    running = asyncio.create_task(monitor.run())
    longest_s = 0.0
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(30):
        while not looked.is_set():
            before = loop.time()
            await asyncio.sleep(0.001)
            longest_s = max(longest_s, loop.time() - before)
    assert [gpu.uuid for gpu in monitor.devices.gpus] == [gpu.uuid for gpu in DEVICES.gpus]
    print(f"longest pause of the event loop while the driver was asked: {longest_s * 1000:.1f} ms")
    running.cancel()
