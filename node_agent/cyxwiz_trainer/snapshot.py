"""Copies of a job's tensors in host memory, taken between two steps without stopping them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Snapshot:
    """Tensors as they were when it was taken."""

    tensors: dict[str, Tensor]
    """On the CPU. Whole after `wait`, and until the next snapshot is taken."""
    _copied: torch.cuda.Event | None

    def wait(self) -> None:
        """The device has come to it; any thread may ask."""
        if self._copied is not None:
            self._copied.synchronize()  # sync: of the thread that writes the checkpoint


class Snapshots:
    """Takes one snapshot at a time, into the same memory each time: pinned where the job computes on a GPU."""

    def __init__(self) -> None:
        self._room: dict[str, Tensor] = {}

    def take(self, tensors: dict[str, Tensor]) -> Snapshot:
        """The copies are queued behind the steps queued so far, and before the next: none can tear them.

        On the same stream as the steps: a stream of its own would need a second copy on the device first, and the
        state of a model is some milliseconds of a PCIe link.
        """
        on_gpu = any(tensor.is_cuda for tensor in tensors.values())
        for name, tensor in tensors.items():
            room = self._room.get(name)
            if room is None or room.shape != tensor.shape or room.dtype != tensor.dtype:
                # In the tensor's own layout, so that a copy is one transfer and not a rearrangement.
                room = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, pin_memory=on_gpu)
                self._room[name] = room
            room.copy_(tensor.detach(), non_blocking=True)
        copied = None
        if on_gpu:
            copied = torch.cuda.Event(blocking=True)
            copied.record()
        return Snapshot({name: self._room[name] for name in tensors}, copied)
