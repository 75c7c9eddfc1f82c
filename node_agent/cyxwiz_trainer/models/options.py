"""How options reach a model: numbers or text from the API, typed values inside."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import nn

from cyxwiz_trainer.failures import UserError, unknown

Shape = tuple[int, ...]
"""Of one sample: (channels, height, width) of an image, (features,) of a table's row, (places,) of text."""


class Options(BaseModel):
    """The options of one model, and the network they describe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reads_text: ClassVar[bool] = False
    """True for a network that takes tokens; any other takes float32."""

    def network(self, input_shape: Shape, outputs: int) -> tuple[type[nn.Module], dict[str, Any]]:
        """The network's class and its arguments, which JSON can hold: with both it can be built again anywhere.

        Raises UserError when it cannot take `input_shape`.
        """
        raise NotImplementedError


def parse(model: str, options: type[Options], raw: dict[str, Any]) -> Options:
    """The typed options of `model`. Raises UserError that names the first wrong one."""
    for name in raw:
        if name not in options.model_fields:
            raise unknown(f"option of {model}", name, options.model_fields)
    try:
        return options.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        name = first["loc"][0] if first["loc"] else ""
        reason = first["msg"].replace("Input should", "it should")
        raise UserError(f"model.options.{name} of {model} is {first['input']!r}: {reason}") from error


def require_image(model: str, shape: Shape, smallest: int) -> tuple[int, int, int]:
    """(channels, height, width) of `shape`. Raises UserError unless it is an image of at least `smallest` pixels."""
    if len(shape) != 3:
        raise UserError(f"{model} needs images, and a sample of this data has {shape[0]} numbers: set model.name: mlp")
    channels, height, width = shape
    if min(height, width) < smallest:
        raise UserError(f"{model} needs images of at least {smallest}x{smallest}, and these have {height}x{width}")
    return channels, height, width
