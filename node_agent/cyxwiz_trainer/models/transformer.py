"""vit for images and gpt for text, small by default."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import nn

from cyxwiz_trainer.failures import UserError
from cyxwiz_trainer.networks.transformer import Gpt, ViT

from .options import Options, Shape, require_image


class TransformerOptions(Options):
    dim: Annotated[int, Field(ge=8, le=4096)] = 192
    """Numbers a token is held in; a multiple of heads."""
    depth: Annotated[int, Field(ge=1, le=64)] = 6
    """Blocks."""
    heads: Annotated[int, Field(ge=1, le=64)] = 3
    """Heads of each block's attention."""

    def check_heads(self) -> None:
        """Raises UserError unless every head gets as many numbers."""
        if self.dim % self.heads:
            raise UserError(f"model.options.dim {self.dim} is no multiple of heads {self.heads}")


class VitOptions(TransformerOptions):
    patch: Annotated[int, Field(ge=1, le=64)] = 4
    """Side of the squares an image is cut into; must divide its sides."""

    def network(self, input_shape: Shape, outputs: int) -> tuple[type[nn.Module], dict[str, Any]]:
        self.check_heads()
        channels, height, width = require_image("vit", input_shape, smallest=self.patch)
        if height % self.patch or width % self.patch:
            raise UserError(f"model.options.patch {self.patch} does not divide the sides of {height}x{width} images")
        image = {"channels": channels, "height": height, "width": width, "patch": self.patch}
        return ViT, image | {"dim": self.dim, "depth": self.depth, "heads": self.heads, "outputs": outputs}


class GptOptions(TransformerOptions):
    reads_text: ClassVar[bool] = True

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the embedded tokens' numbers that are left out in each training step; written in quotes ("0.1")."""

    def network(self, input_shape: Shape, outputs: int) -> tuple[type[nn.Module], dict[str, Any]]:
        self.check_heads()
        sizes = {"places": input_shape[0], "dim": self.dim, "depth": self.depth, "heads": self.heads}
        return Gpt, sizes | {"dropout": self.dropout, "outputs": outputs}
