"""The node's devices over time: each look and each error folded into what was known. Pure but for `read_devices`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from cyxwiz_crds.compute_node import Gpu, GpuReadings

from . import nvml
from .health import HARDWARE_SLOWDOWNS, HEALTHY, Health, Signs, health_of, xid_text
from .readings import GpuReading, Look, Xid

SIMULATED = "Simulated"
_LONGEST_NAME = 96
_LONGEST_REASON = 256


@dataclass(frozen=True)
class Device:
    """One device: its newest reading and what is made of it."""

    reading: GpuReading
    health: Health = HEALTHY
    xid: Xid | None = None
    cured: bool = False
    """It was Lost after the error and came back: what brought it back has cured it."""
    slow_looks: int = 0

    def gpu(self) -> Gpu:
        """The device in the words of the ComputeNode."""
        now = self.reading
        return Gpu(
            uuid=now.uuid,
            name=now.name[:_LONGEST_NAME],
            architecture=now.architecture,
            compute_capability=now.compute_capability,
            memory_total_mi_b=now.memory_total_mib,
            memory_reserved_mi_b=now.memory_reserved_mib,
            pci_bus_id=now.pci_bus_id or None,
            mig_parent=now.parent,
            health=self.health.state,
            health_reason=self.health.reason[:_LONGEST_REASON] if self.health.reason else None,
            last_xid=xid_text(self.xid.number) if self.xid else None,
            recovery_action=now.recovery_action,
            ecc_uncorrected=now.ecc_uncorrected,
            remapped_rows=now.remapped_rows,
            readings=None if self.health.state == "Lost" else self._readings(),
        )

    def _readings(self) -> GpuReadings:
        now = self.reading
        return GpuReadings(
            memory_free_mi_b=now.memory_free_mib,
            temperature_celsius=now.temperature_celsius,
            power_watts=now.power_watts,
            energy_kilojoules=None if now.energy_joules is None else now.energy_joules // 1000,
            utilization_percent=now.utilization_percent,
            clocks_event_reasons=list(now.clocks_event_reasons),
            last_xid_at=_time_text(self.xid.at) if self.xid else None,
        )


@dataclass(frozen=True)
class Devices:
    """All devices of the node as last known."""

    known: tuple[Device, ...] = ()
    driver_version: str | None = None
    cuda_version: str | None = None
    message: str | None = None
    """Why there are no GPUs, or fewer than there might be."""

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        return tuple(device.gpu() for device in self.known)

    @property
    def simulated(self) -> bool:
        """The devices come from a file: nothing can compute on them."""
        return any(device.reading.name.startswith(SIMULATED) for device in self.known)

    @property
    def unusable(self) -> Mapping[str, str]:
        """UUID of each device that no job may be given, and why."""
        return {
            device.reading.uuid: f"{device.health.state} ({device.health.reason})"
            for device in self.known
            if not device.health.usable
        }

    def after(self, look: Look, now: float) -> Devices:
        """These devices after one more look. What is missing without its GPU having answered is Lost, not forgotten."""
        before = {device.reading.uuid: device for device in self.known}
        seen = [_after(before.get(reading.uuid), reading, now) for reading in look.gpus]
        uuids = {reading.uuid for reading in look.gpus}
        lost = [
            replace(device, health=Health("Lost", look.problem or "its driver does not list it any more"), slow_looks=0)
            for uuid, device in before.items()
            # A GPU that answers and has another set of MIG devices was divided anew.
            if uuid not in uuids and device.reading.physical not in look.present
        ]
        known = sorted([*seen, *lost], key=lambda device: (device.reading.pci_bus_id, device.reading.uuid))
        return Devices(tuple(known), look.driver_version, look.cuda_version, look.problem)

    def after_error(self, xid: Xid) -> Devices:
        """These devices after an error the driver told of, which all parts of the GPU share."""
        return replace(
            self,
            known=tuple(
                _judged(replace(device, xid=xid, cured=False), xid.at) if device.reading.physical == xid.gpu else device
                for device in self.known
            ),
        )

    def unanswered(self, reason: str) -> Devices:
        """These devices while their driver is silent."""
        return replace(
            self,
            known=tuple(replace(device, health=Health("Unhealthy", reason)) for device in self.known),
            message=reason,
        )


def read_devices() -> Devices:
    """The devices now, by a driver opened and closed for it."""
    driver = nvml.Driver()
    try:
        return Devices().after(driver.look(), datetime.now(UTC).timestamp())
    finally:
        driver.close()


def _after(before: Device | None, reading: GpuReading, now: float) -> Device:
    earlier = before or Device(reading)
    slowed = HARDWARE_SLOWDOWNS.intersection(reading.clocks_event_reasons)
    return _judged(
        replace(
            earlier,
            reading=reading,
            cured=earlier.cured or earlier.health.state == "Lost",
            slow_looks=earlier.slow_looks + 1 if slowed else 0,
        ),
        now,
    )


def _judged(device: Device, now: float) -> Device:
    xid = None if device.cured else device.xid
    return replace(device, health=health_of(Signs(device.reading, xid, device.slow_looks, now)))


def _time_text(unix_time: float) -> str:
    return datetime.fromtimestamp(unix_time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
