"""The registry of models: a name, typed options, and the network they describe."""

from __future__ import annotations

from torch import nn

from cyxwiz_trainer import plugins
from cyxwiz_trainer.failures import UserError, unknown

from .cnn import CnnOptions
from .mlp import MlpOptions
from .options import Options, Shape, parse
from .resnet import ResNet18Options, ResNet34Options, ResNet50Options
from .transformer import GptOptions, VitOptions

__all__ = ["Options", "Shape", "build", "names", "parse_options"]

REGISTRY: dict[str, type[Options]] = {
    "cnn": CnnOptions,
    "gpt": GptOptions,
    "mlp": MlpOptions,
    "resnet18": ResNet18Options,
    "resnet34": ResNet34Options,
    "resnet50": ResNet50Options,
    "vit": VitOptions,
}


def names() -> list[str]:
    """Every model's name, those of installed packages too, sorted."""
    return sorted({*REGISTRY, *plugins.known(plugins.MODELS)})


def parse_options(name: str, raw: dict[str, int | str]) -> Options:
    """The options of the model `name`, typed and within bounds. Raises UserError that names what is wrong."""
    if name in REGISTRY:
        return parse(name, REGISTRY[name], raw)
    if name not in plugins.known(plugins.MODELS):
        raise unknown("model", name, names())
    options = plugins.load(plugins.MODELS, name)
    if not (isinstance(options, type) and issubclass(options, Options)):
        raise UserError(f"the installed package's model {name} is no subclass of cyxwiz_trainer.models.Options")
    return parse(name, options, raw)


def build(options: Options, input_shape: Shape, outputs: int) -> nn.Module:
    """A module with fresh weights from torch's generator: (batch, *input_shape) to (batch, outputs)."""
    network, arguments = options.network(input_shape, outputs)
    return network(**arguments)
