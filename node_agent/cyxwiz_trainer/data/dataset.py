"""What every reader returns: samples and labels in memory, split, counted and hashed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cyxwiz_trainer.failures import UserError

from .columns import Columns
from .request import NOTHING

LARGEST_LABEL = 65_535
"""The last layer has a row for each class: a stray label must not make it huge."""
Arrays = tuple[NDArray[Any], NDArray[Any]]
"""Samples and labels as a reader decoded them."""
# Second words of the seed, so that no two random streams of a job are the same.
_SPLIT_STREAM = 1


@dataclass(frozen=True)
class Part:
    """Samples with their labels."""

    inputs: Tensor
    """(n, channels, height, width) or (n, features), uint8 or float32; (n, places) uint8 of text."""
    labels: Tensor
    """(n,) int64 classes, (n, quantities) float32 of a regression, (n, places) uint8 of text."""

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Part:
        return Part(self.inputs.to(device), self.labels.to(device))

    @property
    def size_bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in (self.inputs, self.labels))


@dataclass(frozen=True)
class TargetScale:
    """How the targets of a regression were standardized: `(value - mean) / std`."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Dataset:
    """The data of one job, whole."""

    train: Part
    validation: Part
    outputs: int
    """Numbers a model answers with: classes, quantities of a regression, or the vocabulary."""
    sha256: str
    """Over the decoded samples and labels, before any split."""
    task: str = "classification"
    """classification, regression or nextToken."""
    synthetic: bool = False
    label_names: tuple[str, ...] | None = None
    columns: Columns | None = None
    """What the inputs are, where the data is a table."""
    target_scale: TargetScale | None = None
    note: str | None = None
    """What its author should know of it, though it can be learnt from."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return tuple(self.train.inputs.shape[1:])

    @property
    def size_bytes(self) -> int:
        return self.train.size_bytes + self.validation.size_bytes

    def to(self, device: torch.device) -> Dataset:
        """The same data, held on `device`."""
        return replace(self, train=self.train.to(device), validation=self.validation.to(device))


def whole(
    train: Arrays,
    validation: Arrays | None,
    *,
    fraction: float,
    seed: int,
    synthetic: bool = False,
    label_names: tuple[str, ...] | None = None,
    digest: str | None = None,
) -> Dataset:
    """The Dataset of checked arrays; without `validation`, `fraction` of `train` is held out.

    `digest` stands for what the arrays were made of, where that is not the arrays themselves.

    Labels that are floats make it a regression, whole numbers a classification. Raises UserError when there is nothing
    to learn or to hold out.
    """
    digest = digest or sha256_of(*train, *(validation or ()))
    if train[1].dtype.kind == "f":
        split = _split(train, validation, fraction, seed)
        return _regression(*split, digest, synthetic)
    largest = max(int(labels.max()) for _, labels in ((train, validation) if validation else (train,)))
    if largest > LARGEST_LABEL:
        raise UserError(
            f"labels must count from 0 to at most {LARGEST_LABEL}, and the largest is {largest}: set task: regression "
            "if they are quantities"
        )
    if largest < 1:
        raise UserError("all labels are 0: there is nothing to tell apart")
    parts = _split(train, validation, fraction, seed)
    return Dataset(*parts, largest + 1, digest, synthetic=synthetic, label_names=label_names)


def _regression(train: Part, validation: Part, digest: str, synthetic: bool) -> Dataset:
    """Targets standardized by those that are trained on: a loss of 1 is what always answering their mean gets."""
    targets = _quantities(train)
    mean, std = targets.mean(0), targets.std(0, correction=0)
    if not (std > 0).all():
        raise UserError("all targets are the same: there is nothing to learn")
    train, validation = (Part(part.inputs, ((_quantities(part) - mean) / std).float()) for part in (train, validation))
    scale = TargetScale(tuple(mean.tolist()), tuple(std.tolist()))
    return Dataset(train, validation, len(mean), digest, "regression", synthetic, target_scale=scale)


def _quantities(part: Part) -> Tensor:
    """(n, quantities) float64."""
    return (part.labels[:, None] if part.labels.ndim == 1 else part.labels).double()


def _split(train: Arrays, validation: Arrays | None, fraction: float, seed: int) -> tuple[Part, Part]:
    if validation is not None:
        return _part(*train), _part(*validation)
    return _hold_out(_part(*train), fraction, seed)


def held_out(samples: int, fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices to train on and to hold out: disjoint, sorted, the same for the same seed. At least one of each."""
    count = min(max(round(samples * fraction), 1), samples - 1)
    order = np.random.default_rng((seed, _SPLIT_STREAM)).permutation(samples)
    return np.sort(order[count:]), np.sort(order[:count])


def _hold_out(part: Part, fraction: float, seed: int) -> tuple[Part, Part]:
    if fraction == NOTHING:
        return part, Part(part.inputs[:0], part.labels[:0])
    if len(part) < 2:
        raise UserError(f"the data has {len(part)} samples: at least 2 are needed, one to train on and one to hold out")
    train, validation = (torch.from_numpy(indices) for indices in held_out(len(part), fraction, seed))
    return Part(part.inputs[train], part.labels[train]), Part(part.inputs[validation], part.labels[validation])


def _part(inputs: NDArray[Any], labels: NDArray[Any]) -> Part:
    # A copy where the array is a read-only view of a file's bytes: torch has no read-only tensors.
    inputs = np.require(inputs, requirements=("C", "W"))
    return Part(
        torch.from_numpy(inputs), torch.from_numpy(labels.astype(np.float64 if labels.dtype.kind == "f" else np.int64))
    )


def sha256_of(*arrays: NDArray[Any], more: bytes = b"") -> str:
    """Hexadecimal, over types, shapes and contents in this order, and then over `more`."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    digest.update(more)
    return digest.hexdigest()
