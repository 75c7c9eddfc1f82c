"""The agent's last word before a start. The operator's view can be stale; two of its choices can meet here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cyxwiz_crds import Rejection, TrainingJobSpec, size_text
from cyxwiz_protocol.runner_api import JobProcess


@dataclass(frozen=True)
class Capacity:
    """What this node lends to jobs."""

    gpus: frozenset[str]
    cpus: int
    memory_bytes: int
    max_jobs: int


@dataclass(frozen=True)
class Refusal:
    """Why a job cannot start here now."""

    reason: str
    message: str


def refuse(
    spec: TrainingJobSpec, gpus: Iterable[str], capacity: Capacity, present: Iterable[JobProcess]
) -> Refusal | None:
    """None when the job fits beside the `present` ones, else the first reason why not."""
    jobs = list(present)
    wanted = set(gpus)
    if missing := wanted - capacity.gpus:
        return Refusal(Rejection.NO_FREE_GPU, f"this node has no GPU {min(missing)}")
    if len(jobs) >= capacity.max_jobs:
        return Refusal(Rejection.TOO_MANY_JOBS, f"{len(jobs)} jobs are here, {capacity.max_jobs} allowed")
    for job in jobs:
        if shared := wanted & set(job.gpus):
            return Refusal(Rejection.NO_FREE_GPU, f"GPU {min(shared)} is in use by {job.key}")
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
