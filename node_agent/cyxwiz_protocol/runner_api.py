"""The runner's socket: what an agent may ask, and what it hears.

A unix stream socket below the node's state folder. One JSON object a line in each direction, one answer a request,
except `watch`, which answers with a Snapshot at once and again after every change, until the connection closes.
Every request may be repeated: saying it twice is the same as saying it once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from cyxwiz_crds import Model

from .records import ExitRecord, StartFacts

SOCKET_NAME = "runner.sock"
LONGEST_LINE_BYTES = 1_048_576


def socket_path(state: Path) -> Path:
    """Where the runner of `state` listens."""
    return state / SOCKET_NAME


class RunRequest(Model):
    """Let the attempt whose job.json is written compute until `deadline`.

    A lower attempt of the same job is refused; a higher one waits until the processes of the lower are gone.
    """

    verb: Literal["run"] = "run"
    assignment_id: str
    job_uid: str
    attempt: int
    key: str
    """namespace/name, for people."""
    gpus: list[str] = []
    gpu_memory_bytes: int | None = None
    """What it may hold of each of its GPUs, which it then shares; None gives it whole GPUs."""
    cpus: int = 1
    memory_bytes: int
    deadline: float
    """Boot time in seconds."""


class StopRequest(Model):
    """SIGTERM to the attempt's processes, SIGKILL to whatever is left after the grace."""

    verb: Literal["stop"] = "stop"
    assignment_id: str
    grace_seconds: float


class RenewRequest(Model):
    """Longer deadlines, per attempt: a later one than before, or none. A frozen job with a new deadline is thawed."""

    verb: Literal["renew"] = "renew"
    deadlines: dict[str, float]
    """Assignment id to boot time in seconds."""


class ForgetRequest(Model):
    """The agent has reported the end of this attempt: drop it from the snapshot. Its folder stays."""

    verb: Literal["forget"] = "forget"
    assignment_id: str


class WarmRequest(Model):
    """Keep a trainer ready on each of these GPUs and on no other: only the agent knows which are there and healthy.

    For a runner that was told to take them from its agent; `Snapshot.warm_gpus` says whether.
    """

    verb: Literal["warm"] = "warm"
    gpus: list[str]


class ListRequest(Model):
    """Answers with one Snapshot."""

    verb: Literal["list"] = "list"


class WatchRequest(Model):
    """Answers with a Snapshot now and after every change."""

    verb: Literal["watch"] = "watch"


Request = RunRequest | StopRequest | RenewRequest | ForgetRequest | WarmRequest | ListRequest | WatchRequest
REQUEST: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="verb")])


class Answer(Model):
    """What came of a request that is not `list` or `watch`."""

    ok: bool
    reason: str | None = None
    """CamelCase, when not ok: UnknownAssignment, LowerAttempt, AlreadyEnded, NoOrder, DeadlinePassed, BadRequest."""
    message: str | None = None


JobState = Literal["Waiting", "Starting", "Running", "Frozen", "Ending", "Storing", "Reaped"]
"""Agents hear Ending for Storing."""


class JobProcess(Model):
    """One attempt as the runner knows it."""

    assignment_id: str
    job_uid: str
    attempt: int
    key: str
    state: JobState
    pid: int | None = None
    gpus: list[str] = []
    gpu_memory_bytes: int | None = None
    """As ordered: None means whole GPUs."""
    cpus: int = 1
    memory_bytes: int = 0
    frozen_seconds: float = 0.0
    """How long it was frozen so far, as of its last thaw."""
    start: StartFacts | None = None
    exit: ExitRecord | None = None
    """Set in state Reaped."""


class Snapshot(Model):
    """Everything the runner knows, whole."""

    instance: str
    """Identity of this run of the runner."""
    jobs: list[JobProcess] = []
    warm: int = 0
    """Trainers that are ready and unclaimed."""
    warming: int = 0
    """Trainers that are being made ready."""
    warming_gpus: list[str] = []
    """GPUs on which they are."""
    imported: int = 0
    """Trainers that wait, imported but off the device, until the job that holds it has gone."""
    warm_gpus: list[str] | None = None
    """GPUs the agent wants a trainer on, sorted; None when that is not the agent's to say."""
    torch_version: str | None = None
    models: list[str] = []
    message: str | None = None
    """Why there are no warm trainers, when there should be."""
    isolation: str | None = None
    """How jobs are kept from each other: a uid each, or why not."""
    sharing: str | None = None
    """How jobs with gpuMemory share a GPU: MPS or time slices."""
