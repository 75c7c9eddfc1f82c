"""file:// data: arrays x and y of one .npz file below the node's data folder.

The file comes from a user: nothing in it is unpickled, and no size it declares is believed before it is bounded.
"""

from __future__ import annotations

import lzma
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cyxwiz_crds import size_text
from cyxwiz_trainer.failures import UserError

from .dataset import Arrays, Dataset, whole

ARRAYS = ("x", "y", "x_val", "y_val")
IMAGE_CHANNELS = (1, 3, 4)
_CHUNK = 4096


def load(name: str, root: Path | None, fraction: float, seed: int, limit_bytes: int) -> Dataset:
    """The data of `name` below `root`; x_val and y_val are held out where the file has them.

    Raises UserError that names what is missing or wrong, and when the arrays are larger than `limit_bytes` together.
    """
    path = locate(name, root)
    arrays = _read(path, limit_bytes)
    for needed in ("x", "y"):
        if needed not in arrays:
            raise UserError(f"{path.name} holds no array {needed}: save it with numpy.savez(path, x=..., y=...)")
    if ("x_val" in arrays) != ("y_val" in arrays):
        raise UserError(f"{path.name} holds only one of x_val and y_val: give both or neither")
    train = _checked(path.name, arrays, "x", "y")
    validation = _checked(path.name, arrays, "x_val", "y_val") if "x_val" in arrays else None
    if validation and validation[0].shape[1:] != train[0].shape[1:]:
        raise UserError(
            f"{path.name}: a sample of x has shape {train[0].shape[1:]}, one of x_val {validation[0].shape[1:]}"
        )
    return whole(train, validation, fraction=fraction, seed=seed)


def locate(name: str, root: Path | None) -> Path:
    """The file of file://`name`, links followed. Raises UserError when it is absent or not below `root`."""
    if root is None:
        raise UserError("this node has no data folder (CYXWIZ_DATA_ROOT is not set): file:// data cannot be read here")
    relative = unquote(name).lstrip("/")
    if not relative or "\0" in relative:
        raise UserError("dataset.uri names no file: write file://folder/data.npz, below the node's data folder")
    base = root.resolve()
    try:
        path = (base / relative).resolve()
        inside, exists = path.is_relative_to(base), path.is_file()
    except (OSError, RuntimeError) as error:
        raise UserError(f"{relative[:200]!r} cannot be reached: {error}") from error
    if not inside:
        raise UserError(f"{relative[:200]!r} is not below the node's data folder")
    if not exists:
        raise UserError(f"there is no file {relative[:200]!r} in the data folder of this node")
    return path


def _read(path: Path, limit_bytes: int) -> dict[str, NDArray[Any]]:
    """The known arrays of the file, read only when all of them together fit."""
    try:
        with zipfile.ZipFile(path) as file:
            entries = {name: info for name in ARRAYS if (info := _entry(file, name)) is not None}
            declared = sum(info.file_size for info in entries.values())
            if declared > limit_bytes:
                raise UserError(
                    f"the arrays of {path.name} take {size_text(declared)}, more than resources.memory "
                    f"{size_text(limit_bytes)}"
                )
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
    """One array. Its own header must agree with the size the zip declares, which was bounded before."""
    with file.open(info) as stream:
        version = npy.read_magic(stream)
        if version == (1, 0):
            shape, fortran, dtype = npy.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, fortran, dtype = npy.read_array_header_2_0(stream)
        else:
            raise UserError(f"{what} has .npy version {version[0]}.{version[1]}: save plain numbers")
        if dtype.hasobject or dtype.kind not in "biuf":
            raise UserError(f"{what} has dtype {dtype}: whole numbers or floats are needed")
        size = math.prod(shape) * dtype.itemsize
        if any(length < 0 for length in shape) or size > info.file_size:
            raise UserError(f"{what} declares shape {shape} and holds {info.file_size} bytes")
        content = stream.read(size)
    if len(content) < size:
        raise EOFError(f"{what} ends after {len(content)} of {size} bytes")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


def _checked(file: str, arrays: dict[str, NDArray[Any]], x_name: str, y_name: str) -> Arrays:
    """Samples as uint8 or float32 with channels first, and whole non-negative labels."""
    x, y = arrays[x_name], arrays[y_name]
    if y.ndim != 1:
        raise UserError(f"{file}: {y_name} has shape {y.shape}: one label per sample is needed, shape (n,)")
    if y.dtype.kind not in "iu":
        raise UserError(f"{file}: {y_name} has dtype {y.dtype}: labels must be whole numbers from 0")
    if x.ndim not in (2, 3, 4):
        raise UserError(
            f"{file}: {x_name} has shape {x.shape}: (n, features), (n, height, width) or (n, channels, height, width) "
            "is needed"
        )
    if len(x) != len(y):
        raise UserError(f"{file}: {x_name} has {len(x)} samples and {y_name} {len(y)} labels")
    if x.size == 0:
        raise UserError(f"{file}: {x_name} is empty, shape {x.shape}")
    if y.min() < 0:
        row = int((y < 0).argmax())
        raise UserError(f"{file}: {y_name}[{row}] is {y[row]}: labels count from 0")
    return _samples(file, x_name, x), y


def _samples(file: str, name: str, x: NDArray[Any]) -> NDArray[Any]:
    if x.ndim == 3:
        x = x[:, np.newaxis]
    elif x.ndim == 4 and x.shape[1] not in IMAGE_CHANNELS:
        if x.shape[3] not in IMAGE_CHANNELS:
            raise UserError(f"{file}: {name} has shape {x.shape}: images need 1, 3 or 4 channels, first or last")
        x = x.transpose(0, 3, 1, 2)
    if x.dtype == np.uint8:
        return x
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is found below
        samples = x.astype(np.float32)
    for start in range(0, len(samples), _CHUNK):
        part = samples[start : start + _CHUNK]
        finite = np.isfinite(part.reshape(len(part), -1)).all(axis=1)
        if not finite.all():
            row = start + int(finite.argmin())
            raise UserError(f"{file}: {name}[{row}] holds a NaN, an infinity or a number too large for float32")
    return samples
