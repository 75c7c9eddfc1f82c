"""The driver's library, asked through pynvml, which nothing else imports.

Calls may block, so they belong in a thread of their own. A failure is an answer here: a Look with fewer GPUs and the
reason. Handles and event sets live as long as the session; a session that failed is closed, and the next look opens
another, which is how a driver that was installed, reloaded or reset later is found.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pynvml

from .readings import GpuReading, Look, Xid

_MIB = 2**20
_ARCHITECTURES = {
    getattr(pynvml, f"NVML_DEVICE_ARCH_{name.upper()}"): name
    for name in ("Maxwell", "Pascal", "Volta", "Turing", "Ampere", "Ada", "Hopper", "Blackwell", "Rubin")
    if hasattr(pynvml, f"NVML_DEVICE_ARCH_{name.upper()}")
}
_CLOCKS_EVENT_REASONS = {
    getattr(pynvml, f"nvmlClocksEventReason{name}"): name
    for name in (
        "GpuIdle",
        "ApplicationsClocksSetting",
        "SwPowerCap",
        "HwSlowdown",
        "SyncBoost",
        "SwThermalSlowdown",
        "HwThermalSlowdown",
        "HwPowerBrakeSlowdown",
        "DisplayClockSetting",
    )
}
_RECOVERY_ACTIONS = {
    pynvml.NVML_GPU_RECOVERY_ACTION_NONE: "None",
    pynvml.NVML_GPU_RECOVERY_ACTION_GPU_RESET: "Reset",
    pynvml.NVML_GPU_RECOVERY_ACTION_NODE_REBOOT: "Reboot",
    pynvml.NVML_GPU_RECOVERY_ACTION_DRAIN_P2P: "Drain",
    pynvml.NVML_GPU_RECOVERY_ACTION_DRAIN_AND_RESET: "DrainAndReset",
}
# What says that the device or the driver is gone; any other failure of a field means that the field is not there.
_GONE = frozenset(
    {
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_GPU_IS_LOST,
        pynvml.NVML_ERROR_RESET_REQUIRED,
    }
)


class Driver:
    """One session with the driver at a time, opened when it is needed."""

    def __init__(self) -> None:
        self._open = False
        self._events: Any = None
        self._watched: set[str] = set()

    def look(self) -> Look:
        """Everything the driver says now."""
        try:
            if not self._open:
                pynvml.nvmlInit()
                self._open = True
            look = self._read()
        except pynvml.NVMLError as error:
            self.close()
            if _code(error) == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
                return Look(problem="no NVIDIA driver on this node: it trains on its CPUs")
            return Look(problem=f"the NVIDIA driver does not answer: {error}")
        if any(gpu.recovery_action not in (None, "None") for gpu in look.gpus) or look.problem:
            self.close()  # a GPU cannot be reset, nor its driver reloaded, while a session has it open
        return look

    def wait(self, timeout_s: float) -> Xid | None:
        """The next error a GPU tells of; None after the timeout, or at once when it is time to look again."""
        if self._events is None:
            time.sleep(timeout_s)
            return None
        try:
            event = pynvml.nvmlEventSetWait_v2(self._events, max(1, round(timeout_s * 1000)))
            return Xid(_text(pynvml.nvmlDeviceGetUUID(event.device)), int(event.eventData), time.time())
        except pynvml.NVMLError as error:
            if _code(error) != pynvml.NVML_ERROR_TIMEOUT:
                self.close()
            return None

    def close(self) -> None:
        """No session."""
        if self._events is not None:
            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlEventSetFree(self._events)
        if self._open:
            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()
        self._open, self._events, self._watched = False, None, set()

    def _read(self) -> Look:
        gpus: list[GpuReading] = []
        present: set[str] = set()
        problems: list[str] = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                uuid = _text(pynvml.nvmlDeviceGetUUID(handle))
                gpus += self._devices_of(handle, uuid)
                present.add(uuid)
            except pynvml.NVMLError as error:
                problems.append(f"GPU {index} does not answer: {error}")
        cuda = _field(pynvml.nvmlSystemGetCudaDriverVersion_v2)
        return Look(
            gpus=tuple(gpus),
            present=frozenset(present),
            driver_version=_text(pynvml.nvmlSystemGetDriverVersion()),
            cuda_version=None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
            problem="; ".join(problems) or None,
        )

    def _devices_of(self, handle: Any, uuid: str) -> list[GpuReading]:
        """The GPU itself, or in MIG mode the devices it is divided into."""
        events = self._watch(handle, uuid)
        mode = _field(pynvml.nvmlDeviceGetMigMode, handle)
        if mode is None or mode[0] != pynvml.NVML_DEVICE_MIG_ENABLE:
            return [_reading(handle, handle, events=events)]
        return [_reading(mig, handle, events=events, parent=uuid) for mig in _mig_devices(handle)]

    def _watch(self, handle: Any, uuid: str) -> bool:
        """True when the GPU's errors arrive in the event set."""
        if uuid in self._watched:
            return True
        try:
            if self._events is None:
                self._events = pynvml.nvmlEventSetCreate()
            pynvml.nvmlDeviceRegisterEvents(handle, pynvml.nvmlEventTypeXidCriticalError, self._events)
        except pynvml.NVMLError as error:
            if _code(error) in _GONE:
                raise
            return False
        self._watched.add(uuid)
        return True


def energy_joules() -> dict[str, int]:
    """The energy counter of every GPU that has one, by UUID, in a session of its own. Blocks.

    NVML counts its sessions, so this is cheap while the monitor has one, and leaves none behind.
    """
    found: dict[str, int] = {}
    pynvml.nvmlInit()
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            with contextlib.suppress(pynvml.NVMLError):
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                millijoules = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
                found[_text(pynvml.nvmlDeviceGetUUID(handle))] = millijoules // 1000
    finally:
        pynvml.nvmlShutdown()
    return found


def memory_in_use(uuids: Iterable[str]) -> dict[str, int]:
    """MiB in use now of those devices that answer, without what the driver keeps, by a session of its own."""
    found: dict[str, int] = {}
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return found
    try:
        for uuid in uuids:
            with contextlib.suppress(pynvml.NVMLError):
                total, reserved, free = _memory(pynvml.nvmlDeviceGetHandleByUUID(uuid))
                found[uuid] = max(0, total - reserved - free) // _MIB
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()
    return found


def _mig_devices(gpu: Any) -> Iterator[Any]:
    for index in range(_field(pynvml.nvmlDeviceGetMaxMigDeviceCount, gpu) or 0):
        mig = _field(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, gpu, index)
        if mig is not None:
            yield mig


def _reading(device: Any, gpu: Any, *, events: bool, parent: str | None = None) -> GpuReading:
    """What `device` has of its own, and what only the whole `gpu` can tell."""
    total, reserved, free = _memory(device)
    capability = _field(pynvml.nvmlDeviceGetCudaComputeCapability, gpu)
    pci = _field(pynvml.nvmlDeviceGetPciInfo_v3, gpu)
    power_mw = _field(pynvml.nvmlDeviceGetPowerUsage, gpu)
    energy_mj = _field(pynvml.nvmlDeviceGetTotalEnergyConsumption, gpu)
    # Not supported under MIG, neither by the device nor by its GPU.
    utilization = None if parent else _field(pynvml.nvmlDeviceGetUtilizationRates, gpu)
    remapped = _field(pynvml.nvmlDeviceGetRemappedRows, gpu)
    processes = _field(pynvml.nvmlDeviceGetComputeRunningProcesses_v3, device)
    return GpuReading(
        uuid=_text(pynvml.nvmlDeviceGetUUID(device)),
        name=_text(pynvml.nvmlDeviceGetName(device)),
        memory_total_mib=total // _MIB,
        memory_reserved_mib=reserved // _MIB,
        memory_free_mib=free // _MIB,
        architecture=_ARCHITECTURES.get(_field(pynvml.nvmlDeviceGetArchitecture, gpu)),
        compute_capability=None if capability is None else f"{capability[0]}.{capability[1]}",
        pci_bus_id="" if pci is None else _text(pci.busId),
        parent=parent,
        temperature_celsius=_field(pynvml.nvmlDeviceGetTemperature, gpu, pynvml.NVML_TEMPERATURE_GPU),
        power_watts=None if power_mw is None else round(power_mw / 1000),
        energy_joules=None if energy_mj is None else energy_mj // 1000,
        utilization_percent=None if utilization is None else int(utilization.gpu),
        clocks_event_reasons=_clocks_event_reasons(gpu),
        ecc_uncorrected=_field(
            pynvml.nvmlDeviceGetTotalEccErrors,
            gpu,
            pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
            pynvml.NVML_VOLATILE_ECC,
        ),
        remapped_rows=None if remapped is None else remapped[0] + remapped[1],
        remap_pending=bool(remapped and remapped[2]),
        remap_failed=bool(remapped and remapped[3]),
        recovery_action=_recovery_action(gpu),
        processes=None if processes is None else len(processes),
        events=events,
    )


def _memory(device: Any) -> tuple[int, int, int]:
    """Total, reserved by the driver, and free, in bytes."""
    # Version 1 counts what the driver keeps for itself as used.
    memory = _field(pynvml.nvmlDeviceGetMemoryInfo, device, pynvml.nvmlMemory_v2)
    if memory is not None:
        return memory.total, memory.reserved, memory.free
    older = _field(pynvml.nvmlDeviceGetMemoryInfo, device)
    return (0, 0, 0) if older is None else (older.total, 0, older.free)


def _clocks_event_reasons(gpu: Any) -> tuple[str, ...]:
    bits = _field(pynvml.nvmlDeviceGetCurrentClocksEventReasons, gpu)
    if bits is None:  # drivers before 535 know the older name only
        bits = _field(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, gpu) or 0
    return tuple(name for bit, name in _CLOCKS_EVENT_REASONS.items() if bits & bit)


def _recovery_action(gpu: Any) -> str | None:
    values = _field(pynvml.nvmlDeviceGetFieldValues, gpu, [pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION])
    if values is None or values[0].nvmlReturn != pynvml.NVML_SUCCESS:
        return None
    action = int(values[0].value.uiVal)
    return _RECOVERY_ACTIONS.get(action, f"Action{action}")


def _field(read: Callable[..., Any], *arguments: Any) -> Any:
    """A field that some devices do not have: None there."""
    try:
        return read(*arguments)
    except pynvml.NVMLError as error:
        if _code(error) in _GONE:
            raise
        return None


def _code(error: pynvml.NVMLError) -> int:
    """The NVML return code, which the library keeps in an attribute it does not declare."""
    return int(getattr(error, "value", pynvml.NVML_ERROR_UNKNOWN))


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
