"""How often progress is reported: rarely enough that reports stay a small part of what the server does."""

from __future__ import annotations

from collections import deque
from statistics import median

LATENCIES_PER_REPORT = 200
WAITS_PER_REPORT = 800
SHORTEST_S = 2.0
LONGEST_S = 60.0
AGES_PER_REPORT = 0.2
RECENT = 5
"""Reports whose median is the latency of now: few, since they are rare when it is long."""
REMEMBERED = 100
"""Reports among which the quickest is what a report takes when nothing waits."""


class Pace:
    """Between 2 and 60 s: 200 times what the agent's own reports take, and of that part which they wait behind others
    800 times, once the job is old.

    A fleet's old jobs are what a server is busy with, and give way to it; somebody looks at a young one, which tells
    of itself again when it is a fifth older, if not before.
    """

    def __init__(self) -> None:
        self._latencies: deque[float] = deque(maxlen=REMEMBERED)
        self._of_young_s = self._of_old_s = SHORTEST_S

    def measured(self, latency_s: float) -> None:
        """One report took this long to be accepted."""
        self._latencies.append(latency_s)
        usual, quickest = median(list(self._latencies)[-RECENT:]), min(self._latencies)
        self._of_young_s = _bounded(LATENCIES_PER_REPORT * usual)
        self._of_old_s = _bounded(LATENCIES_PER_REPORT * quickest + WAITS_PER_REPORT * (usual - quickest))

    def interval_s(self, age_s: float) -> float:
        """Seconds between two progress reports of a job that has run for `age_s`."""
        return min(self._of_old_s, max(self._of_young_s, AGES_PER_REPORT * age_s))


def _bounded(interval_s: float) -> float:
    return min(max(interval_s, SHORTEST_S), LONGEST_S)
