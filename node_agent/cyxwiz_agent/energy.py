"""What a job's GPUs took while it had them, by the GPUs' own counters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cyxwiz_crds import TrainingJobSpec

from .devices import Devices

Joules = Mapping[str, int]
"""By UUID, since each GPU's driver was loaded."""

JOULES_PER_WATT_HOUR = 3600


def counters(devices: Devices, gpus: Sequence[str]) -> dict[str, int]:
    """The counters of `gpus` as of the last look; those that have none are left out."""
    return {
        device.reading.uuid: device.reading.energy_joules
        for device in devices.known
        if device.reading.uuid in gpus and device.reading.energy_joules is not None
    }


def energy_text(
    spec: TrainingJobSpec, devices: Devices, gpus: Sequence[str], before: Joules | None, now: Joules
) -> str | None:
    """12.4 Wh, or why nobody knows; None for a job without GPUs, and while its GPUs have told nothing."""
    if not gpus:
        return None
    if spec.resources.gpu_memory is not None:
        return "not known: its GPU is shared, and counts for all of its jobs together"
    if any(device.reading.uuid in gpus and device.reading.parent for device in devices.known):
        return "not known: a MIG device has no counter of its own"
    if before is None:
        return None
    taken = [now[gpu] - before[gpu] for gpu in gpus if gpu in before and gpu in now]
    if len(taken) < len(gpus) or min(taken) < 0:
        return "not known: the counter of a GPU is missing, or began anew"
    return f"{sum(taken) / JOULES_PER_WATT_HOUR:.2f} Wh"
