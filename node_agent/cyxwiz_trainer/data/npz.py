"""An .npz file: the arrays x and y, and x_val and y_val where it has them."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cyxwiz_trainer.failures import UserError

from .arrays import NAMES, dataset_of, read_npy
from .dataset import Dataset
from .request import Request


def load(path: Path, request: Request) -> Dataset:
    """The data of `path`. Raises UserError that names what is missing or wrong, and when it is too large."""
    return dataset_of(path.name, _read(path, request), request)


def _read(path: Path, request: Request) -> dict[str, NDArray[Any]]:
    """The known arrays of the file, read only when all of them together fit."""
    try:
        with zipfile.ZipFile(path) as file:
            entries = {name: info for name in NAMES if (info := _entry(file, name)) is not None}
            request.check_size(path.name, sum(info.file_size for info in entries.values()))
            return {name: _read_array(file, info, f"{path.name}: {name}") for name, info in entries.items()}
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        OSError,
        ValueError,
        NotImplementedError,
    ) as error:
        raise UserError(f"{path.name} is no readable .npz file: {error}") from error


def _entry(file: zipfile.ZipFile, name: str) -> zipfile.ZipInfo | None:
    try:
        info = file.getinfo(f"{name}.npy")
    except KeyError:
        return None
    if info.flag_bits & 1:
        raise ValueError(f"{name} is encrypted")
    return info


def _read_array(file: zipfile.ZipFile, info: zipfile.ZipInfo, what: str) -> NDArray[Any]:
    with file.open(info) as stream:
        return read_npy(stream, info.file_size, what)
