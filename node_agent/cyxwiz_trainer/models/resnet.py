"""resnet18, resnet34, resnet50: residual networks for images, small ones by default."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field
from torch import nn

from cyxwiz_trainer.networks.resnet import ResNet

from .options import Options, Shape, require_image


def _as_text(value: object) -> str:
    return str(value)


class ResNetOptions(Options):
    name: ClassVar[str]
    blocks: ClassVar[list[int]]
    """Of each of the four stages."""
    bottleneck: ClassVar[bool] = False

    width: Annotated[int, Field(ge=1, le=512)] = 64
    """Channels of the first of the four stages; each later one has twice as many."""
    stem: Annotated[Literal["3", "7"], BeforeValidator(_as_text)] = "3"
    """Side of the first convolution: 3 for images of about 32x32, 7 for those of about 224x224."""

    def network(self, input_shape: Shape, outputs: int) -> tuple[type[nn.Module], dict[str, Any]]:
        channels, _, _ = require_image(self.name, input_shape, smallest=8 if self.stem == "3" else 32)
        return ResNet, {
            "channels": channels,
            "width": self.width,
            "blocks": self.blocks,
            "bottleneck": self.bottleneck,
            "stem": int(self.stem),
            "outputs": outputs,
        }


class ResNet18Options(ResNetOptions):
    name = "resnet18"
    blocks = [2, 2, 2, 2]


class ResNet34Options(ResNetOptions):
    name = "resnet34"
    blocks = [3, 4, 6, 3]


class ResNet50Options(ResNetOptions):
    name = "resnet50"
    blocks = [3, 4, 6, 3]
    bottleneck = True
