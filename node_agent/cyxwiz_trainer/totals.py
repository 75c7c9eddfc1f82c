"""Loss and correct answers of the epoch so far, summed where the model computes and read without holding it up."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sums:
    """What was summed over the first `steps` steps of an epoch."""

    steps: int = 0
    loss: float = 0.0
    correct: float = 0.0
    finite_steps: float = 0.0
    """Steps before the first whose loss was no number."""

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.loss)

    @property
    def mean_loss(self) -> float:
        return self.loss / max(self.steps, 1)

    def accuracy(self, batch_size: int) -> float:
        """Share of the samples answered right, 0 to 1."""
        return self.correct / max(self.steps * batch_size, 1)


class Totals:
    """The running sums on the device. On a GPU, `request` and `poll` read them without a sync."""

    def __init__(self, device: torch.device, start: Sums) -> None:
        self._steps = start.steps
        values = [start.loss, start.correct, start.finite_steps]
        # float64: a sum over a long epoch, saved and restored exactly.
        self._sums = torch.tensor(values, dtype=torch.float64, device=device)
        self._copy = torch.empty(3, dtype=torch.float64, pin_memory=device.type == "cuda")
        self._copied = torch.cuda.Event() if device.type == "cuda" else None
        self._requested: int | None = None

    def add(self, loss: Tensor, correct: Tensor) -> None:
        """What one step adds on the device: its loss and how many samples it answered right, () each."""
        self._sums[:2] += torch.stack((loss, correct))
        # Once the sum is not finite it stays so, and this count stops at the step before.
        self._sums[2] += self._sums[0].isfinite()

    def step_queued(self) -> None:
        """One step more; the host counts, because a captured `add` runs without it."""
        self._steps += 1

    def request(self) -> None:
        """The sums of this moment will be there for `poll`. A request still open is kept instead."""
        if self._requested is not None:
            return
        self._copy.copy_(self._sums, non_blocking=True)
        if self._copied is not None:
            self._copied.record()
        self._requested = self._steps

    def poll(self) -> Sums | None:
        """What was requested, once, as soon as the device has come to it; else None."""
        if self._requested is None or (self._copied is not None and not self._copied.query()):
            return None
        steps, self._requested = self._requested, None
        return Sums(steps, *self._copy.tolist())

    def read(self) -> Sums:
        """The sums of this moment. Sync: waits for the device."""
        return Sums(self._steps, *self._sums.tolist())

    def reset(self) -> None:
        """A new epoch begins; an open request is dropped."""
        self._sums.zero_()
        self._steps = 0
        self._requested = None
