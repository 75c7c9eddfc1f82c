"""Arrays that a user saved with numpy: nothing in them is unpickled, and no size they declare is believed."""

from __future__ import annotations

import math
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cyxwiz_trainer.failures import UserError

from .dataset import Arrays, Dataset, whole
from .request import Request

NAMES = ("x", "y", "x_val", "y_val")
IMAGE_CHANNELS = (1, 3, 4)
_CHUNK = 4096


def dataset_of(file: str, arrays: dict[str, NDArray[Any]], request: Request) -> Dataset:
    """The data of the arrays x and y; x_val and y_val are held out where there are such.

    Raises UserError that names what is missing or wrong. `file` is named in it.
    """
    for needed in ("x", "y"):
        if needed not in arrays:
            raise UserError(f"{file} holds no array {needed}: save it with numpy.savez(path, x=..., y=...)")
    if ("x_val" in arrays) != ("y_val" in arrays):
        raise UserError(f"{file} holds only one of x_val and y_val: give both or neither")
    train = _checked(file, arrays, "x", "y", request.task)
    validation = _checked(file, arrays, "x_val", "y_val", request.task) if "x_val" in arrays else None
    if validation and validation[0].shape[1:] != train[0].shape[1:]:
        raise UserError(f"{file}: a sample of x has shape {train[0].shape[1:]}, one of x_val {validation[0].shape[1:]}")
    return whole(train, validation, fraction=request.fraction, seed=request.seed)


def read_npy(stream: IO[bytes], size_bytes: int, what: str) -> NDArray[Any]:
    """One array of a file of `size_bytes`, which were bounded before; its own header must agree with them.

    Raises UserError, or EOFError and ValueError for what is no .npy file.
    """
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise UserError(f"{what} has .npy version {version[0]}.{version[1]}: save plain numbers")
    try:
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except (SyntaxError, TokenError, RecursionError, MemoryError) as error:  # numpy parses it as Python's literals
        raise ValueError("its header is none") from error
    if dtype.hasobject or dtype.kind not in "biuf":
        raise UserError(f"{what} has dtype {dtype}: whole numbers or floats are needed")
    size = math.prod(shape) * dtype.itemsize
    if any(length < 0 for length in shape) or size > size_bytes:
        raise UserError(f"{what} declares shape {shape} and holds {size_bytes} bytes")
    content = stream.read(size)
    if len(content) < size:
        raise EOFError(f"{what} ends after {len(content)} of {size} bytes")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


def _checked(file: str, arrays: dict[str, NDArray[Any]], x_name: str, y_name: str, task: str) -> Arrays:
    """Samples as uint8 or float32 with channels first, and whole non-negative labels or finite float64 targets."""
    x, y = arrays[x_name], arrays[y_name]
    quantities = task == "regression" or (task == "auto" and y.dtype.kind == "f")
    if y.ndim != 1 and not (quantities and y.ndim == 2):
        raise UserError(f"{file}: {y_name} has shape {y.shape}: one label per sample is needed, shape (n,)")
    if not quantities and y.dtype.kind not in "iu":
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
    if quantities:
        return _samples(file, x_name, x), _finite(file, y_name, y.astype(np.float64))
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
    return _finite(file, name, samples)


def _finite(file: str, name: str, values: NDArray[Any]) -> NDArray[Any]:
    for start in range(0, len(values), _CHUNK):
        part = values[start : start + _CHUNK]
        finite = np.isfinite(part.reshape(len(part), -1)).all(axis=1)
        if not finite.all():
            row = start + int(finite.argmin())
            raise UserError(f"{file}: {name}[{row}] holds a NaN, an infinity or a number too large for float32")
    return values
