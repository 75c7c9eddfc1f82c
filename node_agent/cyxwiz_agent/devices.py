"""The node's GPUs as NVML describes them. No driver is a state of the node, never a crash."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pynvml

from cyxwiz_crds.compute_node import Gpu

_ARCHITECTURES = {
    getattr(pynvml, f"NVML_DEVICE_ARCH_{name.upper()}"): name
    for name in ("Maxwell", "Pascal", "Volta", "Turing", "Ampere", "Ada", "Hopper", "Blackwell")
    if hasattr(pynvml, f"NVML_DEVICE_ARCH_{name.upper()}")
}
_MIB = 2**20


@dataclass(frozen=True)
class Devices:
    """What one look at the driver found."""

    gpus: tuple[Gpu, ...] = ()
    driver_version: str | None = None
    cuda_version: str | None = None
    message: str | None = None
    """Why there are no GPUs, when a driver was looked for and not found or failed."""


def read_devices() -> Devices:
    """The devices now. Opens and closes NVML, so that a driver installed or reloaded later is seen at the next look."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        if _code(error) == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
            return Devices(message="no NVIDIA driver on this node: it trains on its CPUs")
        return Devices(message=f"the NVIDIA driver does not answer: {error}")
    try:
        gpus = tuple(_gpu(index) for index in range(pynvml.nvmlDeviceGetCount()))
        cuda = pynvml.nvmlSystemGetCudaDriverVersion_v2()
        return Devices(gpus, _text(pynvml.nvmlSystemGetDriverVersion()), f"{cuda // 1000}.{cuda % 1000 // 10}")
    except pynvml.NVMLError as error:
        return Devices(message=f"the NVIDIA driver failed: {error}")
    finally:
        pynvml.nvmlShutdown()


def _gpu(index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    # Version 1 counts what the driver keeps for itself as used.
    memory: Any = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
    capability = _optional(pynvml.nvmlDeviceGetCudaComputeCapability, handle)
    return Gpu(
        uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
        name=_text(pynvml.nvmlDeviceGetName(handle)),
        architecture=_ARCHITECTURES.get(_optional(pynvml.nvmlDeviceGetArchitecture, handle)),
        compute_capability=None if capability is None else f"{capability[0]}.{capability[1]}",
        memory_total_mi_b=memory.total // _MIB,
        memory_reserved_mi_b=memory.reserved // _MIB,
    )


def _optional(read: Callable[[Any], Any], handle: Any) -> Any:
    """A field that some devices do not have: None there."""
    try:
        return read(handle)
    except pynvml.NVMLError as error:
        if _code(error) == pynvml.NVML_ERROR_NOT_SUPPORTED:
            return None
        raise


def _code(error: pynvml.NVMLError) -> int:
    """The NVML return code, which the library keeps in an attribute it does not declare."""
    return int(getattr(error, "value", pynvml.NVML_ERROR_UNKNOWN))


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
