"""The agent's last word before a start. The operator's view can be stale; two of its choices can meet here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cyxwiz_crds import Rejection, TrainingJobSpec, size_text
from cyxwiz_crds.compute_node import Gpu
from cyxwiz_protocol.runner_api import JobProcess

CONTEXT_MIB = 1024
"""What a process holds of a GPU besides its tensors: 0.8 to 1.0 GiB measured for CUDA context and libraries."""
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
class GpuRoom:
    """How much of its GPUs this node lends to jobs that share them."""

    shareable_mib: Mapping[str, int] = field(default_factory=dict[str, int])
    """Per GPU its memory without what the driver keeps."""
    context_mib: int = CONTEXT_MIB
    """Charged for each process besides its `gpuMemory`; none where that is a limit on all it holds, as under MPS."""

    @classmethod
    def of(cls, gpus: Iterable[Gpu], sharing: str | None) -> GpuRoom:
        """Of these devices, shared in the way the runner names."""
        shareable = {gpu.uuid: gpu.memory_total_mi_b - (gpu.memory_reserved_mi_b or 0) for gpu in gpus}
        return cls(shareable, 0 if sharing == "MPS" else CONTEXT_MIB)


@dataclass(frozen=True)
class Refusal:
    """Why a job cannot start here now."""

    reason: str
    message: str


NO_ROOM = GpuRoom()


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
        if beside and (refusal := _refuse_share(spec, gpu, beside, room)):
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


def _refuse_share(spec: TrainingJobSpec, gpu: str, beside: list[JobProcess], room: GpuRoom) -> Refusal | None:
    """Why the job cannot share the GPU with those that are on it."""
    size = spec.resources.gpu_memory_bytes
    for job in beside:
        if size is None or job.gpu_memory_bytes is None:
            return Refusal(Rejection.NO_FREE_GPU, f"GPU {gpu} is in use by {job.key}")
    taken = sum((job.gpu_memory_bytes or 0) + room.context_mib * _MIB for job in beside)
    free = room.shareable_mib.get(gpu, 0) * _MIB - taken
    need = (size or 0) + room.context_mib * _MIB
    if need > free:
        context = f" and {size_text(room.context_mib * _MIB)} for its CUDA context" if room.context_mib else ""
        return Refusal(
            Rejection.NO_FREE_GPU,
            f"GPU {gpu} has {size_text(max(free, 0))} left beside {len(beside)} jobs, the job needs"
            f" {spec.resources.gpu_memory}{context}",
        )
    return None
