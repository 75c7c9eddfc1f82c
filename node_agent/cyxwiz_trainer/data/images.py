"""A folder of images: a folder for each class, all images of one size. train/ and val/ above them where it has both."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cyxwiz_trainer.failures import UserError

from .dataset import Arrays, Dataset, whole
from .file import File
from .request import Request

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP"}
MOST_PIXELS = 2**24
"""Of one image. An image can declare far more than its file could hold."""
_GREY = frozenset({"1", "L"})
_COLOUR = frozenset({"RGB", "RGBA", "P", "PA", "LA", "CMYK", "YCbCr"})


def load(folder: File, request: Request) -> Dataset:
    """The data of `folder`. Raises UserError that names the file and what was expected."""
    parts = {name: child for name in ("train", "val") if (child := folder.child(name)) is not None and child.is_folder}
    if len(parts) < 2:
        parts = {"train": folder}
    classes = {part: _classes(child) for part, child in parts.items()}
    names = sorted(classes["train"])
    if len(names) < 2:
        raise UserError(
            f"{folder.name} holds no x.npy and no folder for each of at least two classes with "
            f"{', '.join(FORMATS)} images in it: there is nothing to learn"
        )
    if strangers := set(classes.get("val", names)) - set(names):
        raise UserError(f"{folder.name}/val has the class {min(strangers)[:100]!r}, which train does not have")
    shape = _shape(folder.name, parts, classes, request)
    arrays = {part: _read(child, classes[part], names, shape) for part, child in parts.items()}
    return whole(
        arrays["train"],
        arrays.get("val"),
        fraction=request.fraction,
        seed=request.seed,
        label_names=tuple(names),
    )


def _classes(folder: File) -> dict[str, list[str]]:
    """Names of the images of each class that has any."""
    classes: dict[str, list[str]] = {}
    for name in folder.names():
        child = folder.child(name)
        if child is None:
            continue
        if child.is_folder:
            images = [image for image in child.names() if _format(image) is not None]
            if images:
                classes[name] = images
        child.close()
    return classes


def _shape(
    name: str, parts: dict[str, File], classes: dict[str, dict[str, list[str]]], request: Request
) -> tuple[int, int, int]:
    """Channels, height and width of the first image, once all of them would fit into the job's memory."""
    part, child = next(iter(parts.items()))
    first = next(iter(classes[part]))
    image = _decoded(child, first, classes[part][first][0])
    shape = image.shape
    count = sum(len(images) for found in classes.values() for images in found.values())
    request.check_size(name, count * math.prod(shape))
    return shape


def _read(folder: File, classes: dict[str, list[str]], names: list[str], shape: tuple[int, int, int]) -> Arrays:
    count = sum(map(len, classes.values()))
    pixels = np.empty((count, *shape), np.uint8)
    labels = np.empty(count, np.int64)
    row = 0
    for class_name, images in classes.items():
        for image in images:
            found = _decoded(folder, class_name, image)
            if found.shape != shape:
                raise UserError(
                    f"{class_name}/{image} is {_words(found.shape)}, and the first image is {_words(shape)}: all must "
                    "be alike"
                )
            pixels[row], labels[row] = found, names.index(class_name)
            row += 1
    return pixels, labels


def _decoded(folder: File, class_name: str, name: str) -> NDArray[Any]:
    """(1 or 3, height, width) uint8."""
    from PIL import Image, UnidentifiedImageError  # late: no other job needs it

    child = folder.child(class_name)
    file = child.child(name) if child is not None else None
    what = f"{class_name}/{name}"[:200]
    if child is None or file is None:
        raise UserError(f"{what} is gone, or is no regular file")
    try:
        with file.open() as stream, Image.open(stream, formats=[_format(name) or ""]) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise UserError(f"{what} declares {width}x{height} pixels: at most {MOST_PIXELS} are read")
            if image.mode not in _GREY | _COLOUR:
                raise UserError(f"{what} has pixels of kind {image.mode}: 8 bits a channel are needed")
            grey = image.mode in _GREY
            pixels = np.asarray(image.convert("L" if grey else "RGB"))
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        UnidentifiedImageError,
        Image.DecompressionBombError,
    ) as error:
        raise UserError(f"{what} is no readable {_format(name)} image: {str(error)[:200]}") from error
    finally:
        file.close()
        child.close()
    return pixels[np.newaxis] if grey else pixels.transpose(2, 0, 1)


def _format(name: str) -> str | None:
    return FORMATS.get(f".{name.rpartition('.')[2].lower()}")


def _words(shape: tuple[int, ...]) -> str:
    return f"{shape[2]}x{shape[1]} {'grey' if shape[0] == 1 else 'in colour'}"
