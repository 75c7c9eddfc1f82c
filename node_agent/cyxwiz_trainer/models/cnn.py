"""cnn: three convolutions, for small images where a ResNet would be too slow."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from .options import Options, Shape, require_image


class CnnOptions(Options):
    width: Annotated[int, Field(ge=1, le=512)] = 24
    """Channels of the first convolution; the later ones have twice and four times as many."""

    def build(self, input_shape: Shape, num_classes: int) -> nn.Module:
        channels, _, _ = require_image("cnn", input_shape, smallest=4)
        return Cnn(channels, self.width, num_classes)


class Cnn(nn.Module):
    """Three convolutions with batch norm, two poolings, the mean over the image, one linear layer."""

    def __init__(self, channels: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_block(channels, width),
            nn.MaxPool2d(2),
            *_block(width, 2 * width),
            nn.MaxPool2d(2),
            *_block(2 * width, 4 * width),
        )
        self.head = nn.Linear(4 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        # A mean, not AdaptiveAvgPool2d: its backward on CUDA is not deterministic.
        return self.head(self.features(images).mean(dim=(2, 3)))


def _block(channels: int, width: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
