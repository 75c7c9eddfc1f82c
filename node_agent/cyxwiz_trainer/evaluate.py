"""Loss and accuracy on the held-out samples."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .batches import evaluation_batches
from .data import Part
from .device import Device
from .fence import Fence


@torch.inference_mode()
def evaluate(model: nn.Module, part: Part, batch_size: int, device: Device, fence: Fence) -> tuple[float, float]:
    """Mean loss and accuracy (0 to 1) over `part`. `model` takes raw samples; its training mode is kept."""
    was_training = model.training
    model.eval()
    sums = torch.zeros(2, dtype=torch.float64, device=device.torch_device)
    for indices, weights in evaluation_batches(len(part), batch_size, device.torch_device):
        fence.wait()
        labels = part.labels[indices]
        with device.autocast():
            logits = model(part.inputs[indices])
        losses = functional.cross_entropy(logits.float(), labels, reduction="none")
        correct = (logits.argmax(dim=1) == labels).float()
        sums += torch.stack((losses * weights, correct * weights)).double().sum(dim=1)
    model.train(was_training)
    loss, correct = (sums / len(part)).tolist()  # sync: once per evaluation
    return loss, correct
