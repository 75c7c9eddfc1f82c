"""What a trainer tells: the lines of metrics.jsonl, and the exit.json of its runner.

A trainer appends whole lines and never rewrites one. A reader takes the newest of each kind.
"""

from __future__ import annotations

import json
from enum import IntEnum
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from cyxwiz_crds import Model

from .storing import StoreOutcome

# As status takes them: a job's own code can write a record, too.
FilePath = Annotated[str, Field(max_length=512)]
Sha256 = Annotated[str, Field(max_length=64)]
Size = Annotated[int, Field(ge=0, le=2**53)]


class ExitCode(IntEnum):
    """How a trainer leaves. Anything else is a crash."""

    SUCCEEDED = 0
    FAILED = 10
    """It wrote a FailureRecord that says why."""
    STOPPED = 20
    """It was told to stop by SIGTERM and has saved what it could."""


class ReplayRecord(Model):
    """One recorded batch, answered when a checkpoint was saved and again when training went on from it."""

    saved_loss: float
    replayed_loss: float
    verified: bool
    """They agree: the weights are those that were saved."""


class SoftwareRecord(Model):
    """What the trainer is made of."""

    cyxwiz: str
    python: str
    torch: str
    cuda: str | None = None
    """That torch was built with; None on the CPU."""
    code_sha256: str | None = None
    """Over the source of the trainer and of the package that model or data come from."""


class WaitsRecord(Model):
    """What the training thread spent its time on of late, as shares of it. They sum to 1."""

    data: float
    """Fetching batches."""
    device: float
    """Waiting for the GPU, which is behind; on the CPU, computing."""
    host: float
    """Queueing work for the GPU, and the rest of the loop."""


class StartedRecord(Model):
    """The first step is done. Said again when it is known how the later ones run."""

    kind: Literal["started"] = "started"
    t: float
    """Unix time."""
    device: str
    """What it trains on and how, in words: "NVIDIA H200, bfloat16, CUDA graph", "NVIDIA H200, float32, eager: <why>",
    "CPU, 2 threads, float32"."""
    parameters: int
    """Trainable numbers of the model."""
    train_samples: int
    validation_samples: int
    synthetic: bool = False
    data_sha256: str | None = None
    restored_step: int = 0
    """Steps already done by an earlier attempt; 0 means from the beginning."""
    replay: ReplayRecord | None = None
    """Of a job that goes on from a checkpoint."""
    note: str | None = None
    """Why it did not do what was asked, such as a checkpoint that could not be read."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    software: SoftwareRecord | None = None


class ProgressRecord(Model):
    """Where training is now; about one a second."""

    kind: Literal["progress"] = "progress"
    t: float
    epoch: int
    """In progress, from 1."""
    epochs: int
    step: int
    total_steps: int
    loss: float
    """Mean training loss of the epoch so far."""
    accuracy: float | None = None
    """Training accuracy of the epoch so far, 0 to 1; None for a regression."""
    learning_rate: float
    samples_processed: int
    samples_per_second: float
    """Over the last seconds."""
    elapsed_seconds: float
    remaining_seconds: float | None = None
    """None until a rate is known."""
    gpu_memory_peak: int | None = None
    """Bytes."""
    waits: WaitsRecord | None = None


class ActivityRecord(Model):
    """What the training thread does from now on, where that is no step. An epoch's record ends an evaluation."""

    kind: Literal["activity"] = "activity"
    t: float
    activity: str
    """training, evaluating, saving or compiling."""


class EpochRecord(Model):
    """An epoch is done and evaluated."""

    kind: Literal["epoch"] = "epoch"
    t: float
    epoch: int
    loss: float
    accuracy: float | None = None
    validation_loss: float | None = None
    validation_accuracy: float | None = None


class EvaluationRecord(Model):
    """How far an Evaluation is; the last one has its result."""

    kind: Literal["evaluation"] = "evaluation"
    t: float
    samples: int
    """Answered so far."""
    total_samples: int
    loss: float | None = None
    """Over all samples; None before the last one."""
    accuracy: float | None = None
    """0 to 1; None for a regression, too."""
    elapsed_seconds: float


class CheckpointedRecord(Model):
    """A checkpoint is complete on disk."""

    kind: Literal["checkpoint"] = "checkpoint"
    t: float
    step: int
    epoch: int
    """Whole epochs done."""
    folder: str
    """Relative to the job's folder: checkpoints/step-<n>."""
    digest: str
    """sha256:<first 16 hexadecimal digits of the SHA-256 of state.safetensors>."""
    best: bool = False
    """The best evaluation so far came just before it; it is kept until a better one."""


class ControlRecord(Model):
    """An order of `spec.control` is taken up, and what it asked to be saved is saved."""

    kind: Literal["control"] = "control"
    t: float
    generation: int
    message: str
    """What it changed, for people."""


class ModelRecord(Model):
    """The trained weights are complete on disk."""

    kind: Literal["model"] = "model"
    t: float
    path: FilePath
    """Relative to the job's folder."""
    sha256: Sha256
    bytes: Size
    format: str = "safetensors"


class ExportRecord(Model):
    """What became of one more format of the finished model."""

    kind: Literal["export"] = "export"
    t: float
    format: str
    message: str
    """What was compared and how far it agrees; or why there is no such file."""
    path: FilePath | None = None
    """Relative to the job's folder; None when there is no file."""
    sha256: Sha256 | None = None
    bytes: Size | None = None


class FailureRecord(Model):
    """Why training cannot go on; the last record before ExitCode.FAILED."""

    kind: Literal["failure"] = "failure"
    t: float
    failure: str
    """A class of cyxwiz_crds.Failure, such as UserError."""
    message: str
    """What happened and what to do, for the job's author."""


Record = (
    StartedRecord
    | ProgressRecord
    | ActivityRecord
    | EpochRecord
    | EvaluationRecord
    | CheckpointedRecord
    | ControlRecord
    | ModelRecord
    | ExportRecord
    | FailureRecord
)

_RECORD: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="kind")])
LONGEST_LINE_BYTES = 65_536


def parse_record(line: bytes) -> Record | None:
    """The record of one line of metrics.jsonl; None for a line no trainer of this version would write.

    A job's own code can write to this file, so nothing in it is trusted further than its type.
    """
    if len(line) > LONGEST_LINE_BYTES:
        return None
    try:
        return _RECORD.validate_json(line)
    except ValidationError:
        return None


def encode_record(record: Record) -> bytes:
    """One line, newline included."""
    return json.dumps(record.wire(), allow_nan=False).encode() + b"\n"


class StartFacts(Model):
    """How a job came to its first step."""

    mode: Literal["Warm", "Cold"]
    seconds: float
    """From the runner's hearing of the job to the trainer's answer that it begins."""
    why: str | None = None
    """Why it was cold: "no warm trainer was ready", "two GPUs"."""
    sharing: str | None = None
    """How it shares its GPUs and how much of each it may hold: "MPS, 4Gi", "time slices, 4Gi"; None for whole GPUs."""


class ExitRecord(Model):
    """How the processes of an attempt ended: the content of exit.json."""

    assignment_id: str
    cause: Literal["Exited", "Stopped", "Fenced", "StartFailed", "RunnerRestarted", "OutOfHostMemory", "SharingLost"]
    """Exited by itself, stopped on the agent's order, killed by the fence, never started, ended by a later runner,
    killed before host memory ran out, ended with the server through which it shared its GPU."""
    exit_code: int | None = None
    signal: int | None = None
    started_at: float | None = None
    """Unix time."""
    ended_at: float
    """Unix time at which the last process of the tree was gone."""
    start: StartFacts | None = None
    stored: StoreOutcome | None = None
    """Of a model that was to be put elsewhere: what came of it."""
    memory_peak_bytes: int | None = None
    """Most host memory its processes were seen to use; None where memory never was short enough to look."""
