"""Residual networks of He et al. 2015 (arXiv:1512.03385), with the stem for large images or the one usual for small."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ResNet(nn.Module):
    """(batch, channels, height, width) to (batch, outputs): a stem, four stages of blocks, the mean, one linear layer.

    A `stem` of 3 is a 3x3 convolution alone, one of 7 a 7x7 convolution and a pooling that quarter the image's sides.
    """

    def __init__(self, channels: int, width: int, blocks: list[int], bottleneck: bool, stem: int, outputs: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, stem, stride=1 if stem == 3 else 2, padding=stem // 2, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.pool = nn.Identity() if stem == 3 else HalveOverlapping()
        block = Bottleneck if bottleneck else BasicBlock
        stages: list[nn.Module] = []
        before = width
        for stage, count in enumerate(blocks):
            for place in range(count):
                stages.append(block(before, width << stage, stride=2 if stage > 0 and place == 0 else 1))
                before = (width << stage) * block.expansion
        self.blocks = nn.Sequential(*stages)
        self.head = nn.Linear(before, outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        features = self.pool(functional.relu(self.norm(self.stem(images))))
        # A mean, not AdaptiveAvgPool2d: its backward on CUDA is not deterministic.
        return self.head(self.blocks(features).mean(dim=(2, 3)))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(before, width, stride)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = functional.relu(self.norm1(self.conv1(inputs)))
        outputs = self.norm2(self.conv2(outputs))
        return functional.relu(outputs + self.shortcut(inputs))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; the 3x3 has the stride, as in torchvision's networks."""

    expansion = 4

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        after = width * self.expansion
        self.conv1 = nn.Conv2d(before, width, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, after, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(after)
        self.shortcut = _shortcut(before, after, stride)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = functional.relu(self.norm1(self.conv1(inputs)))
        outputs = functional.relu(self.norm2(self.conv2(outputs)))
        return functional.relu(self.norm3(self.conv3(outputs)) + self.shortcut(inputs))


def _shortcut(before: int, after: int, stride: int) -> nn.Module:
    """Nothing, or a 1x1 convolution where the shape changes."""
    if stride == 1 and before == after:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after))


class HalveOverlapping(nn.Module):
    """(..., height, width) to half of both, rounded up: the largest around every second pixel, three by three."""

    def forward(self, images: Tensor) -> Tensor:
        if not torch.are_deterministic_algorithms_enabled():
            return functional.max_pool2d(images, 3, stride=2, padding=1)
        # The backward pass of max_pool2d on CUDA adds in any order, and torch refuses it.
        padded = functional.pad(images, (1, 1, 1, 1), value=float("-inf"))
        height, width = images.shape[-2], images.shape[-1]
        rows = _largest([padded[..., first : first + height : 2, :] for first in range(3)])
        return _largest([rows[..., first : first + width : 2] for first in range(3)])


def _largest(values: list[Tensor]) -> Tensor:
    return torch.maximum(torch.maximum(values[0], values[1]), values[2])
