"""Data sets by URI: one module per scheme, each returning a Dataset that is held in memory whole."""

from __future__ import annotations

import os
from pathlib import Path

from cyxwiz_crds import TrainingJobSpec
from cyxwiz_trainer.failures import UserError, unknown

from . import builtin, mock, npz
from .dataset import Dataset, Part

__all__ = ["DATA_ROOT_VARIABLE", "Dataset", "Part", "data_root", "load"]

DATA_ROOT_VARIABLE = "CYXWIZ_DATA_ROOT"
SCHEMES = ("builtin", "file", "mock")


def data_root() -> Path | None:
    """The node's data folder, where it has one."""
    value = os.environ.get(DATA_ROOT_VARIABLE)
    return Path(value) if value else None


def load(spec: TrainingJobSpec, root: Path | None) -> Dataset:
    """The data of `spec`, checked and split. Raises UserError that says what is wrong and what to do."""
    scheme, separator, name = spec.dataset.uri.partition("://")
    if not separator:
        raise UserError(f"dataset.uri {spec.dataset.uri[:200]!r} has no scheme: write builtin://digits, for example")
    fraction, seed = spec.dataset.validation.fraction, spec.hyperparameters.seed
    match scheme:
        case "builtin":
            return builtin.load(name, root, fraction, seed)
        case "mock":
            return mock.load(name, seed)
        case "file":
            return npz.load(name, root, fraction, seed, limit_bytes=spec.resources.memory_bytes)
        case _:
            raise unknown("scheme of dataset.uri", scheme, SCHEMES)
