"""Which samples go into which batch: made of (seed, epoch) alone, so that a resumed epoch has the same order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

# Second word of the seed, so that no two random streams of a job are the same.
_ORDER_STREAM = 3


def epoch_order(seed: int, epoch: int, samples: int) -> Tensor:
    """(samples,) int64: the order of `epoch` (from 0)."""
    order = np.random.default_rng((seed, _ORDER_STREAM, epoch)).permutation(samples)
    return torch.from_numpy(order)


def evaluation_batches(samples: int, batch_size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Indices and weights, (batch_size,) each, until every sample had weight 1 once.

    Every batch has the same shape: the last is filled up with samples of weight 0.
    """
    places = torch.arange(batch_size, device=device)
    for start in range(0, samples, batch_size):
        indices = places + start
        yield indices.clamp(max=samples - 1), (indices < samples).to(torch.float32)
