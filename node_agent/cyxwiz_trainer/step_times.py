"""How long one step takes on the device, measured on real steps without waiting for any of them."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch

TIMED_STEPS = 50


class TimeMark(Protocol):
    """A place in the device's queue that knows when it was passed; torch.cuda.Event is one."""

    def record(self) -> None: ...
    def query(self) -> bool: ...
    def elapsed_time(self, end: Any, /) -> float: ...


class ClockMark:
    """On the CPU a step is done when it returns."""

    def __init__(self) -> None:
        self._at_s = 0.0

    def record(self) -> None:
        self._at_s = time.perf_counter()

    def query(self) -> bool:
        return True

    def elapsed_time(self, end: TimeMark, /) -> float:
        """Milliseconds, as CUDA has them."""
        assert isinstance(end, ClockMark)
        return 1000 * (end._at_s - self._at_s)


def marks_of(device: torch.device) -> Callable[[], TimeMark]:
    """What makes marks for `device`."""
    return partial(torch.cuda.Event, enable_timing=True) if device.type == "cuda" else ClockMark


class StepTimes:
    """The median over `TIMED_STEPS` steps in a row, which an evaluation or a pause between them does not move."""

    def __init__(self, new_mark: Callable[[], TimeMark]) -> None:
        self._new_mark = new_mark
        self._marks: list[TimeMark] = []

    def step_queued(self) -> None:
        """One step more is queued."""
        if len(self._marks) <= TIMED_STEPS:
            mark = self._new_mark()
            mark.record()
            self._marks.append(mark)

    def median_s(self) -> float | None:
        """Seconds per step; None until enough were queued and have been passed."""
        if len(self._marks) <= TIMED_STEPS or not self._marks[-1].query():
            return None
        pairs = itertools.pairwise(self._marks)
        return statistics.median(before.elapsed_time(after) for before, after in pairs) / 1000
