"""An .npz file: the arrays x and y, and x_val and y_val where it has them."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from typing import Any

from numpy.typing import NDArray

from cyxwiz_trainer.failures import UserError

from .arrays import NAMES, dataset_of, read_npy
from .dataset import Dataset
from .file import File, check_ratio
from .request import Request


def load(file: File, request: Request) -> Dataset:
    """The data of `file`. Raises UserError that names what is missing or wrong, and when it is too large."""
    return dataset_of(file.name, _read(file, request), request)


def _read(file: File, request: Request) -> dict[str, NDArray[Any]]:
    """The known arrays of the file, read only when all of them together fit."""
    try:
        with zipfile.ZipFile(file.path) as archive:
            entries = {name: info for name in NAMES if (info := _entry(archive, name)) is not None}
            request.check_size(file.name, sum(info.file_size for info in entries.values()))
            for name, info in entries.items():
                check_ratio(f"{file.name}: {name}", info.file_size, info.compress_size)
            return {name: _read_array(archive, info, f"{file.name}: {name}") for name, info in entries.items()}
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        OSError,
        ValueError,
        NotImplementedError,
    ) as error:
        raise UserError(f"{file.name} is no readable .npz file: {error}") from error


def _entry(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo | None:
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError:
        return None
    if info.flag_bits & 1:
        raise ValueError(f"{name} is encrypted")
    return info


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, what: str) -> NDArray[Any]:
    with archive.open(info) as stream:
        return read_npy(stream, info.file_size, what)
