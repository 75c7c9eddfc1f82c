"""One step of training: forward, backward, update, all on what lies in the feed's two tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cyxwiz_crds.training_job import Hyperparameters

from .average import Average
from .distributed import ALONE, Ranks
from .feed import Feed
from .forward import Forward
from .optimizer import Optimizer
from .totals import Totals


@dataclass(frozen=True)
class Step:
    """Everything it touches stays where it is, and nothing in it waits for the device: it can be captured."""

    feed: Feed
    forward: Forward
    parameters: list[nn.Parameter]
    optimizer: Optimizer
    average: Average | None
    totals: Totals
    hyper: Hyperparameters
    ranks: Ranks = ALONE

    def __call__(self) -> None:
        """The weights have moved once, and the totals have grown."""
        parts = self.hyper.accumulate_steps
        losses: list[Tensor] = []
        right: list[Tensor] = []
        self.optimizer.zero_grad()
        for inputs, targets in zip(self.feed.inputs.chunk(parts), self.feed.targets.chunk(parts), strict=True):
            loss, answered_right = self.forward(inputs, targets)
            if parts > 1:  # one part is the whole: in a small step each kernel saved is felt
                loss = loss / parts
            loss.backward()
            losses.append(loss.detach())
            right.append(answered_right)

        loss, correct = self.ranks.average(self.parameters, _sum(losses), _sum(right))
        if self.hyper.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.hyper.gradient_clip)
        self.optimizer.step()
        if self.average is not None:
            self.average.follow()
        self.totals.add(loss, correct)


def _sum(values: list[Tensor]) -> Tensor:
    """() the sum of values of shape ()."""
    return values[0] if len(values) == 1 else torch.stack(values).sum()
