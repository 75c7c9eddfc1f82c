"""How often progress is reported: rarely enough that reports stay a small part of what the server does."""

from __future__ import annotations

from collections import deque
from statistics import median

LATENCIES_PER_REPORT = 200
SHORTEST_S = 2.0
LONGEST_S = 60.0
REMEMBERED = 15


class Pace:
    """200 times the median latency of the agent's own recent patches, between 2 and 60 seconds."""

    def __init__(self) -> None:
        self._latencies: deque[float] = deque(maxlen=REMEMBERED)

    def measured(self, latency_s: float) -> None:
        """One report took this long to be accepted."""
        self._latencies.append(latency_s)

    @property
    def interval_s(self) -> float:
        """Seconds between two progress reports of one job."""
        if not self._latencies:
            return SHORTEST_S
        return min(max(LATENCIES_PER_REPORT * median(self._latencies), SHORTEST_S), LONGEST_S)
