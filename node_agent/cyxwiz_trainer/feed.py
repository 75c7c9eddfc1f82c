"""The next batch, in two tensors that stay where they are: what a captured step reads.

Data that fits lies on the device whole, and a batch is gathered there. Larger data stays in host memory: a batch is
gathered into pinned memory and copied on a stream of its own while the device computes the one before.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from cyxwiz_crds.training_job import Hyperparameters

from .augment import Variations
from .batches import epoch_order
from .data import Part
from .device import Device
from .distributed import ALONE, Ranks

_SLOTS = 4


class Feed:
    """Batches of `part`, held where the device computes."""

    def __init__(
        self, part: Part, batch_size: int, hyper: Hyperparameters, device: Device, ranks: Ranks = ALONE
    ) -> None:
        self._part = part
        self._batch_size = batch_size
        self._mine = ranks.my_part(batch_size)
        self._hyper = hyper
        self._device = device.torch_device
        self._order: Tensor | None = None
        self._variations: Variations | None = None
        self.rows = self._mine.stop - self._mine.start
        self.inputs = torch.empty((self.rows, *part.inputs.shape[1:]), dtype=part.inputs.dtype, device=self._device)
        """(rows, ...) samples of this rank's part of the batch that was filled in last."""
        self.targets = torch.empty((self.rows, *part.labels.shape[1:]), dtype=part.labels.dtype, device=self._device)
        self.on_device = part.inputs.device.type == self._device.type
        """The data lies where it is computed."""
        self._waited_s = 0.0

    @property
    def begun(self) -> bool:
        """Whether an epoch has begun in this process."""
        return self._order is not None

    def take_waited_s(self) -> float:
        """How long filling waited for a device that was behind, since this was last asked."""
        waited_s, self._waited_s = self._waited_s, 0.0
        return waited_s

    def begin_epoch(self, epoch: int) -> None:
        """Batches of `epoch` (from 0) follow. Sync: the order and the variations are copied."""
        samples = len(self._part)
        self._order = epoch_order(self._hyper.seed, epoch, samples).to(self._part.inputs.device)
        if self._hyper.augment is not None:
            variations = Variations.of(self._hyper.augment, self._hyper.seed, epoch, samples)
            self._variations = variations.to(self._device)

    def fill(self, position: int) -> None:
        """`inputs` and `targets` are this rank's part of batch `position` (from 0) of the epoch."""
        assert self._order is not None, "an epoch has begun"
        start = position * self._batch_size
        batch = slice(start + self._mine.start, start + self._mine.stop)
        self._gather(self._order[batch])
        if self._variations is not None:
            self.inputs.copy_(self._variations.applied(self.inputs, batch))

    def _gather(self, indices: Tensor) -> None:
        torch.index_select(self._part.inputs, 0, indices, out=self.inputs)
        torch.index_select(self._part.labels, 0, indices, out=self.targets)


@dataclass(frozen=True)
class _Slot:
    """Room for one batch on its way to the device."""

    pinned: tuple[Tensor, Tensor]
    arrived: tuple[Tensor, Tensor]
    copied: torch.cuda.Event
    used: tuple[torch.cuda.Event, torch.cuda.Event]
    """By the step that took it last, and by the one before that: they take turns."""


class PinnedFeed(Feed):
    """Batches of a `part` in host memory, for a GPU that cannot hold all of it."""

    def __init__(
        self, part: Part, batch_size: int, hyper: Hyperparameters, device: Device, ranks: Ranks = ALONE
    ) -> None:
        super().__init__(part, batch_size, hyper, device, ranks)
        self._stream = torch.cuda.Stream()
        self._slots = [self._slot() for _ in range(_SLOTS)]
        self._next = 0

    def _slot(self) -> _Slot:
        batch = (self.inputs, self.targets)
        pinned = [torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in batch]
        arrived = [torch.empty_like(tensor) for tensor in batch]
        return _Slot(
            (pinned[0], pinned[1]),
            (arrived[0], arrived[1]),
            torch.cuda.Event(blocking=True),
            (torch.cuda.Event(), torch.cuda.Event()),
        )

    def _gather(self, indices: Tensor) -> None:
        slot, turn = self._slots[self._next % _SLOTS], self._next // _SLOTS % 2
        self._next += 1
        before, last = slot.used[turn], slot.used[1 - turn]
        # The copy of _SLOTS batches ago has to wait for a step that is not done: the device is behind, not the data.
        is_behind, began = not before.query(), time.perf_counter()
        slot.copied.synchronize()  # sync: with a copy _SLOTS batches ago
        if is_behind:
            self._waited_s += time.perf_counter() - began
        for source, pinned in zip((self._part.inputs, self._part.labels), slot.pinned, strict=True):
            torch.index_select(source, 0, indices, out=pinned)
        computing = torch.cuda.current_stream()
        with torch.cuda.stream(self._stream):
            last.wait()
            for pinned, arrived in zip(slot.pinned, slot.arrived, strict=True):
                arrived.copy_(pinned, non_blocking=True)
            slot.copied.record()
        computing.wait_event(slot.copied)
        self.inputs.copy_(slot.arrived[0])
        self.targets.copy_(slot.arrived[1])
        before.record()


def feed_for(part: Part, batch_size: int, hyper: Hyperparameters, device: Device, ranks: Ranks = ALONE) -> Feed:
    """Batches of `part` for `device`, by the way that fits where the part lies."""
    on_device = part.inputs.device.type == device.torch_device.type
    return (Feed if on_device else PinnedFeed)(part, batch_size, hyper, device, ranks)
