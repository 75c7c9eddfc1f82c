"""Loss and accuracy on the held-out samples."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import nn

from .batches import evaluation_batches
from .data import Part
from .device import Device
from .distributed import ALONE, Ranks
from .fence import Fence
from .tasks import NextToken, Task

AT_ONCE = 1024
AT_ONCE_BYTES = 16 * 2**20
"""Of samples in float32, so that what a network makes of them stays small beside what training it takes."""
TOKEN_BYTES = 1024
"""A token becomes some hundred numbers."""


@dataclass(frozen=True)
class Result:
    """How well held-out samples were answered."""

    loss: float
    accuracy: float | None
    """0 to 1; None where answers are near or far rather than right or wrong."""

    @property
    def score(self) -> float:
        """The larger, the better."""
        return -self.loss if self.accuracy is None else self.accuracy


def evaluate(
    model: nn.Module, part: Part, batch_size: int, task: Task, device: Device, fence: Fence, ranks: Ranks = ALONE
) -> Result:
    """The result over `part`, of which each rank answers a share. `model` takes raw samples; its training mode is kept.

    Eager and with the plain module, whatever training does: it runs rarely, and its batches have a shape of their own.
    On a GPU they are larger than `batch_size` where that is small, so that launches are not what it waits for, and of
    that size where the memory for it is not there.
    """
    larger = _larger_batch(part, task) if device.is_gpu and ranks.size == 1 else 0
    if larger > batch_size:
        try:
            return _evaluate(model, part, larger, task, device, fence, ranks)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
    return _evaluate(model, part, batch_size, task, device, fence, ranks)


def _larger_batch(part: Part, task: Task) -> int:
    numbers = math.prod(part.inputs.shape[1:])
    bytes_of_one = numbers * (TOKEN_BYTES if isinstance(task, NextToken) else 4)
    return min(AT_ONCE, AT_ONCE_BYTES // max(bytes_of_one, 1), len(part))


@torch.inference_mode()
def _evaluate(
    model: nn.Module, part: Part, batch_size: int, task: Task, device: Device, fence: Fence, ranks: Ranks
) -> Result:
    target_device = device.torch_device
    sums = torch.zeros(2, dtype=torch.float64, device=target_device)
    ranks.share(model.buffers())
    was_training = model.training
    model.eval()
    try:
        batches = evaluation_batches(len(part), batch_size, part.inputs.device)
        for indices, weights in itertools.islice(batches, ranks.rank, None, ranks.size):
            fence.wait()
            inputs, targets, weights = (
                tensor.to(target_device) for tensor in (part.inputs[indices], part.labels[indices], weights)
            )
            with device.autocast():
                outputs = model(inputs)
            losses, right = task.losses(outputs, targets), task.right(outputs, targets)
            sums += torch.stack((losses * weights, right * weights)).double().sum(dim=1)
    finally:
        model.train(was_training)
    ranks.add_up(sums)
    loss, right = (sums / len(part)).tolist()  # sync: once per evaluation
    return Result(loss, right if task.has_accuracy else None)
