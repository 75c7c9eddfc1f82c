"""A folder of .npy files: x.npy and y.npy, and x_val.npy and y_val.npy where it has them. An .npz, unpacked."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from cyxwiz_trainer.failures import UserError

from .arrays import NAMES, dataset_of, read_npy
from .dataset import Dataset
from .file import File
from .request import Request


def load(folder: File, request: Request) -> Dataset:
    """The data of that folder. Raises UserError that names what is missing or wrong."""
    present = {name: file for name in NAMES if (file := folder.child(f"{name}.npy")) is not None}
    request.check_size(folder.name, sum(file.size for file in present.values()))
    return dataset_of(folder.name, {name: _read(file) for name, file in present.items()}, request)


def _read(file: File) -> NDArray[Any]:
    try:
        with file.open() as stream:
            return read_npy(stream, file.size, file.name)
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{file.name} is no readable .npy file: {error}") from error
