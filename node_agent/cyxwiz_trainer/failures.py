"""Why training cannot go on, in the classes of `cyxwiz_crds.Failure`. Anything else that is raised is a crash."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import ClassVar

from cyxwiz_crds import Failure, size_text

_GIB = 2**30


class JobFailure(Exception):
    """An end that someone can act on; `job.run` writes it down as a FailureRecord. Its text is for the job's author."""

    failure: ClassVar[str]


class UserError(JobFailure):
    """The job asks for something that cannot be, and would fail again anywhere."""

    failure = Failure.USER_ERROR


class Diverged(JobFailure):
    """The loss is no number any more."""

    failure = Failure.DIVERGED


class OutOfGpuMemory(JobFailure):
    """The GPU memory the job may use is too small for it."""

    failure = Failure.OUT_OF_GPU_MEMORY


class WrongDevices(JobFailure):
    """CUDA shows other GPUs than the job was given: the node's fault, not the job's."""

    failure = Failure.GPU_FAULT


def unknown(what: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not among `known`, with the closest one proposed."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f": did you mean {close[0]}?" if close else "."
    return UserError(f"{name[:64]!r} is no {what}{hint} Known: {', '.join(names) or 'none'}")


def diverged(epoch: int, step: int, learning_rate: float) -> Diverged:
    """The error for a loss that was no number first in `step`; `epoch` counts from 1."""
    return Diverged(
        f"the loss was not finite in epoch {epoch}, step {step}, at learning rate {learning_rate:g}. "
        f"Set hyperparameters.learningRate to {learning_rate / 10:g} or lower, or gradientClip: 1.0"
    )


def out_of_gpu_memory(
    epoch: int, step: int, held_bytes: int, allowed_bytes: int, limited: bool, batch_size: int, parts: int = 1
) -> OutOfGpuMemory:
    """The error for an allocation that failed while the job held `held_bytes` of `allowed_bytes`.

    `limited` says that resources.gpuMemory set the bound, so that a larger value is a way out; `parts` must divide a
    smaller batch.
    """
    ways: list[str] = []
    if limited:
        ways.append(f"resources.gpuMemory: {math.ceil(allowed_bytes * 1.25 / _GIB)}Gi")
    if smaller := batch_size // 2 // parts * parts:
        ways.append(f"batchSize: {smaller}")
    proposal = f" Set {' or '.join(ways)}." if ways else " Choose a smaller model or a larger GPU."
    return OutOfGpuMemory(
        f"out of GPU memory in epoch {epoch}, step {step}: held {size_text(held_bytes)} of "
        f"{size_text(allowed_bytes)} and needed more.{proposal}"
    )
