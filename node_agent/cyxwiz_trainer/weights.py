"""Weights a job starts from or evaluates: one safetensors file, and what it says of itself.

An exported file carries its own config in the header (`export.CONFIG_KEY`), so that it can be used alone. A file from
elsewhere has none; then its tensors must be the model's by name and shape, and nothing is known of the samples' scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from cyxwiz_crds import size_text

from .data import Columns
from .failures import UserError

CONFIG_KEY = "cyxwiz"
"""Of the safetensors header's metadata."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class _Model(_Part):
    name: str
    options: dict[str, int | str]


class _Input(_Part):
    shape: tuple[int, ...]
    mean: list[float] | None = None
    std: list[float] | None = None


class Targets(_Part):
    """How targets of a regression were standardized."""

    mean: list[float]
    std: list[float]


class Origin(_Part):
    """What the weights were trained as: the part of config.json that matters to who goes on with them."""

    model: _Model
    task: str
    input: _Input
    outputs: int
    labels: tuple[str, ...] | None = None
    targets: Targets | None = None
    features: tuple[str, ...] | None = None
    categories: dict[str, tuple[str, ...]] = {}

    @property
    def columns(self) -> Columns | None:
        """What they were taught as a table's columns; None for weights of another kind of data."""
        return None if self.features is None else Columns(self.features, self.categories)

    @property
    def scale(self) -> tuple[Tensor, Tensor] | None:
        """Mean and deviation that samples were brought to; None for text."""
        if self.input.mean is None or self.input.std is None:
            return None
        return torch.tensor(self.input.mean), torch.tensor(self.input.std)


@dataclass(frozen=True)
class Weights:
    """Tensors by name, and where they come from."""

    tensors: dict[str, Tensor]
    origin: Origin | None
    """None for a file that was not exported here."""

    def into(self, model: nn.Module) -> None:
        """`model` has these weights. Raises UserError that names the first tensor that does not fit."""
        live = model.state_dict()
        for name, target in live.items():
            if name not in self.tensors:
                raise UserError(f"model.initFrom has no tensor {name}, which the model needs: {_HINT}")
            shape = self.tensors[name].shape
            if shape != target.shape:
                raise UserError(
                    f"tensor {name} of model.initFrom has shape {list(shape)}, and the model's "
                    f"{list(target.shape)}: {_HINT}"
                )
        if unknown := sorted(self.tensors.keys() - live.keys()):
            raise UserError(f"tensor {unknown[0][:200]} of model.initFrom is none of the model's: {_HINT}")
        with torch.no_grad():
            for name, target in live.items():
                target.copy_(self.tensors[name])

    def options_of(self, name: str, options: dict[str, int | str]) -> dict[str, int | str]:
        """The options to build the model with: the job's own, or where it gives none those of the weights.

        Raises UserError when they are another model's.
        """
        if self.origin is None:
            return options
        if self.origin.model.name != name:
            raise UserError(f"model.initFrom has weights of {self.origin.model.name[:64]}, and model.name is {name}")
        return options or self.origin.model.options


_HINT = "give the model the name and options it had, and data of the same shape and classes"


def read(path: Path, limit_bytes: int) -> Weights:
    """The weights of the file at `path`. Raises UserError when it is no such file or takes more than `limit_bytes`."""
    try:
        size = path.stat().st_size
        if size > limit_bytes:
            raise UserError(f"model.initFrom takes {size_text(size)}, more than resources.memory")
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no dictionary
            metadata = file.metadata() or {}
    except OSError as error:
        raise UserError(f"model.initFrom cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise UserError(f"model.initFrom is no safetensors file: {error}") from error
    return Weights(tensors, _origin(metadata.get(CONFIG_KEY)))


def _origin(text: str | None) -> Origin | None:
    if text is None:
        return None
    try:
        origin = Origin.model_validate_json(text)
    except ValidationError as error:
        raise UserError("the config in the header of model.initFrom cannot be read") from error
    if (origin.input.mean is None) != (origin.input.std is None):
        raise UserError("the config in the header of model.initFrom has half a scale")
    return origin
