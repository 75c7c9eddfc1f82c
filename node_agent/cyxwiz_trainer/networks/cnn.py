"""Three convolutions, for small images where a ResNet would be too slow."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Cnn(nn.Module):
    """(batch, channels, height, width) to (batch, outputs): convolutions with batch norm, two poolings, the mean."""

    def __init__(self, channels: int, width: int, outputs: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_block(channels, width),
            Halve(),
            *_block(width, 2 * width),
            Halve(),
            *_block(2 * width, 4 * width),
        )
        self.head = nn.Linear(4 * width, outputs)

    def forward(self, images: Tensor) -> Tensor:
        # A mean, not AdaptiveAvgPool2d: its backward on CUDA is not deterministic.
        return self.head(self.features(images).mean(dim=(2, 3)))


def _block(channels: int, width: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)


class Halve(nn.Module):
    """(..., height, width) to half of both, rounded down: the largest of each two by two."""

    def forward(self, images: Tensor) -> Tensor:
        if not torch.are_deterministic_algorithms_enabled():
            return functional.max_pool2d(images, 2)
        # The backward pass of max_pool2d on CUDA adds in any order, and torch refuses it.
        height, width = images.shape[-2] // 2 * 2, images.shape[-1] // 2 * 2
        top, bottom = images[..., 0:height:2, :width], images[..., 1:height:2, :width]
        rows = torch.maximum(top, bottom)
        return torch.maximum(rows[..., 0::2], rows[..., 1::2])
