"""Which job ends when the machine's memory runs out: before the kernel chooses, which may choose all of them.

Pure. `memory` of a job is what it asked for, not a limit: while there is room nobody ends for using more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LOOK_CLOSELY_FROM = 0.85
"""Used share of a bound from which every look counts."""
LOOK_EVERY_S, LOOK_CLOSELY_EVERY_S = 1.0, 0.1
_KEPT_FREE = 0.05
_KEPT_FREE_AT_MOST_BYTES = 2 * 2**30
"""A large machine needs no twentieth of its memory for what jobs take between two looks."""


@dataclass(frozen=True)
class Bound:
    """Memory that somebody limits, and how much of it is in use and cannot be dropped."""

    what: str
    """In words: "the container", "the machine"."""
    used_bytes: int
    limit_bytes: int

    @property
    def is_near(self) -> bool:
        return self.used_bytes >= self.limit_bytes * LOOK_CLOSELY_FROM

    @property
    def is_reached(self) -> bool:
        """So little is left that jobs may use it up before the next look."""
        left = self.limit_bytes - self.used_bytes
        return left < min(self.limit_bytes * _KEPT_FREE, _KEPT_FREE_AT_MOST_BYTES)


@dataclass(frozen=True)
class Use:
    """One job's memory."""

    job: str
    used_bytes: int
    asked_bytes: int
    ending: bool = False


def look_again_after(bounds: Iterable[Bound]) -> float:
    """Seconds until the next look."""
    return LOOK_CLOSELY_EVERY_S if any(bound.is_near for bound in bounds) else LOOK_EVERY_S


def worst_offender(bounds: Sequence[Bound], uses: Sequence[Use]) -> str | None:
    """The job that has to end now; None when there is room, or will be when the one that is ending has gone.

    It is the one furthest over its own request, in bytes, for that is what its end gives back of what was never its
    own. Where all keep to their requests and the node promised too much, the one that uses most of its request.
    """
    if not uses or any(use.ending for use in uses) or not any(bound.is_reached for bound in bounds):
        return None
    over = max(uses, key=lambda use: use.used_bytes - use.asked_bytes)
    if over.used_bytes > over.asked_bytes:
        return over.job
    return max(uses, key=lambda use: use.used_bytes / max(use.asked_bytes, 1)).job
