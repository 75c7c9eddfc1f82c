"""Loss and accuracy on the held-out samples."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import nn

from .batches import evaluation_batches
from .data import Part
from .device import Device
from .distributed import ALONE, Ranks
from .fence import Fence
from .tasks import Task


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


@torch.inference_mode()
def evaluate(
    model: nn.Module, part: Part, batch_size: int, task: Task, device: Device, fence: Fence, ranks: Ranks = ALONE
) -> Result:
    """The result over `part`, of which each rank answers a share. `model` takes raw samples; its training mode is kept.

    Eager and with the plain module, whatever training does: it runs rarely, and its batches have a shape of their own.
    """
    was_training = model.training
    model.eval()
    target_device = device.torch_device
    sums = torch.zeros(2, dtype=torch.float64, device=target_device)
    ranks.share(model.buffers())
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
    ranks.add_up(sums)
    model.train(was_training)
    loss, right = (sums / len(part)).tolist()  # sync: once per evaluation
    return Result(loss, right if task.has_accuracy else None)
