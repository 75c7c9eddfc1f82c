"""Data in a file or folder: below the node's data folder, in a volume, or fetched. Read by what its name ends with.

It comes from a user: it is read as data only, and no size it declares is believed before it is bounded.
"""

from __future__ import annotations

from dataclasses import replace

from cyxwiz_trainer.failures import UserError

from . import hdf5, images, npy, npz, parquet, table, text
from .dataset import Dataset
from .file import File, locate
from .packed import packed_folder
from .request import Request

READERS = {
    ".npz": npz.load,
    ".h5": hdf5.load,
    ".hdf5": hdf5.load,
    ".csv": table.load,
    ".parquet": parquet.load,
    ".txt": text.load,
}


def load(request: Request) -> Dataset:
    """The data that `request` names. Raises UserError that names what is missing or wrong."""
    if request.location.name == "x.npy":  # another way to name the folder of arrays
        locate(request).close()
        folder = request.location.path.rpartition("/")[0]
        request = replace(request, location=replace(request.location, path=folder or "."))
    fetched = request.inputs.get(request.uri)
    if fetched is not None and fetched.is_folder:
        return _folder(packed_folder(fetched.name, fetched.path), request)
    file = locate(request)
    if file.is_folder:
        return _folder(file, request)
    if file.suffix == ".npy":
        raise UserError(
            f"{file.name} alone has no labels: name the samples x.npy and their labels y.npy, and the folder in the uri"
        )
    read = READERS.get(file.suffix)
    if read is None:
        raise UserError(f"{file.name[:200]!r} ends with none of {', '.join(READERS)}: how to read it is not known")
    return read(file, request)


def _folder(folder: File, request: Request) -> Dataset:
    """Arrays where there is an x.npy, else images in a folder for each class."""
    arrays = folder.child("x.npy")
    if arrays is None:
        return images.load(folder, request)
    arrays.close()
    return npy.load(folder, request)
