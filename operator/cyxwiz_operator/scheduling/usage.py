"""What each namespace has used of the pool, fading with time: the memory of fair share.

A namespace's usage is the mean of its dominant share over the past, a moment `age` seconds ago weighing
0.5 ^ (age / half-life). It lies between 0 and 1, and all of them together do: whoever has had the whole pool for long
stands at 1.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from cyxwiz_operator.clock import parse
from cyxwiz_operator.views import JobView

from .queueing import Pool, share_of

HALF_LIFE_S = 24 * 3600.0
NAMESPACES_KEPT = 5000
"""Those that used most; a ConfigMap holds 1 MiB."""
_FORGOTTEN = 1e-6


@dataclass(frozen=True)
class Usage:
    """The usage of every namespace, accounted for up to one moment."""

    until: datetime
    by_namespace: Mapping[str, float] = field(default_factory=dict)

    def accrued(self, jobs: Iterable[JobView], pool: Pool, wall: datetime) -> Usage:
        """The usage up to `wall`: each job counts from `until` or its binding, to now or its end.

        That is read off the jobs, so an operator that was away makes up for it when it is back.
        """
        elapsed_s = (wall - self.until).total_seconds()
        if elapsed_s <= 0:
            return self  # the wall clock was set back: wait for it
        used = defaultdict(float, {name: value * _weight(elapsed_s) for name, value in self.by_namespace.items()})
        for job in jobs:
            held = _held_since(job, self.until, wall)
            if held is not None:
                from_s, to_s = held
                used[job.job.metadata.namespace] += share_of(job, pool) * (_weight(to_s) - _weight(from_s))
        return Usage(wall, {name: value for name, value in used.items() if value > _FORGOTTEN})

    def to_json(self) -> str:
        """As `from_json` reads it."""
        most = sorted(self.by_namespace.items(), key=lambda item: -item[1])[:NAMESPACES_KEPT]
        used = {name: round(value, 9) for name, value in sorted(most)}
        return json.dumps({"until": self.until.isoformat(), "usage": used})

    @classmethod
    def from_json(cls, text: str) -> Usage:
        """Raises ValueError when `text` is nothing that `to_json` wrote."""
        try:
            value = json.loads(text)
            used = {str(name): float(share) for name, share in value["usage"].items()}
            return cls(parse(value["until"]), used)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a usage: {text[:80]!r}") from error


def _held_since(job: JobView, start: datetime, end: datetime) -> tuple[float, float] | None:
    """(seconds before `end` at which the job began to hold its place, those at which it ceased) within the interval."""
    assignment = job.status.assignment
    if assignment is None or job.is_final:
        return None
    began = max(start, parse(assignment.bound_at)) if assignment.bound_at else start
    execution = job.status.execution
    ceased = end
    if not job.holds_capacity:
        if execution is None or execution.ended_at is None:
            return None
        ceased = min(end, parse(execution.ended_at))
    return ((end - began).total_seconds(), (end - ceased).total_seconds()) if ceased > began else None


def _weight(age_s: float) -> float:
    return 0.5 ** (age_s / HALF_LIFE_S)
