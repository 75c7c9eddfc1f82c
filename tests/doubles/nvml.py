"""A driver in place of NVIDIA's library, under the real pynvml: its structs, its error codes, its function pointers.

`installed` puts it where pynvml keeps the loaded library. A function that is missing here is one that the driver lacks.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pynvml

MIB = 2**20


@dataclass
class FakeGpu:
    """One GPU. A field that is None is not supported; `error` is what every call about it answers."""

    uuid: str
    name: str = "NVIDIA H200"
    memory_mib: int = 143_771
    used_mib: int = 0
    temperature: int | None = 31
    clocks: int | None = 0
    energy_mj: int | None = None
    ecc: int | None = 0
    remapped: tuple[int, int, int, int] | None = (0, 0, 0, 0)
    recovery: int | None = 0
    error: int = 0
    mig: list[FakeGpu] | None = None
    """None: no MIG mode; a list: MIG mode with these devices."""


@dataclass
class FakeLibrary:
    """What pynvml takes for the library. Each method has the C signature."""

    gpus: list[FakeGpu]
    error: int = 0
    """What every call answers."""
    has_events: bool = True
    xids: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """(index of the GPU, error) still to be told."""
    sessions: int = 0

    def nvmlInitWithFlags(self, flags: int) -> int:
        if not self.error:
            self.sessions += 1
        return self.error

    def nvmlShutdown(self) -> int:
        self.sessions -= 1
        return 0

    def nvmlSystemGetDriverVersion(self, out: Any, size: Any) -> int:
        out.value = b"570.86"
        return self.error

    def nvmlSystemGetCudaDriverVersion_v2(self, out: Any) -> int:
        out._obj.value = 12_080
        return self.error

    def nvmlDeviceGetCount_v2(self, out: Any) -> int:
        out._obj.value = len(self.gpus)
        return self.error

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, out: Any) -> int:
        return self._give_handle(self.gpus[index.value], out)

    def nvmlDeviceGetHandleByUUID(self, uuid: Any, out: Any) -> int:
        parts = [part for gpu in self.gpus for part in (gpu, *(gpu.mig or []))]
        found = next((part for part in parts if part.uuid.encode() == uuid.value), None)
        return pynvml.NVML_ERROR_NOT_FOUND if found is None else self._give_handle(found, out)

    def nvmlDeviceGetUUID(self, handle: Any, out: Any, size: Any) -> int:
        return self._say(handle, "uuid", lambda value: setattr(out, "value", value.encode()))

    def nvmlDeviceGetName(self, handle: Any, out: Any, size: Any) -> int:
        return self._say(handle, "name", lambda value: setattr(out, "value", value.encode()))

    def nvmlDeviceGetTemperature(self, handle: Any, sensor: Any, out: Any) -> int:
        return self._say(handle, "temperature", lambda value: setattr(out._obj, "value", value))

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, out: Any) -> int:
        return self._say(handle, "energy_mj", lambda value: setattr(out._obj, "value", value))

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Any, out: Any) -> int:
        return self._say(handle, "clocks", lambda value: setattr(out._obj, "value", value))

    def nvmlDeviceGetTotalEccErrors(self, handle: Any, kind: Any, counter: Any, out: Any) -> int:
        return self._say(handle, "ecc", lambda value: setattr(out._obj, "value", value))

    def nvmlDeviceGetRemappedRows(self, handle: Any, *out: Any) -> int:
        def write(rows: tuple[int, ...]) -> None:
            for pointer, value in zip(out, rows, strict=True):
                pointer._obj.value = value

        return self._say(handle, "remapped", write)

    def nvmlDeviceGetFieldValues(self, handle: Any, count: Any, values: Any) -> int:
        value = values._obj[0]
        value.nvmlReturn = self._say(handle, "recovery", lambda action: setattr(value.value, "uiVal", action))
        return 0

    def nvmlDeviceGetMemoryInfo_v2(self, handle: Any, out: Any) -> int:
        def write(memory_mib: int) -> None:
            out._obj.total, out._obj.reserved = memory_mib * MIB, 615 * MIB
            out._obj.free = (memory_mib - 615 - self._gpu(handle).used_mib) * MIB

        return self._say(handle, "memory_mib", write)

    def nvmlDeviceGetMigMode(self, handle: Any, current: Any, pending: Any) -> int:
        return self._say(handle, "mig", lambda _: setattr(current._obj, "value", pynvml.NVML_DEVICE_MIG_ENABLE))

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Any, out: Any) -> int:
        out._obj.value = 7
        return 0

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Any, index: Any, out: Any) -> int:
        parts = self._gpu(handle).mig or []
        if index.value >= len(parts):
            return pynvml.NVML_ERROR_NOT_FOUND
        return self._give_handle(parts[index.value], out)

    def nvmlEventSetCreate(self, out: Any) -> int:
        return 0 if self.has_events else pynvml.NVML_ERROR_NOT_SUPPORTED

    def nvmlEventSetFree(self, events: Any) -> int:
        return 0

    def nvmlDeviceRegisterEvents(self, handle: Any, types: Any, events: Any) -> int:
        return 0

    def nvmlEventSetWait_v2(self, events: Any, out: Any, timeout_ms: Any) -> int:
        if not self.xids:
            return pynvml.NVML_ERROR_TIMEOUT
        index, xid = self.xids.pop(0)
        _set_handle(out._obj, _handle_of(self.gpus[index]))
        out._obj.eventData = xid
        return 0

    def _give_handle(self, gpu: FakeGpu, out: Any) -> int:
        _set_handle(out._obj, _handle_of(gpu))
        return self.error or gpu.error

    def _gpu(self, handle: Any) -> FakeGpu:
        number = ctypes.cast(handle, ctypes.c_void_p).value
        parts = [gpu for whole in self.gpus for gpu in (whole, *(whole.mig or []))]
        return next(gpu for gpu in parts if _handle_of(gpu) == number)

    def _say(self, handle: Any, name: str, write: Any) -> int:
        gpu = self._gpu(handle)
        value = getattr(gpu, name)
        if self.error or gpu.error:
            return self.error or gpu.error
        if value is None:
            return pynvml.NVML_ERROR_NOT_SUPPORTED
        write(value)
        return 0


def _handle_of(gpu: FakeGpu) -> int:
    """A pointer of its own for each GPU; nobody follows it."""
    return id(gpu)


def _set_handle(pointer: Any, number: int) -> None:
    """Works for a handle and for a struct that begins with one."""
    ctypes.c_void_p.from_address(ctypes.addressof(pointer)).value = number


@contextmanager
def installed(library: FakeLibrary) -> Iterator[FakeLibrary]:
    """pynvml talks to `library`."""
    cache: dict[str, Any] = pynvml._nvmlGetFunctionPointer_cache  # pyright: ignore[reportPrivateUsage]
    before = pynvml.nvmlLib
    cache.clear()
    pynvml.nvmlLib = library
    try:
        yield library
    finally:
        cache.clear()
        pynvml.nvmlLib = before
