"""Data sets by URI: each scheme's reader returns a Dataset that is held in memory whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from cyxwiz_crds import TrainingJobSpec
from cyxwiz_protocol.fetching import Fetched
from cyxwiz_trainer import plugins
from cyxwiz_trainer.failures import UserError, unknown

from . import builtin, files, held_out, mock
from .columns import Columns
from .dataset import Arrays, Dataset, Part, whole
from .request import EVERYTHING, Request

__all__ = [
    "DATA_ROOT_VARIABLE",
    "EVERYTHING",
    "Arrays",
    "Columns",
    "Dataset",
    "Part",
    "Request",
    "data_root",
    "load",
    "whole",
]

DATA_ROOT_VARIABLE = "CYXWIZ_DATA_ROOT"
SCHEMES: dict[str, Callable[[Request], Dataset]] = {
    "builtin": builtin.load,
    "file": files.load,
    "gs": files.load,
    "https": files.load,
    "mock": mock.load,
    "s3": files.load,
    "volume": files.load,
}


def data_root() -> Path | None:
    """The node's data folder, where it has one."""
    value = os.environ.get(DATA_ROOT_VARIABLE)
    return Path(value) if value else None


def load(
    spec: TrainingJobSpec,
    root: Path | None,
    volumes: Mapping[str, Path] | None = None,
    inputs: Mapping[str, Fetched] | None = None,
    columns: Columns | None = None,
) -> Dataset:
    """The data of `spec`, checked and split. Raises UserError that says what is wrong and what to do.

    `volumes` are the folders that the job may use, by name; `inputs` what was fetched for it, by uri;
    `columns` what the weights that it starts from were taught as a table's.
    """
    request = Request.of(spec, root, volumes, inputs, columns)
    dataset = _reader(request.location.scheme)(request)
    if spec.dataset.validation.uri is not None:
        dataset = _with_held_out(spec.dataset.validation.uri, dataset, request)
    if spec.task not in ("auto", dataset.task):
        raise UserError(f"this data is for task: {dataset.task}, and the job says {spec.task}: set task: auto")
    return dataset


def _with_held_out(uri: str, dataset: Dataset, request: Request) -> Dataset:
    """The data with the samples at `uri` held out. Raises UserError."""
    other = request.held_out(uri, dataset.task, dataset.size_bytes, dataset.columns)
    try:
        return held_out.joined(dataset, _reader(other.location.scheme)(other))
    except UserError as error:
        raise UserError(f"dataset.validation.uri: {error}") from error


def _reader(scheme: str) -> Callable[[Request], Dataset]:
    if scheme in SCHEMES:
        return SCHEMES[scheme]
    if scheme not in plugins.known(plugins.DATASETS):
        raise unknown("scheme of dataset.uri", scheme, {*SCHEMES, *plugins.known(plugins.DATASETS)})
    return _checked(scheme, plugins.load(plugins.DATASETS, scheme))


def _checked(scheme: str, reader: object) -> Callable[[Request], Dataset]:
    if not callable(reader):
        raise UserError(f"the installed package's reader of {scheme}:// cannot be called")

    def load(request: Request) -> Dataset:
        dataset = reader(request)
        if not isinstance(dataset, Dataset):
            raise UserError(f"the installed package's reader of {scheme}:// returned no cyxwiz_trainer.data.Dataset")
        return dataset

    return load
