"""mlp: fully connected layers, for tables and small images."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import Field
from torch import nn

from cyxwiz_trainer.networks.mlp import Mlp

from .options import Options, Shape


class MlpOptions(Options):
    hidden: Annotated[int, Field(ge=1, le=16_384)] = 256
    """Width of each hidden layer."""
    depth: Annotated[int, Field(ge=0, le=64)] = 2
    """Hidden layers; 0 is a linear model."""

    def network(self, input_shape: Shape, outputs: int) -> tuple[type[nn.Module], dict[str, Any]]:
        features = math.prod(input_shape)
        return Mlp, {"features": features, "hidden": self.hidden, "depth": self.depth, "outputs": outputs}
