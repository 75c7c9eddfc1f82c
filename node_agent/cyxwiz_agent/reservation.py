"""The GPUs that a job may have on this node: the operator's choice, or what Kubernetes gave the job's pod. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from cyxwiz_crds import Rejection, TrainingJob

from .admission import Refusal
from .pod_resources import PodResources
from .settings import GpuMode

ADVICE = "run its device plugin with deviceIDStrategy uuid and without sharing"


@dataclass(frozen=True)
class Given:
    """What is known of a job's GPUs."""

    gpus: tuple[str, ...] | None
    """None while Kubernetes has given none."""
    refusal: Refusal | None = None
    """Why the job cannot have them."""


def gpus_given(job: TrainingJob, mode: GpuMode, pods: PodResources | None, known: Collection[str]) -> Given:
    """The GPUs of the job's present assignment; `known` are those of this node."""
    assignment = job.status.assignment
    assert assignment is not None
    if assignment.reservation is None:
        if mode is GpuMode.RESERVE and assignment.gpus:
            return _refused("it was bound without a reservation, and this node's GPUs are reserved through Kubernetes")
        return Given(tuple(assignment.gpus))
    if pods is None or mode is not GpuMode.RESERVE:
        return _refused("its GPUs are reserved through Kubernetes, and this node's agent was not told to look there")
    devices = pods.held_by(job.metadata.namespace, assignment.reservation)
    if devices is None:
        return Given(None)
    if strange := [device for device in devices if device not in known]:
        return _refused(f"Kubernetes gave it device {strange[0]}, which is no GPU's UUID here: {ADVICE}")
    if len(devices) != len(assignment.gpus):
        return _refused(f"Kubernetes gave it {len(devices)} GPUs in place of {len(assignment.gpus)}")
    return Given(devices)


def taken_by(job: TrainingJob, gpus: Collection[str], pods: PodResources | None) -> str | None:
    """Who has GPUs that the job still runs on and its own pod holds no more; None when nobody has."""
    assignment = job.status.assignment
    if assignment is None or assignment.reservation is None or pods is None:
        return None
    left = set(gpus) - set(pods.held_by(job.metadata.namespace, assignment.reservation) or ())
    for holding in pods.holdings or ():
        if taken := left.intersection(holding.devices):
            return f"Kubernetes gave its GPU {min(taken)} to pod {holding.key}"
    return None


def with_gpus(job: TrainingJob, gpus: Collection[str]) -> TrainingJob:
    """The job as if it were assigned these."""
    assignment = job.status.assignment
    assert assignment is not None
    status = job.status.model_copy(update={"assignment": assignment.model_copy(update={"gpus": list(gpus)})})
    return job.model_copy(update={"status": status})


def _refused(message: str) -> Given:
    return Given((), Refusal(Rejection.NO_FREE_GPU, message))
