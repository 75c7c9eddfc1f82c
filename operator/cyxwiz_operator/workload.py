"""What jobs have shown of their workload: how fast it trains on which device, and how much memory it needs.

Two jobs have the same workload when all that speed and memory depend on is the same: model and options, data, batch
size, optimizer, precision, resources. How long they train, how fast they learn and from which seed makes no difference.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from cyxwiz_crds import TrainingJobSpec, size_bytes, size_text
from cyxwiz_crds.compute_node import Measured, Outcome

from .speeds import number
from .views import JobView, data_of

_OF_THE_JOB = ("jobType", "model", "dataset", "task", "batchSize", "precision", "deterministic")
_OF_THE_OPTIMIZER = ("optimizer", "accumulateSteps", "ema", "augment", "gradientClip")
_OF_THE_NODE = ("gpus", "gpuMemory", "cpus")


def workload_of(spec: TrainingJobSpec) -> str:
    """resnet18-1f2e3d4c5b6a: the same for jobs that need the same work and memory for a step."""
    wire = spec.wire()
    parts = {name: wire.get(name) for name in _OF_THE_JOB}
    for group, names in (("hyperparameters", _OF_THE_OPTIMIZER), ("resources", _OF_THE_NODE)):
        inner = wire.get(group)
        parts |= {name: inner.get(name) for name in names} if isinstance(inner, dict) else {}  # pyright: ignore[reportUnknownMemberType]  # JSON
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return f"{spec.model.name[:48]}-{digest[:12]}"


def measured_by(job: JobView) -> Measured | None:
    """What a job that succeeded has shown; None when that is not enough, or its devices were simulated."""
    execution, assignment = job.status.execution, job.status.assignment
    progress = execution.progress if execution else None
    if execution is None or assignment is None or progress is None or execution.data is None:
        return None
    device = (execution.device or "").partition(",")[0]
    rate = number(progress.samples_per_second)
    steps = (progress.step or 0) - (assignment.restore_from.step if assignment.restore_from else 0)
    if not device or rate is None or steps <= 0 or "simulated" in (execution.device or ""):
        return None
    spec, samples = job.job.spec, execution.data.train_samples
    batch_size = max(1, min(spec.batch_size, samples))
    # Whole seconds say little of a short job; its rate says more.
    seconds = max(float(progress.elapsed_seconds or 0), steps * batch_size / rate)
    return Measured(
        workload=workload_of(spec),
        device=device[:96],
        samples_per_second=f"{rate:.1f}",
        seconds_per_step=f"{seconds / steps:.6f}",
        steps_per_epoch=max(1, samples // batch_size),
        gpu_memory_peak=progress.gpu_memory_peak,
        data=data_of(spec.dataset.uri),
        # CPU jobs share the machine's cores, memory bandwidth and turbo clocks with whatever else runs there.
        shared=spec.resources.gpus == 0 or spec.resources.gpu_memory is not None,
    )


@dataclass(frozen=True)
class Requirements:
    """What a job will need, by what earlier jobs of its workload showed."""

    duration_s: float
    gpu_memory: str | None
    """Of each GPU; None on the CPU."""
    jobs: int
    """How many earlier jobs it rests on."""
    device: str


def requirements_of(spec: TrainingJobSpec, outcomes: Iterable[Outcome], devices: frozenset[str]) -> Requirements | None:
    """The median of what jobs of the same workload showed on one of `devices`; None when there was none.

    An empty `devices` takes any kind: the kind with most jobs.
    """
    workload = workload_of(spec)
    shown = [outcome.measured for outcome in outcomes if outcome.measured and outcome.measured.workload == workload]
    shown = [each for each in shown if not devices or each.device in devices]
    if not shown:
        return None
    device = statistics.mode(each.device for each in shown)
    shown = [each for each in shown if each.device == device]
    seconds_per_step = statistics.median(number(each.seconds_per_step) or 0.0 for each in shown)
    steps = spec.max_steps or spec.epochs * int(statistics.median(each.steps_per_epoch for each in shown))
    peaks = [size for each in shown if (size := _size(each.gpu_memory_peak)) is not None]
    memory = size_text(max(peaks)) if peaks else None
    return Requirements(steps * seconds_per_step, memory, len(shown), device)


def _size(text: str | None) -> int | None:
    try:
        return size_bytes(text) if text else None
    except ValueError:
        return None
