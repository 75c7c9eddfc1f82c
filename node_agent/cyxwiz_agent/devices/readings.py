"""What one look at the driver found, as plain values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GpuReading:
    """One device jobs can be given: a GPU, or a MIG device of one. None: the device does not have the field."""

    uuid: str
    name: str
    memory_total_mib: int
    memory_reserved_mib: int = 0
    """Kept by the driver for itself."""
    memory_free_mib: int = 0
    architecture: str | None = None
    compute_capability: str | None = None
    pci_bus_id: str = ""
    parent: str | None = None
    """UUID of the GPU a MIG device is a part of."""
    temperature_celsius: int | None = None
    power_watts: int | None = None
    energy_joules: int | None = None
    """Since the driver was loaded."""
    utilization_percent: int | None = None
    clocks_event_reasons: tuple[str, ...] = ()
    """Why the clocks are not higher, in words."""
    ecc_uncorrected: int | None = None
    """Since the driver was loaded."""
    remapped_rows: int | None = None
    """Rows of memory replaced by spare ones, over the GPU's life."""
    remap_pending: bool = False
    remap_failed: bool = False
    recovery_action: str | None = None
    """What the driver wants done: "None" when nothing."""
    processes: int | None = None
    """How many processes compute on it."""
    events: bool = False
    """The driver will tell its errors (XIDs)."""

    @property
    def physical(self) -> str:
        """UUID of the GPU, which of a MIG device is its parent's."""
        return self.parent or self.uuid


@dataclass(frozen=True)
class Look:
    """The driver's answer about the whole node."""

    gpus: tuple[GpuReading, ...] = ()
    present: frozenset[str] = frozenset()
    """UUIDs of the GPUs that answered, those without a MIG device included."""
    driver_version: str | None = None
    cuda_version: str | None = None
    problem: str | None = None
    """Why there are fewer GPUs than there might be."""


@dataclass(frozen=True)
class Xid:
    """An error the driver has told of."""

    gpu: str
    """UUID of the GPU, also for an error in one of its MIG devices."""
    number: int
    at: float
    """Unix time."""
