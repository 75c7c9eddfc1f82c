"""The registry of models: a name, typed options, and the module they build."""

from __future__ import annotations

from torch import nn

from cyxwiz_trainer.failures import unknown

from .cnn import CnnOptions
from .mlp import MlpOptions
from .options import Options, Shape, parse
from .resnet import ResNet18Options

__all__ = ["Options", "Shape", "build", "names", "parse_options"]

REGISTRY: dict[str, type[Options]] = {
    "cnn": CnnOptions,
    "mlp": MlpOptions,
    "resnet18": ResNet18Options,
}


def names() -> list[str]:
    """Every model's name, sorted."""
    return sorted(REGISTRY)


def parse_options(name: str, raw: dict[str, int | str]) -> Options:
    """The options of the model `name`, typed and within bounds. Raises UserError that names what is wrong."""
    if name not in REGISTRY:
        raise unknown("model", name, REGISTRY)
    return parse(name, REGISTRY[name], raw)


def build(options: Options, input_shape: Shape, num_classes: int) -> nn.Module:
    """A module with fresh weights from torch's generator: (batch, *input_shape) float to (batch, num_classes)."""
    return options.build(input_shape, num_classes)
