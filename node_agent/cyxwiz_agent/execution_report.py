"""One report of an attempt as status carries it, and the patch that makes it so. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cyxwiz_crds import Execution
from cyxwiz_kube.patches import merge_diff
from cyxwiz_protocol.runner_api import JobProcess

from .bottleneck import bottleneck
from .devices import Devices
from .facts import (
    Facts,
    checkpoint_report,
    control_report,
    data_report,
    model_report,
    progress_report,
    receipt_report,
    resumption_report,
)

LONGEST_MESSAGE = 1024
LONGEST_DEVICE = 256


@dataclass(frozen=True)
class Telling:
    """What a report says that neither records nor the runner know."""

    state: str
    reason: str | None = None
    message: str | None = None
    started_at: str | None = None
    """For the first report of an attempt; a later one keeps what stands."""
    ended_at: str | None = None


@dataclass(frozen=True)
class Surroundings:
    """What the node knows of an attempt that its records do not."""

    devices: Devices = field(default_factory=Devices)
    energy: str | None = None
    stalled_since: str | None = None
    reserved: tuple[str, ...] | None = None
    """The GPUs that Kubernetes gave its pod; None without a reservation."""

    def named(self, gpus: Sequence[str]) -> list[str]:
        """NVIDIA H200 GPU-… for each of `gpus`."""
        names = {device.reading.uuid: device.reading.name for device in self.devices.known}
        return [f"{names.get(gpu, 'unknown')} {gpu}" for gpu in gpus]

    def clock_reasons(self, gpus: Sequence[str]) -> set[str]:
        """Why the clocks of `gpus` are not higher, as of the last look."""
        known = (device.reading for device in self.devices.known)
        return {reason for reading in known if reading.uuid in gpus for reason in reading.clocks_event_reasons}


def execution_report(
    telling: Telling,
    *,
    assignment_id: str,
    node: str,
    sequence: int,
    started_at: str | None,
    facts: Facts,
    process: JobProcess | None,
    around: Surroundings,
) -> Execution:
    """The whole report. `started_at` is what the API server has already."""
    gpus = [] if process is None else process.gpus
    note = facts.started.note if facts.started else None
    return Execution(
        assignment_id=assignment_id,
        sequence=sequence,
        state=telling.state,
        reason=telling.reason,
        message=(telling.message or note or "")[:LONGEST_MESSAGE] or None,
        started_at=started_at or telling.started_at,
        first_step_at=_micro_time(facts.first_step_at),
        ended_at=telling.ended_at,
        start=_start_text(process),
        device=_device_text(facts, process, simulated=around.devices.simulated),
        gpus=None if around.reserved is None else list(around.reserved),
        data=data_report(facts),
        progress=progress_report(facts),
        bottleneck=_bottleneck_text(facts, gpus, around),
        stalled_since=around.stalled_since,
        frozen_seconds=(round(process.frozen_seconds) if process else 0) or None,
        energy=around.energy,
        receipt=receipt_report(facts, around.devices.driver_version if gpus else None, around.named(gpus)),
        resumed=resumption_report(facts),
        checkpoint=checkpoint_report(facts, node, assignment_id),
        control=control_report(facts),
        model=model_report(facts, node, assignment_id, process.exit.stored if process and process.exit else None),
    )


def patch_of(before: Execution | None, report: Execution) -> dict[str, Any]:
    """The merge patch from what the API server has of this assignment; the fence reads its first three fields."""
    patch = merge_diff(before.wire() if before else {}, report.wire())
    return patch | {"assignmentID": report.assignment_id, "sequence": report.sequence, "state": report.state}


def is_same(report: Execution, earlier: Execution) -> bool:
    """True when nothing but the sequence differs."""
    return report.model_copy(update={"sequence": earlier.sequence}) == earlier


def timestamp(unix_time: float) -> str:
    """RFC 3339, UTC, whole seconds."""
    return datetime.fromtimestamp(unix_time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _micro_time(unix_time: float | None) -> str | None:
    """RFC 3339, UTC, microseconds; None for what is no time, which a job's own code may have written."""
    try:
        return None if unix_time is None else datetime.fromtimestamp(unix_time, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    except (OverflowError, OSError, ValueError):
        return None


def _start_text(process: JobProcess | None) -> str | None:
    """Warm (0.09 s), or Cold (8.1 s) and why."""
    if process is None or process.start is None:
        return None
    start = process.start
    shared = f", GPU shared by {start.sharing}" if start.sharing else ""
    return f"{start.mode} ({start.seconds:.2f} s){shared}" + (f": {start.why}" if start.why else "")


def _bottleneck_text(facts: Facts, gpus: Sequence[str], around: Surroundings) -> str | None:
    """What training waits for; None before it is known."""
    waits = facts.progress.waits if facts.progress else None
    if waits is None:
        return None
    on_gpus = bool(gpus) and not around.devices.simulated
    return bottleneck(waits, around.clock_reasons(gpus) if on_gpus else None)


def _device_text(facts: Facts, process: JobProcess | None, *, simulated: bool) -> str | None:
    """What it trains on, in words."""
    if facts.started is None:
        return None
    words = facts.started.device
    if process is not None and process.gpus and simulated:
        count = len(process.gpus)
        words = f"{words}, in place of {count} simulated GPU{'s'[: count > 1]}"
    return words[:LONGEST_DEVICE]
