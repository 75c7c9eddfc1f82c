"""Fully connected layers."""

from __future__ import annotations

import itertools

from torch import Tensor, nn


class Mlp(nn.Module):
    """(batch, ...) float32, `features` numbers a sample, to (batch, outputs). A `depth` of 0 is a linear model."""

    def __init__(self, features: int, hidden: int, depth: int, outputs: int) -> None:
        super().__init__()
        widths = [features, *[hidden] * depth]
        self.hidden = nn.ModuleList(nn.Linear(before, after) for before, after in itertools.pairwise(widths))
        self.head = nn.Linear(widths[-1], outputs)

    def forward(self, samples: Tensor) -> Tensor:
        features = samples.flatten(1)
        for layer in self.hidden:
            features = layer(features).relu()
        return self.head(features)
