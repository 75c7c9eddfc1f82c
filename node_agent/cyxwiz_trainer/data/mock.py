"""mock:// data: made from the seed, learnable, and flagged synthetic because no accuracy on it says anything."""

from __future__ import annotations

from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

from cyxwiz_trainer.failures import UserError, unknown

from .dataset import Dataset, whole
from .request import Request

NAMES = ("cifar10",)
PARAMETERS = ("samples",)
DEFAULT_SAMPLES = 50_000
MOST_SAMPLES = 1_000_000
CLASSES = 10
SIDE = 32
_SHIFTS = 16
_CHUNK = 4096
# Share of an image that is its class's pattern, of 256. Found by trial: a small ResNet needs several epochs for it.
_PATTERN_WEIGHT = 80
# Shares of labels that are wrong on purpose, so that accuracy has a ceiling below 1 as real data has.
_WRONG_LABELS = 0.04
_MOCK_STREAM = 2


def load(request: Request) -> Dataset:
    """The synthetic data set that is named, such as cifar10?samples=2000; a fifth as many again are held out."""
    seed = request.seed
    name, _, query = request.name.partition("?")
    if name not in NAMES:
        raise unknown("mock data set", name, NAMES)
    samples = _samples(query)
    held_out = max(samples // 5, 1)
    images, labels = cifar10(samples + held_out, seed)
    return whole(
        (images[:samples], labels[:samples]),
        (images[samples:], labels[samples:]),
        fraction=0.0,
        seed=seed,
        synthetic=True,
    )


def cifar10(samples: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(samples, 3, 32, 32) images and (samples,) labels in CIFAR-10's shapes.

    Each class is a smooth pattern that is shifted sideways by chance and drowned in noise.
    """
    random = np.random.default_rng((seed, _MOCK_STREAM))
    patterns = _patterns(random)
    classes = random.integers(CLASSES, size=samples, dtype=np.uint8)
    shifts = random.integers(_SHIFTS, size=samples, dtype=np.uint8)
    images = np.empty((samples, 3, SIDE, SIDE), np.uint8)
    for start in range(0, samples, _CHUNK):
        part = slice(start, start + _CHUNK)
        noise = random.integers(256, size=images[part].shape, dtype=np.uint8).astype(np.uint16)
        noise *= 256 - _PATTERN_WEIGHT
        noise += patterns[classes[part], shifts[part]]
        images[part] = noise >> 8
    wrong = random.random(samples) < _WRONG_LABELS
    labels = np.where(wrong, random.integers(CLASSES, size=samples, dtype=np.uint8), classes)
    labels[:CLASSES] = np.arange(min(CLASSES, samples))  # every class occurs, whatever the seed
    return images, labels


def _patterns(random: np.random.Generator) -> NDArray[np.uint16]:
    """(classes, shifts, 3, 32, 32): each class's pattern at every shift, times its weight."""
    coarse = random.random((CLASSES, 3, 8, 8))
    smooth = coarse.repeat(SIDE // 8, axis=2).repeat(SIDE // 8, axis=3)
    for axis in (2, 3):
        smooth = (np.roll(smooth, 1, axis) + 2 * smooth + np.roll(smooth, -1, axis)) / 4
    weighted = (smooth * 255 * _PATTERN_WEIGHT).astype(np.uint16)
    return np.stack([np.roll(weighted, 2 * shift, axis=3) for shift in range(_SHIFTS)], axis=1)


def _samples(query: str) -> int:
    values = dict(parse_qsl(query, keep_blank_values=True))
    for name in values:
        if name not in PARAMETERS:
            raise unknown("parameter of mock://", name, PARAMETERS)
    text = values.get("samples", str(DEFAULT_SAMPLES))
    if not (text.isascii() and text.isdigit() and len(text) <= 7 and CLASSES <= int(text) <= MOST_SAMPLES):
        raise UserError(f"samples={text[:32]!r} of mock:// must be a whole number from {CLASSES} to {MOST_SAMPLES}")
    return int(text)
