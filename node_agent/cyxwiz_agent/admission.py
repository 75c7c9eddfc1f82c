"""The agent's last word before a start. The operator's view can be stale; two of its choices can meet here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cyxwiz_crds import Rejection, TrainingJobSpec, size_text
from cyxwiz_protocol.runner_api import JobProcess

from .gpu_room import NO_ROOM, GpuRoom

_MIB = 2**20


@dataclass(frozen=True)
class Capacity:
    """What this node lends to jobs."""

    gpus: frozenset[str]
    cpus: int
    memory_bytes: int
    max_jobs: int
    unusable: Mapping[str, str] = field(default_factory=dict[str, str])
    """GPUs among them that no job may be given, and why."""


@dataclass(frozen=True)
class Refusal:
    """Why a job cannot start here now."""

    reason: str
    message: str


def refuse(
    spec: TrainingJobSpec,
    gpus: Iterable[str],
    capacity: Capacity,
    present: Iterable[JobProcess],
    room: GpuRoom = NO_ROOM,
) -> Refusal | None:
    """None when the job fits beside the `present` ones, else the first reason why not."""
    jobs = list(present)
    wanted = set(gpus)
    if missing := wanted - capacity.gpus:
        return Refusal(Rejection.NO_FREE_GPU, f"this node has no GPU {min(missing)}")
    if ill := sorted(wanted & capacity.unusable.keys()):
        return Refusal(Rejection.NO_FREE_GPU, f"{ill[0]} is {capacity.unusable[ill[0]]}")
    if len(jobs) >= capacity.max_jobs:
        return Refusal(Rejection.TOO_MANY_JOBS, f"{len(jobs)} jobs are here, {capacity.max_jobs} allowed")
    for gpu in sorted(wanted):
        beside = [job for job in jobs if gpu in job.gpus]
        if refusal := _refuse_gpu(spec, gpu, beside, room):
            return refusal
    cpus = sum(job.cpus for job in jobs)
    if cpus + spec.resources.cpus > capacity.cpus:
        return Refusal(
            Rejection.NO_FREE_CPU, f"needs {spec.resources.cpus} CPUs, {capacity.cpus - cpus} of {capacity.cpus} free"
        )
    memory = sum(job.memory_bytes for job in jobs)
    if memory + spec.resources.memory_bytes > capacity.memory_bytes:
        free = size_text(max(capacity.memory_bytes - memory, 0))
        return Refusal(Rejection.NO_FREE_MEMORY, f"needs {spec.resources.memory}, {free} free")
    return None


def _refuse_gpu(spec: TrainingJobSpec, gpu: str, beside: list[JobProcess], room: GpuRoom) -> Refusal | None:
    """Why the job cannot have the GPU beside those that are on it, and beside what nobody here accounts for."""
    size = spec.resources.gpu_memory_bytes
    for job in beside:
        if size is None or job.gpu_memory_bytes is None:
            return Refusal(Rejection.NO_FREE_GPU, f"GPU {gpu} is in use by {job.key}")
    unaccounted = room.unaccounted_mib.get(gpu, 0)
    stranger = f"{size_text(unaccounted * _MIB)} of GPU {gpu} are in use that no job of this node accounts for"
    if size is None:
        return Refusal(Rejection.NO_FREE_GPU, stranger) if unaccounted > room.bears_mib(gpu) else None
    if not (beside or unaccounted):
        return None  # alone it may have all of it, and its context comes on top
    context_mib = room.context_mib if beside else 0
    free = (room.shareable_mib.get(gpu, 0) - unaccounted - sum(map(room.charge_mib, beside))) * _MIB
    if size + context_mib * _MIB <= free:
        return None
    context = f" and {size_text(context_mib * _MIB)} for its CUDA context" if context_mib else ""
    return Refusal(
        Rejection.NO_FREE_GPU,
        f"GPU {gpu} has {size_text(max(free, 0))} left beside {len(beside)} jobs, the job needs"
        f" {spec.resources.gpu_memory}{context}" + (f"; {stranger}" if unaccounted else ""),
    )
