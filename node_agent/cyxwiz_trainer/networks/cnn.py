"""Three convolutions, for small images where a ResNet would be too slow."""

from __future__ import annotations

from torch import Tensor, nn


class Cnn(nn.Module):
    """(batch, channels, height, width) to (batch, outputs): convolutions with batch norm, two poolings, the mean."""

    def __init__(self, channels: int, width: int, outputs: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_block(channels, width),
            nn.MaxPool2d(2),
            *_block(width, 2 * width),
            nn.MaxPool2d(2),
            *_block(2 * width, 4 * width),
        )
        self.head = nn.Linear(4 * width, outputs)

    def forward(self, images: Tensor) -> Tensor:
        # A mean, not AdaptiveAvgPool2d: its backward on CUDA is not deterministic.
        return self.head(self.features(images).mean(dim=(2, 3)))


def _block(channels: int, width: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
