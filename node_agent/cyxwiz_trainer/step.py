"""One step of training: forward, backward, update, all on what lies in the feed's two tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cyxwiz_crds.training_job import Hyperparameters

from .average import Average
from .device import Device
from .distributed import ALONE, Ranks
from .feed import Feed
from .optimizer import Optimizer
from .tasks import Task
from .totals import Totals


@dataclass(frozen=True)
class Step:
    """Everything it touches stays where it is, and nothing in it waits for the device: it can be captured."""

    feed: Feed
    network: nn.Module
    """Takes raw samples."""
    task: Task
    optimizer: Optimizer
    average: Average | None
    totals: Totals
    device: Device
    hyper: Hyperparameters
    ranks: Ranks = ALONE

    def __call__(self) -> None:
        """The weights have moved once, and the totals have grown."""
        parts = self.hyper.accumulate_steps
        losses: list[Tensor] = []
        right: list[Tensor] = []
        self.optimizer.zero_grad()
        for inputs, targets in zip(self.feed.inputs.chunk(parts), self.feed.targets.chunk(parts), strict=True):
            with self.device.autocast():
                outputs = self.network(inputs)
            loss = self.task.loss(outputs, targets) / parts
            loss.backward()
            losses.append(loss.detach())
            right.append(self.task.right(outputs.detach(), targets).sum())

        sums = torch.stack(losses).sum(), torch.stack(right).sum()
        loss, correct = self.ranks.average(self.network.parameters(), *sums)
        if self.hyper.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.hyper.gradient_clip)
        self.optimizer.step()
        if self.average is not None:
            self.average.follow()
        self.totals.add(loss, correct)
