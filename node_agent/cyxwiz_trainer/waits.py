"""What the training thread spends its time on: fetching data, waiting for the device, or queueing work for it.

A thread that waits for the GPU has time to spare, so the GPU is what training waits for; one that never waits for it
keeps it idle. Evaluations and saves lie between steps and are not counted.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from cyxwiz_protocol.records import WaitsRecord

WINDOWS = 15
_DATA, _DEVICE, _HOST = range(3)


class Waits:
    """The parts of each step are told in the order in which they come."""

    def __init__(
        self, *, device_is_cpu: bool, data_on_device: bool, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._clock = clock
        # Where the data lies on the GPU, filling the batch is one kernel more to queue.
        self._filling = _HOST if data_on_device and not device_is_cpu else _DATA
        self._stepping = _DEVICE if device_is_cpu else _HOST
        self._now = [0.0, 0.0, 0.0]
        self._windows: deque[tuple[float, float, float]] = deque(maxlen=WINDOWS)
        self._last = clock()

    def step_begins(self) -> None:
        """What was done since the step before is none of it."""
        self._last = self._clock()

    def batch_filled(self) -> None:
        self._lap(self._filling)

    def step_queued(self) -> None:
        self._lap(self._stepping)

    def device_awaited(self) -> None:
        self._lap(_DEVICE)

    def of_late(self, feed_waited_s: float = 0.0) -> WaitsRecord | None:
        """The shares over the newest windows, of which one ends now; None before the first step.

        `feed_waited_s` is how much of this window's filling was waiting for the device.
        """
        moved_s = min(feed_waited_s, self._now[self._filling])
        self._now[self._filling] -= moved_s
        self._now[_DEVICE] += moved_s
        self._windows.append((self._now[_DATA], self._now[_DEVICE], self._now[_HOST]))
        self._now = [0.0, 0.0, 0.0]
        data, device, host = (sum(part) for part in zip(*self._windows, strict=True))
        total = data + device + host
        if total <= 0:
            return None
        return WaitsRecord(data=data / total, device=device / total, host=host / total)

    def _lap(self, part: int) -> None:
        now = self._clock()
        self._now[part] += now - self._last
        self._last = now
