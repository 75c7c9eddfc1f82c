"""What is learned: how outputs are compared with targets, in training and on held-out samples."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional


class Task(Protocol):
    """A way to compare `outputs`, (batch, ...), with `targets`, (batch, ...)."""

    @property
    def has_accuracy(self) -> bool:
        """Whether an answer is right or wrong, rather than near or far."""
        ...

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """() float32: the mean that training makes smaller."""
        ...

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(batch,) float32: each held-out sample's own."""
        ...

    def right(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(batch,) float32: the share of each sample that was answered right; zeros where there is no right."""
        ...


class Classification:
    """(batch, classes) scores against (batch,) class numbers: cross entropy."""

    has_accuracy = True

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self._label_smoothing = label_smoothing

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs.float(), targets, label_smoothing=self._label_smoothing)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs.float(), targets, reduction="none")

    def right(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.argmax(dim=1) == targets).float()


class NextToken:
    """(batch, places, vocabulary) scores against (batch, places) tokens: cross entropy, averaged over the places."""

    has_accuracy = True

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self._classes = Classification(label_smoothing)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self._classes.loss(outputs.flatten(0, 1), targets.flatten().long())

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self._classes.losses(outputs.flatten(0, 1), targets.flatten().long()).reshape(targets.shape).mean(1)

    def right(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.argmax(dim=2) == targets).float().mean(1)


class Regression:
    """(batch, quantities) against the same: squared error. Targets come standardized, so 1 is what the mean scores."""

    has_accuracy = False

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.mse_loss(outputs.float(), targets)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.float() - targets).square().mean(1)

    def right(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.zeros(len(targets), device=targets.device)


def task_named(name: str, label_smoothing: float) -> Task:
    """The task of a data set: classification, regression or nextToken."""
    match name:
        case "classification":
            return Classification(label_smoothing)
        case "nextToken":
            return NextToken(label_smoothing)
        case "regression":
            return Regression()
        case _:
            raise ValueError(f"{name!r} is no task")
