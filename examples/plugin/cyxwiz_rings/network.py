"""The network of `polynomial`. It imports torch alone, because it is exported beside the weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Polynomial(nn.Module):
    """(batch, features) to (batch, outputs): a linear layer over the features and their powers."""

    def __init__(self, features: int, degree: int, outputs: int) -> None:
        super().__init__()
        self.degree = degree
        self.head = nn.Linear(features * degree, outputs)

    def forward(self, samples: Tensor) -> Tensor:
        return self.head(torch.cat([samples**power for power in range(1, self.degree + 1)], dim=1))
