"""How fast training goes and when it will be done: the median of recent windows, which a pause does not move."""

from __future__ import annotations

import statistics
from collections import deque

WINDOWS = 15
SHORTEST_WINDOW_S = 0.2


class Rate:
    """Steps per second, from (time, steps done) seen now and then."""

    def __init__(self, now: float, step: int) -> None:
        self._first = self._last = (now, step)
        self._windows: deque[float] = deque(maxlen=WINDOWS)

    def seen(self, now: float, step: int) -> None:
        """`step` steps were done at `now`. Too short a window is joined to the next."""
        elapsed = now - self._last[0]
        if elapsed >= SHORTEST_WINDOW_S and step > self._last[1]:
            self._windows.append((step - self._last[1]) / elapsed)
            self._last = (now, step)

    def steps_per_second(self, now: float, step: int) -> float:
        """The recent rate; over everything while there is no window yet, 0 before the first step."""
        if self._windows:
            return statistics.median(self._windows)
        elapsed = now - self._first[0]
        return (step - self._first[1]) / elapsed if elapsed > 0 else 0.0

    def remaining_s(self, steps_left: int) -> float | None:
        """Seconds to the end at the recent rate; None until one is known."""
        if steps_left == 0:
            return 0.0
        return steps_left / statistics.median(self._windows) if self._windows else None
