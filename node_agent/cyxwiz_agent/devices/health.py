"""How healthy a device is: a pure function of its newest reading and its newest error, so that it recovers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .readings import GpuReading, Xid

# Errors of the program that ran, in the words of NVIDIA's XID catalogue; the device itself is well.
APPLICATION_XIDS = frozenset({13, 31, 43, 45, 68, 109})
XID_WORDS = {
    13: "graphics engine exception",
    31: "memory page fault",
    43: "channel reset after a program's fault",
    45: "channel removed after a program ended",
    48: "uncorrectable memory error",
    62: "microcontroller halted",
    63: "row remapping recorded",
    64: "row remapping failed",
    68: "video processor exception",
    74: "NVLink error",
    79: "fallen off the bus",
    92: "many single-bit memory errors",
    94: "contained memory error",
    95: "uncontained memory error",
    109: "context switch timeout",
    119: "GPU system processor timeout",
    120: "GPU system processor error",
    140: "unrecovered memory error",
}
HARDWARE_SLOWDOWNS = frozenset({"HwThermalSlowdown", "HwPowerBrakeSlowdown"})

# A driver that says what it wants done is believed soon after an error; where it cannot say, silence has to do.
XID_SETTLES_S = 60.0
XID_FADES_S = 1800.0
# One look may meet a short dip; two in a row are half a minute of it.
SLOW_LOOKS = 2


@dataclass(frozen=True)
class Health:
    """Healthy, Degraded, Unhealthy, Lost, Unmonitored or InUse; jobs are given none of Unhealthy, Lost, InUse."""

    state: str
    reason: str | None = None

    @property
    def usable(self) -> bool:
        return self.state not in ("Unhealthy", "Lost", "InUse")


HEALTHY = Health("Healthy")


@dataclass(frozen=True)
class Signs:
    """Everything a device is judged by."""

    reading: GpuReading
    xid: Xid | None
    slow_looks: int
    """Looks in a row that met a slowdown by the hardware."""
    now: float
    """Unix time."""


def wants_recovery(signs: Signs) -> Health | None:
    action = signs.reading.recovery_action
    return None if action in (None, "None") else Health("Unhealthy", f"its driver asks for: {action}")


def cannot_remap(signs: Signs) -> Health | None:
    return Health("Unhealthy", "a row of its memory could not be remapped") if signs.reading.remap_failed else None


def had_an_error(signs: Signs) -> Health | None:
    xid = signs.xid
    if xid is None or xid.number in APPLICATION_XIDS:
        return None
    fades_s = XID_FADES_S if signs.reading.recovery_action is None else XID_SETTLES_S
    return Health("Unhealthy", xid_text(xid.number)) if signs.now - xid.at < fades_s else None


def remaps_at_next_reset(signs: Signs) -> Health | None:
    return Health("Degraded", "memory rows are remapped at its next reset") if signs.reading.remap_pending else None


def has_memory_errors(signs: Signs) -> Health | None:
    count = signs.reading.ecc_uncorrected
    return Health("Degraded", f"{count} uncorrected memory errors since the driver was loaded") if count else None


def is_slowed(signs: Signs) -> Health | None:
    reasons = HARDWARE_SLOWDOWNS.intersection(signs.reading.clocks_event_reasons)
    if not reasons or signs.slow_looks < SLOW_LOOKS:
        return None
    return Health("Degraded", f"slowed down: {', '.join(sorted(reasons))}")


def is_unmonitored(signs: Signs) -> Health | None:
    if signs.reading.events or signs.reading.recovery_action is not None:
        return None
    return Health("Unmonitored", "its driver tells neither errors nor what to do about them")


CHECKS: tuple[Callable[[Signs], Health | None], ...] = (
    wants_recovery,  # the driver's own verdict comes first
    cannot_remap,
    had_an_error,
    remaps_at_next_reset,
    has_memory_errors,
    is_slowed,
    is_unmonitored,
)


def health_of(signs: Signs) -> Health:
    """The first check that objects decides."""
    return next((health for check in CHECKS if (health := check(signs)) is not None), HEALTHY)


def xid_text(number: int) -> str:
    """XID 79: fallen off the bus"""
    words = XID_WORDS.get(number)
    return f"XID {number}: {words}" if words else f"XID {number}"
