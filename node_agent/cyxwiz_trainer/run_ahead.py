"""How far the host may be ahead of the GPU: enough that the GPU never waits, and no more than it can take back."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

import torch

LONGEST_S = 0.2
"""Device time that may be queued. After an order to stop or a deadline, so much is still computed."""
FEWEST_STEPS = 2


class Mark(Protocol):
    """A place in the device's queue; torch.cuda.Event is one."""

    def record(self) -> None: ...
    def query(self) -> bool: ...
    def synchronize(self) -> None: ...


class RunAhead:
    """Counts queued steps and holds the host back when they are more than `LONGEST_S` of work."""

    def __init__(self, new_mark: Callable[[], Mark] | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._new_mark = new_mark
        self._clock = clock
        self._queued: deque[Mark] = deque()
        self._free: list[Mark] = []
        self._most = FEWEST_STEPS
        self._done = 0
        self._since = clock()

    @classmethod
    def of(cls, device: torch.device) -> RunAhead:
        """For `device`; on the CPU a step is done when it returns, and nothing is counted."""
        # Blocking: the host sleeps instead of turning in a loop.
        return cls((lambda: torch.cuda.Event(blocking=True)) if device.type == "cuda" else None)

    def step_queued(self) -> None:
        """One step more is queued. Waits, if at all, for an older one; never for the newest."""
        if self._new_mark is None:
            return
        mark = self._free.pop() if self._free else self._new_mark()
        mark.record()
        self._queued.append(mark)
        while len(self._queued) > self._most:
            self._queued[0].synchronize()  # sync: with a step about LONGEST_S old
            self._take_done()
        self._take_done()
        self._adapt()

    def _take_done(self) -> None:
        while self._queued and self._queued[0].query():
            self._free.append(self._queued.popleft())
            self._done += 1

    def _adapt(self) -> None:
        """The bound in steps follows the device's own speed, measured over `LONGEST_S` at a time."""
        elapsed = self._clock() - self._since
        if elapsed >= LONGEST_S:
            self._most = max(FEWEST_STEPS, int(self._done / elapsed * LONGEST_S))
            self._done, self._since = 0, self._clock()
