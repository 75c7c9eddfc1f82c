"""Raw samples to what a network likes: float32, mean 0 and deviation 1 per channel or feature."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_CHUNK = 2048


class Standardize(nn.Module):
    """`(inputs - mean) / std`, by the training part's own numbers. Not part of the saved model: its config has them."""

    mean: Tensor
    inverse_std: Tensor

    def __init__(self, mean: Tensor, std: Tensor, dimensions: int, image_layout: torch.memory_format) -> None:
        super().__init__()
        shape = (-1,) + (1,) * (dimensions - 1)
        self.register_buffer("mean", mean.reshape(shape))
        self.register_buffer("inverse_std", (1 / std).reshape(shape))
        self._layout = image_layout if dimensions == 3 else torch.contiguous_format

    def forward(self, inputs: Tensor) -> Tensor:
        return ((inputs.float() - self.mean) * self.inverse_std).contiguous(memory_format=self._layout)


def moments(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel or feature, (channels,) float32 each, in host memory.

    A constant one has deviation 1.
    """
    over = (0, *range(2, inputs.ndim))
    count = inputs.numel() // inputs.shape[1]
    mean = sum((chunk.double().sum(over) for chunk in inputs.split(_CHUNK)), torch.zeros((), dtype=torch.float64))
    mean = mean / count
    centre = mean.reshape(-1, *(1,) * (inputs.ndim - 2))
    # A second pass: the difference of squares would lose a small deviation beside a large mean.
    squares = sum(
        ((chunk.double() - centre).square().sum(over) for chunk in inputs.split(_CHUNK)),
        torch.zeros((), dtype=torch.float64),
    )
    std = (squares / count).sqrt().float()
    return mean.float().cpu(), torch.where(std > 0, std, torch.ones_like(std)).cpu()  # sync: once per job
