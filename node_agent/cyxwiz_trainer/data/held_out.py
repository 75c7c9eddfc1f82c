"""Held-out samples from a file of their own: brought to what the training data calls its classes and to its scale."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import torch
from torch import Tensor

from cyxwiz_trainer.failures import UserError

from .dataset import Dataset, Part


def joined(data: Dataset, other: Dataset) -> Dataset:
    """`data`, all of it to train on, with all of `other` held out. Raises UserError when one is not like the other."""
    if len(data.validation):
        raise UserError("dataset.uri brings held-out samples of its own: leave one of them out")
    if other.task != data.task:
        raise UserError(f"it is data for {other.task}, and dataset.uri is for {data.task}")
    inputs = torch.cat([other.train.inputs, other.validation.inputs])
    theirs, ours = tuple(inputs.shape[1:]), data.input_shape
    if theirs != ours:
        raise UserError(f"a sample has shape {list(theirs)}, and one of dataset.uri {list(ours)}")
    if inputs.dtype != data.train.inputs.dtype:
        kinds = [str(dtype).removeprefix("torch.") for dtype in (inputs.dtype, data.train.inputs.dtype)]
        raise UserError(f"its samples are {kinds[0]}, and those of dataset.uri {kinds[1]}: save both alike")
    labels = torch.cat([other.train.labels, other.validation.labels])
    if data.task == "classification":
        labels = _classes(labels, data, other)
    elif data.task == "regression":
        labels = _rescaled(labels, data, other)
    digest = hashlib.sha256(f"{data.sha256} {other.sha256}".encode()).hexdigest()
    synthetic = data.synthetic or other.synthetic
    note = "; ".join(filter(None, (data.note, other.note))) or None
    return replace(data, validation=Part(inputs, labels), sha256=digest, synthetic=synthetic, note=note)


def _classes(labels: Tensor, data: Dataset, other: Dataset) -> Tensor:
    """Their classes by our numbers."""
    if data.label_names is not None and other.label_names is not None:
        numbers = {name: number for number, name in enumerate(data.label_names)}
        if strange := [name for name in other.label_names if name not in numbers]:
            raise UserError(f"it has the class {strange[0][:64]!r}, which dataset.uri does not have")
        return torch.tensor([numbers[name] for name in other.label_names])[labels]
    if (largest := int(labels.max())) >= data.outputs:
        raise UserError(f"it has the class {largest}, and dataset.uri has 0 to {data.outputs - 1}")
    return labels


def _rescaled(targets: Tensor, data: Dataset, other: Dataset) -> Tensor:
    """Their targets, standardized as ours are."""
    own, wanted = other.target_scale, data.target_scale
    if own is None or wanted is None:  # of an installed package, which has not standardized them
        return targets
    if len(own.mean) != len(wanted.mean):
        raise UserError(f"it has {len(own.mean)} quantities, and dataset.uri {len(wanted.mean)}")
    values = targets.double() * torch.tensor(own.std).double() + torch.tensor(own.mean).double()
    return ((values - torch.tensor(wanted.mean).double()) / torch.tensor(wanted.std).double()).float()
