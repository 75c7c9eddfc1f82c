"""file:// data: a file or folder below the node's data folder, read by what its name ends with.

It comes from a user: it is read as data only, and no size it declares is believed before it is bounded.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from cyxwiz_trainer.failures import UserError

from . import npy, npz, table, text
from .dataset import Dataset
from .request import Request

READERS = {".npz": npz.load, ".npy": npy.load, ".csv": table.load, ".txt": text.load}


def load(request: Request) -> Dataset:
    """The data of file://`request.name`. Raises UserError that names what is missing or wrong."""
    path = locate(request.name, request.root)
    if path.is_dir():
        return npy.load(path / "x.npy", request)
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise UserError(f"{path.name[:200]!r} ends with none of {', '.join(READERS)}: how to read it is not known")
    return read(path, request)


def locate(name: str, root: Path | None) -> Path:
    """The file or folder of file://`name`, links followed. Raises UserError when it is absent or not below `root`."""
    if root is None:
        raise UserError("this node has no data folder (CYXWIZ_DATA_ROOT is not set): file:// data cannot be read here")
    relative = unquote(name).lstrip("/")
    if not relative or "\0" in relative:
        raise UserError("dataset.uri names no file: write file://folder/data.npz, below the node's data folder")
    base = root.resolve()
    try:
        path = (base / relative).resolve()
        inside, exists = path.is_relative_to(base), path.is_file() or path.is_dir()
    except (OSError, RuntimeError) as error:
        raise UserError(f"{relative[:200]!r} cannot be reached: {error}") from error
    if not inside:
        raise UserError(f"{relative[:200]!r} is not below the node's data folder")
    if not exists:
        raise UserError(f"there is no file {relative[:200]!r} in the data folder of this node")
    return path
