"""builtin:// data: real data that comes with a package of the node, nothing is downloaded."""

from __future__ import annotations

import gzip
import importlib.util
import math
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from cyxwiz_trainer.failures import UserError, unknown

from .dataset import Dataset, whole
from .request import Request

NAMES = ("digits", "fashion-mnist")
DIGIT_NAMES = tuple("0123456789")
FASHION_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
# Where Debian's package dataset-fashion-mnist puts its files; the node's data folder is looked at first.
FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")
_LARGEST_IDX_BYTES = 2**28


def load(request: Request) -> Dataset:
    """The builtin data set that is named. Raises UserError when it is unknown or not installed here."""
    root = request.root
    match request.name:
        case "digits":
            return _digits(request.fraction, request.seed)
        case "fashion-mnist":
            return fashion_mnist(([root / "fashion-mnist"] if root else []) + [FASHION_FOLDER], request.seed)
        case _:
            raise unknown("builtin data set", request.name, NAMES)


def _digits(fraction: float, seed: int) -> Dataset:
    """1,797 real handwritten digits of 8x8 pixels (UCI, 1998), from scikit-learn's package."""
    package = importlib.util.find_spec("sklearn")  # found, not imported: that would take a second
    folders = (package.submodule_search_locations or []) if package else []
    paths = [Path(folder) / "datasets" / "data" / "digits.csv.gz" for folder in folders]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise UserError("builtin://digits comes with scikit-learn, which this node's trainer does not have")
    with gzip.open(path, "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.float32).astype(np.uint8)
    images, labels = table[:, :-1].reshape(-1, 1, 8, 8), table[:, -1]
    return whole((images, labels), None, fraction=fraction, seed=seed, label_names=DIGIT_NAMES)


def fashion_mnist(folders: list[Path], seed: int) -> Dataset:
    """60,000 and 10,000 photographs of clothes of 28x28 pixels (arXiv:1708.07747); the test part is held out."""
    folder = next((folder for folder in folders if _idx_path(folder, "train-images-idx3-ubyte")), None)
    if folder is None:
        raise UserError(
            f"builtin://fashion-mnist is not on this node: looked in {', '.join(map(str, folders))}. Install Debian's "
            "dataset-fashion-mnist, or put its four idx files into fashion-mnist/ below the node's data folder"
        )
    train, test = (
        (
            read_idx(folder, f"{part}-images-idx3-ubyte", 3)[:, np.newaxis],
            read_idx(folder, f"{part}-labels-idx1-ubyte", 1),
        )
        for part in ("train", "t10k")
    )
    for images, labels in (train, test):
        if len(images) != len(labels) or len(images) == 0:
            raise UserError(f"{folder} has {len(images)} images for {len(labels)} labels: install it again")
    return whole(train, test, fraction=0.0, seed=seed, label_names=FASHION_NAMES)


def _idx_path(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)


def read_idx(folder: Path, name: str, dimensions: int) -> NDArray[np.uint8]:
    """The array of an idx file of bytes, plain or gzip. Raises UserError when it is absent or torn."""
    path = _idx_path(folder, name)
    if path is None:
        raise UserError(f"{folder} holds no {name} and no {name}.gz")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return _parse_idx(file, dimensions)
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def _parse_idx(file: BinaryIO | gzip.GzipFile, dimensions: int) -> NDArray[np.uint8]:
    header = file.read(4 + 4 * dimensions)
    if len(header) < 4 + 4 * dimensions or header[:4] != bytes((0, 0, 8, dimensions)):
        raise ValueError(f"it is no idx file of {dimensions}-dimensional bytes")
    shape = tuple(int(size) for size in np.frombuffer(header, ">u4", offset=4))
    size = math.prod(shape)
    if size > _LARGEST_IDX_BYTES:
        raise ValueError(f"its header declares {size} bytes")
    content = file.read(size)
    if len(content) < size:
        raise ValueError(f"it ends after {len(content)} of {size} bytes")
    return np.frombuffer(content, np.uint8).reshape(shape)
