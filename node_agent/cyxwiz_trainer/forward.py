"""The differentiable part of a step, as one function: what autograd follows and what is compiled."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from .device import Device
from .tasks import Task

Forward = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(batch, ...) inputs and targets to the mean loss, () float32, and how many samples were answered right, ()."""


def forward_of(network: nn.Module, task: Task, device: Device) -> Forward:
    """Loss and right answers of `network`, which takes raw samples, computed in the job's precision."""

    def forward(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        with device.autocast():
            outputs = network(inputs)
        return task.loss(outputs, targets), task.right(outputs.detach(), targets).sum()

    return forward
