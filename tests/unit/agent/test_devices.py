"""What the driver says, through the real pynvml and a driver of our own, and what becomes of it over time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable, Iterator

import pynvml
import pytest

from cyxwiz_agent.devices import DeviceMonitor, Devices, MemoryMeter, read_devices
from cyxwiz_agent.devices.monitor import SILENT, SILENT_AFTER_S
from cyxwiz_agent.devices.nvml import Driver, memory_in_use
from cyxwiz_agent.devices.readings import Look, Xid
from tests.doubles.nvml import FakeGpu, FakeLibrary, installed

NOW = 1_000_000.0


@pytest.fixture
def library() -> Iterator[FakeLibrary]:
    with installed(FakeLibrary([FakeGpu("GPU-a"), FakeGpu("GPU-b")])) as library:
        yield library


def health(devices: Devices) -> dict[str, str]:
    return {device.reading.uuid: device.health.state for device in devices.known}


def test_a_gpu_is_described_as_its_driver_describes_it(library: FakeLibrary) -> None:
    library.gpus[0].clocks = pynvml.nvmlClocksEventReasonSwPowerCap | pynvml.nvmlClocksEventReasonGpuIdle
    devices = read_devices()
    gpu = devices.gpus[0]
    assert (devices.driver_version, devices.cuda_version, devices.message) == ("570.86", "12.8", None)
    assert (gpu.uuid, gpu.name, gpu.health) == ("GPU-a", "NVIDIA H200", "Healthy")
    assert (gpu.memory_total_mi_b, gpu.memory_reserved_mi_b) == (143_771, 615)
    assert (gpu.recovery_action, gpu.ecc_uncorrected, gpu.remapped_rows) == ("None", 0, 0)
    assert gpu.readings is not None
    assert (gpu.readings.memory_free_mi_b, gpu.readings.temperature_celsius) == (143_156, 31)
    assert gpu.readings.clocks_event_reasons == ["GpuIdle", "SwPowerCap"]
    assert library.sessions == 0


def test_a_field_the_device_or_its_driver_does_not_have_is_absent(library: FakeLibrary) -> None:
    library.gpus[0] = FakeGpu("GPU-a", temperature=None, ecc=None, remapped=None, recovery=None)
    gpu = read_devices().gpus[0]  # the double has no function for the power
    assert (gpu.ecc_uncorrected, gpu.remapped_rows, gpu.recovery_action) == (None, None, None)
    assert gpu.readings is not None
    assert (gpu.readings.temperature_celsius, gpu.readings.power_watts) == (None, None)


def test_mig_devices_stand_for_the_gpu_they_divide(library: FakeLibrary) -> None:
    parts = [FakeGpu(f"MIG-{n}", name="NVIDIA H200 MIG 1g.18gb", memory_mib=16_384) for n in range(2)]
    library.gpus[1].mig = parts
    gpus = read_devices().gpus
    assert [(gpu.uuid, gpu.mig_parent) for gpu in gpus] == [("GPU-a", None), ("MIG-0", "GPU-b"), ("MIG-1", "GPU-b")]
    assert gpus[1].memory_total_mi_b == 16_384


def test_a_gpu_divided_anew_leaves_no_lost_device_behind(library: FakeLibrary) -> None:
    driver = Driver()
    devices = Devices().after(driver.look(), NOW)
    library.gpus[1].mig = [FakeGpu("MIG-0")]
    devices = devices.after(driver.look(), NOW)
    assert health(devices) == {"GPU-a": "Healthy", "MIG-0": "Healthy"}
    library.gpus[1].mig = []
    assert health(devices.after(driver.look(), NOW)) == {"GPU-a": "Healthy"}


def test_an_error_of_a_gpu_concerns_all_its_mig_devices(library: FakeLibrary) -> None:
    library.gpus[1].mig = [FakeGpu("MIG-0"), FakeGpu("MIG-1")]
    devices = Devices().after(Driver().look(), NOW).after_error(Xid("GPU-b", 48, NOW))
    assert health(devices) == {"GPU-a": "Healthy", "MIG-0": "Unhealthy", "MIG-1": "Unhealthy"}


def test_a_lost_gpu_is_shown_as_lost_and_is_healthy_when_it_answers_again(library: FakeLibrary) -> None:
    driver = Driver()
    devices = Devices().after(driver.look(), NOW).after_error(Xid("GPU-a", 79, NOW))
    library.gpus[0].error = pynvml.NVML_ERROR_GPU_IS_LOST
    devices = devices.after(driver.look(), NOW)
    assert health(devices) == {"GPU-a": "Lost", "GPU-b": "Healthy"}
    assert devices.unusable == {"GPU-a": "Lost (GPU 0 does not answer: GPU is lost)"}
    assert devices.gpus[0].readings is None
    library.gpus[0].error = 0
    assert health(devices.after(driver.look(), NOW + 1)) == {"GPU-a": "Healthy", "GPU-b": "Healthy"}


@pytest.mark.parametrize(
    "code",
    [
        pynvml.NVML_ERROR_LIBRARY_NOT_FOUND,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
        pynvml.NVML_ERROR_UNKNOWN,
        12345,
    ],
)
def test_a_driver_that_fails_is_a_state_and_one_that_comes_back_is_used(library: FakeLibrary, code: int) -> None:
    driver = Driver()
    devices = Devices().after(driver.look(), NOW)
    library.error = code
    devices = devices.after(driver.look(), NOW)
    assert set(health(devices).values()) == {"Lost"}
    assert devices.message
    library.error = 0
    devices = devices.after(driver.look(), NOW)
    assert set(health(devices).values()) == {"Healthy"}
    assert devices.message is None


def test_a_node_without_a_driver_trains_on_its_cpus() -> None:
    with installed(FakeLibrary([], error=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)):
        assert read_devices() == Devices(message="no NVIDIA driver on this node: it trains on its CPUs")


def test_no_session_is_held_while_a_gpu_waits_for_its_reset(library: FakeLibrary) -> None:
    driver = Driver()
    driver.look()
    assert library.sessions == 1
    library.gpus[0].recovery = pynvml.NVML_GPU_RECOVERY_ACTION_GPU_RESET
    devices = Devices().after(driver.look(), NOW)
    assert health(devices) == {"GPU-a": "Unhealthy", "GPU-b": "Healthy"}
    assert library.sessions == 0
    library.gpus[0].recovery = 0
    assert set(health(devices.after(driver.look(), NOW)).values()) == {"Healthy"}


def test_memory_in_use_is_read_by_uuid_and_of_those_that_answer(library: FakeLibrary) -> None:
    library.gpus[1].mig = [FakeGpu("MIG-0", memory_mib=16_384, used_mib=7)]
    library.gpus[0].used_mib = 5000
    assert memory_in_use(["GPU-a", "MIG-0", "GPU-z"]) == {"GPU-a": 5000, "MIG-0": 7}
    assert library.sessions == 0
    library.gpus[0].error = pynvml.NVML_ERROR_GPU_IS_LOST
    assert memory_in_use(["GPU-a"]) == {}
    library.error = pynvml.NVML_ERROR_DRIVER_NOT_LOADED
    assert memory_in_use(["MIG-0"]) == {}


async def test_a_driver_that_hangs_is_not_waited_for_and_not_asked_again_meanwhile() -> None:
    goes_on, asked = threading.Event(), []

    def read(uuids: Iterable[str]) -> dict[str, int]:
        asked.append(list(uuids))
        goes_on.wait(60)
        return {"GPU-a": 1}

    hanging = MemoryMeter(read, within_s=0.01)
    assert await hanging.used_mib(["GPU-a"]) == {}
    assert await hanging.used_mib(["GPU-a"]) == {}
    goes_on.set()
    assert asked == [["GPU-a"]]
    assert await MemoryMeter(read).used_mib(["GPU-a"]) == {"GPU-a": 1}
    assert await MemoryMeter(read).used_mib([]) == {}


def test_a_gpu_that_tells_nothing_is_unmonitored_and_may_be_used(library: FakeLibrary) -> None:
    library.has_events = False
    library.gpus[0].recovery = None
    devices = read_devices()
    assert health(devices) == {"GPU-a": "Unmonitored", "GPU-b": "Healthy"}
    assert not devices.unusable


def test_an_error_is_heard_at_once(library: FakeLibrary) -> None:
    driver = Driver()
    driver.look()
    assert driver.wait(0.001) is None
    library.xids.append((1, 48))
    xid = driver.wait(0.001)
    assert xid is not None
    assert (xid.gpu, xid.number) == ("GPU-b", 48)


def test_devices_with_the_name_of_a_simulation_are_simulated(library: FakeLibrary) -> None:
    assert not read_devices().simulated
    library.gpus[0].name = "Simulated H200"
    assert read_devices().simulated


async def test_the_monitor_tells_a_change_without_blocking_the_loop(library: FakeLibrary) -> None:
    changes: list[dict[str, str]] = []
    heard = asyncio.Event()

    def changed() -> None:
        changes.append(health(monitor.devices))
        if changes[-1]["GPU-a"] == "Unhealthy":
            heard.set()

    monitor = DeviceMonitor(changed)
    running = asyncio.create_task(monitor.run())
    assert await monitor.first_look(within_s=5)
    assert changes[0] == {"GPU-a": "Healthy", "GPU-b": "Healthy"}
    library.xids.append((0, 95))
    async with asyncio.timeout(5):
        await heard.wait()
    assert monitor.xids == {("GPU-a", 95): 1}
    running.cancel()


class HangingDriver:
    """Answers once."""

    def __init__(self) -> None:
        self.asked = 0

    def look(self) -> Look:
        self.asked += 1
        if self.asked > 1:
            time.sleep(3600)  # in a daemon thread, as long as the tests run
        return Driver().look()

    def wait(self, timeout_s: float) -> Xid | None:
        return None


async def test_gpus_whose_driver_hangs_are_given_to_nobody(library: FakeLibrary) -> None:
    now = [0.0]
    monitor = DeviceMonitor(lambda: None, HangingDriver(), lambda: now[0])
    running = asyncio.create_task(monitor.run())
    assert await monitor.first_look(within_s=5)
    assert set(health(monitor.devices).values()) == {"Healthy"}
    now[0] = SILENT_AFTER_S + 1
    assert set(health(monitor.devices).values()) == {"Unhealthy"}
    assert monitor.devices.message == SILENT
    running.cancel()
