"""Whether a job that should be stepping has stopped doing so: by the agent's own clock, whatever the job says."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from cyxwiz_protocol.runner_api import JobProcess

from .facts import TRAINING, Facts

USUAL_TIMES = 50
"""So many times the usual time of a step without one is a stall."""
SHORTEST_S = 60.0
UNKNOWN_S = 600.0
"""While there is no usual time yet."""


@dataclass(frozen=True)
class Stall:
    """No step for long."""

    since: float
    """Unix time at which the last one was seen."""


def longest_pause_s(facts: Facts, batch_size: int) -> float:
    """Seconds without a step that nothing but a stall explains."""
    rate = facts.progress.samples_per_second if facts.progress else 0.0
    return max(USUAL_TIMES * batch_size / rate, SHORTEST_S) if rate > 0 else UNKNOWN_S


class StepWatch:
    """Remembers when the job last moved, or was seen to have a reason not to."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._wall = wall
        self._seen: object = None
        self._moved_at = clock()
        self.stall: Stall | None = None

    def look(self, facts: Facts, process: JobProcess | None, batch_size: int) -> Stall | None:
        """The stall as of now; None while it goes on, or is not expected to."""
        now = self._clock()
        moved = (facts.steps_seen, facts.activity)
        if moved != self._seen or not is_to_step(facts, process):
            self._seen, self._moved_at, self.stall = moved, now, None
        elif self.stall is None and now - self._moved_at > longest_pause_s(facts, batch_size):
            self.stall = Stall(self._wall() - (now - self._moved_at))
        return self.stall


def is_to_step(facts: Facts, process: JobProcess | None) -> bool:
    """It has done its first step and not its last, it is not frozen, and does nothing that keeps it from stepping."""
    if process is None or process.state != "Running" or facts.started is None or facts.evaluation is not None:
        return False
    if facts.activity != TRAINING or facts.model is not None or facts.failure is not None:
        return False
    return facts.progress is None or facts.progress.step < facts.progress.total_steps
