"""An HDF5 file: the datasets x and y, and x_val and y_val where it has them.

Only plain numbers that lie in the file itself: no links, no references, no parts in other files, no filter that would
be loaded as a library.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from cyxwiz_trainer.failures import UserError

from .arrays import NAMES, dataset_of
from .dataset import Dataset
from .file import File
from .request import Request

if TYPE_CHECKING:
    import h5py

# Numbers of filters that are compiled into the library: deflate, shuffle, fletcher32, szip, n-bit, scale-offset, LZF.
_FILTERS = frozenset({1, 2, 3, 4, 5, 6, 32000})


def load(file: File, request: Request) -> Dataset:
    """The data of `file`. Raises UserError that names what is missing or wrong, and when it is too large."""
    import h5py  # late: no other job needs it

    try:
        with h5py.File(file.path, "r", locking=False) as content:
            datasets = {name: found for name in NAMES if (found := _dataset(file.name, content, name)) is not None}
            sizes = [math.prod(dataset.shape) * dataset.dtype.itemsize for dataset in datasets.values()]
            request.check_size(file.name, sum(sizes))
            arrays: dict[str, NDArray[Any]] = {name: dataset[...] for name, dataset in datasets.items()}
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise UserError(f"{file.name} is no readable HDF5 file: {str(error)[:200]}") from error
    return dataset_of(file.name, arrays, request)


def _dataset(file: str, content: h5py.File, name: str) -> h5py.Dataset | None:
    """The dataset of that name, none of whose bytes lie elsewhere."""
    import h5py

    link = content.get(name, getlink=True)
    if link is None:
        return None
    what = f"{file}: {name}"
    if not isinstance(link, h5py.HardLink):
        raise UserError(f"{what} is a link: links are not followed, put the numbers themselves there")
    found = content[name]
    if not isinstance(found, h5py.Dataset):
        raise UserError(f"{what} is a group: a dataset of numbers is needed")
    if found.is_virtual or found.external:
        raise UserError(f"{what} lies in other files: those are not opened, put the numbers themselves there")
    if found.dtype.kind not in "biuf" or found.dtype.hasobject:
        raise UserError(f"{what} has type {found.dtype}: whole numbers or floats are needed")
    if found.shape is None:
        raise UserError(f"{what} is empty")
    plan = found.id.get_create_plist()
    for place in range(plan.get_nfilters()):
        number = plan.get_filter(place)[0]
        if number not in _FILTERS:
            raise UserError(f"{what} is compressed by filter {number}: use gzip or lzf")
    return found
