"""mlp: fully connected layers, for tables and small images."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from torch import nn

from .options import Options, Shape


class MlpOptions(Options):
    hidden: Annotated[int, Field(ge=1, le=16_384)] = 256
    """Width of each hidden layer."""
    depth: Annotated[int, Field(ge=0, le=64)] = 2
    """Hidden layers; 0 is a linear model."""

    def build(self, input_shape: Shape, num_classes: int) -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten()]
        width = math.prod(input_shape)
        for _ in range(self.depth):
            layers += [nn.Linear(width, self.hidden), nn.ReLU()]
            width = self.hidden
        return nn.Sequential(*layers, nn.Linear(width, num_classes))
