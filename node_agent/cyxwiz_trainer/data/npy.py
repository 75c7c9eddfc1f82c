"""A folder of .npy files: x.npy and y.npy, and x_val.npy and y_val.npy where it has them. An .npz, unpacked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cyxwiz_trainer.failures import UserError

from .arrays import NAMES, dataset_of, read_npy
from .dataset import Dataset
from .request import Request


def load(path: Path, request: Request) -> Dataset:
    """The data of the folder that `path`, its x.npy, lies in. Raises UserError that names what is missing or wrong."""
    folder = path.parent
    if path.name != "x.npy":
        raise UserError(
            f"{path.name} alone has no labels: name the samples x.npy, and put their labels beside as y.npy"
        )
    # A link is not followed: it could lead out of the data folder.
    present = {name: folder / f"{name}.npy" for name in NAMES}
    present = {name: file for name, file in present.items() if file.is_file() and not file.is_symlink()}
    request.check_size(folder.name, sum(file.stat().st_size for file in present.values()))
    return dataset_of(folder.name, {name: _read(file) for name, file in present.items()}, request)


def _read(path: Path) -> NDArray[Any]:
    try:
        with path.open("rb") as stream:
            return read_npy(stream, path.stat().st_size, path.name)
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{path.name} is no readable .npy file: {error}") from error
