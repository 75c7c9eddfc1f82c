"""Images varied anew in every epoch, by tables made of (seed, epoch) alone, so that a resumed epoch is the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cyxwiz_crds.training_job import Augment

# Second word of the seed, so that no two random streams of a job are the same.
_AUGMENT_STREAM = 4


@dataclass(frozen=True)
class Variations:
    """How each sample of one epoch is varied, in the epoch's order."""

    flips: Tensor
    """(samples,) bool."""
    shifts: Tensor
    """(samples, 2) int64: from where, in rows and columns of the padded image, the sample is cut."""
    padding: int

    @classmethod
    def of(cls, augment: Augment, seed: int, epoch: int, samples: int) -> Variations:
        """The table of `epoch` (from 0)."""
        random = np.random.default_rng((seed, _AUGMENT_STREAM, epoch))
        flips = random.random(samples) < (0.5 if augment.flip else 0.0)
        shifts = random.integers(2 * augment.crop + 1, size=(samples, 2))
        return cls(torch.from_numpy(flips), torch.from_numpy(shifts), augment.crop)

    def to(self, device: torch.device) -> Variations:
        return Variations(self.flips.to(device), self.shifts.to(device), self.padding)

    def applied(self, images: Tensor, batch: slice) -> Tensor:
        """(batch, channels, height, width) images, moved and mirrored as the rows `batch` of the table say."""
        count, channels, height, width = images.shape
        flips, shifts = self.flips[batch], self.shifts[batch]
        padded = functional.pad(images, (self.padding,) * 4)
        columns = torch.arange(width, device=images.device)
        columns = torch.where(flips[:, None], width - 1 - columns, columns) + shifts[:, 1:]
        rows = torch.arange(height, device=images.device) + shifts[:, :1]
        sample = torch.arange(count, device=images.device)[:, None, None, None]
        channel = torch.arange(channels, device=images.device)[:, None, None]
        return padded[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]
