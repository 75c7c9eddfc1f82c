"""cnn: three convolutions, for small images where a ResNet would be too slow."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from torch import nn

from cyxwiz_trainer.networks.cnn import Cnn

from .options import Options, Shape, require_image


class CnnOptions(Options):
    width: Annotated[int, Field(ge=1, le=512)] = 24
    """Channels of the first convolution; the later ones have twice and four times as many."""

    def network(self, input_shape: Shape, outputs: int) -> tuple[type[nn.Module], dict[str, Any]]:
        channels, _, _ = require_image("cnn", input_shape, smallest=4)
        return Cnn, {"channels": channels, "width": self.width, "outputs": outputs}
