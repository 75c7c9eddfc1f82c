"""One recorded batch, answered when a checkpoint is saved and again when training goes on from it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .data import Part
from .device import Device
from .tasks import Task

SAMPLES = 64


@torch.inference_mode()
def replayed_loss(network: nn.Module, part: Part, task: Task, device: Device, rows: int) -> Tensor:
    """() float32: the mean loss of `network`, which takes raw samples, on the first samples of `part`. No sync.

    `rows` samples are computed at once: what fits in memory for a step fits here. The samples are known by the digest
    of the data, which a checkpoint carries; the mode of `network` is kept.
    """
    was_training = network.training
    network.eval()
    losses: list[Tensor] = []
    for inputs, targets in zip(part.inputs[:SAMPLES].split(rows), part.labels[:SAMPLES].split(rows), strict=True):
        with device.autocast():
            outputs = network(inputs.to(device.torch_device, non_blocking=True))
        losses.append(task.losses(outputs, targets.to(device.torch_device, non_blocking=True)))
    network.train(was_training)
    return torch.cat(losses).mean()


def agrees(saved: float, replayed: float, device: Device) -> bool:
    """Whether the same weights answered: float32 sums may differ in their last digits, bfloat16 in its own."""
    return math.isclose(saved, replayed, rel_tol=1e-4 if device.autocast_dtype is None else 1e-2, abs_tol=1e-6)
