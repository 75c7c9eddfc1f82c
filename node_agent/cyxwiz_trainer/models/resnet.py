"""resnet18: the residual network of He et al. 2015 (arXiv:1512.03385) with the stem usual for 32x32 images."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from .options import Options, Shape, require_image


class ResNet18Options(Options):
    width: Annotated[int, Field(ge=1, le=512)] = 64
    """Channels of the first of the four stages; each later one has twice as many."""

    def build(self, input_shape: Shape, num_classes: int) -> nn.Module:
        channels, _, _ = require_image("resnet18", input_shape, smallest=8)
        return ResNet18(channels, self.width, num_classes)


class ResNet18(nn.Module):
    """A 3x3 stem without pooling, four stages of two blocks, the mean over the image, one linear layer."""

    def __init__(self, channels: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        blocks: list[nn.Module] = []
        before = width
        for stage in range(4):
            after = width << stage
            blocks += [BasicBlock(before, after, stride=1 if stage == 0 else 2), BasicBlock(after, after)]
            before = after
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(before, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        features = functional.relu(self.norm(self.stem(images)))
        # A mean, not AdaptiveAvgPool2d: its backward on CUDA is not deterministic.
        return self.head(self.blocks(features).mean(dim=(2, 3)))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride=stride, bias=False),
                nn.BatchNorm2d(after),
            )

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = functional.relu(self.norm1(self.conv1(inputs)))
        outputs = self.norm2(self.conv2(outputs))
        return functional.relu(outputs + self.shortcut(inputs))
