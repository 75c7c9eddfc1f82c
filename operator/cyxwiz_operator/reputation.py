"""How reliable a node has been: outcomes of attempts, read off the jobs, and the score made of them.

Only what a node caused counts: training that it carried to the end, and attempts that it lost. What users or the
administrator caused moves nothing. Outcomes are keyed by assignment, so counting one again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from cyxwiz_crds import Failure, Phase
from cyxwiz_crds.compute_node import Outcome

from .clock import seconds_since
from .views import JobView
from .workload import measured_by

KEPT = 64
"""Bound of `status.reputation.outcomes`."""
PRIOR = 0.9
"""The score of a node nobody knows."""
PRIOR_WEIGHT = 2.0
"""How many outcomes the prior is worth."""
HALF_LIFE_S = 3 * 24 * 3600.0
"""An outcome counts half after this time, so that a repaired node is tried again."""
BLAMED = frozenset({Failure.NODE_LOST, Failure.NEVER_CLAIMED, Failure.GPU_FAULT})
"""How an attempt ends when its node is at fault."""


def score_of(outcomes: Sequence[Outcome], wall: datetime) -> float:
    """0 to 1: the mean of the outcomes, recent ones weighing more, drawn towards the prior."""
    good = PRIOR * PRIOR_WEIGHT
    total = PRIOR_WEIGHT
    for outcome in outcomes:
        age_s = max(0.0, seconds_since(outcome.ended_at, wall) or 0.0)
        weight = 0.5 ** (age_s / HALF_LIFE_S)
        total += weight
        good += weight * outcome.good
    return good / total


def outcomes_of(view: JobView) -> list[tuple[str, Outcome]]:
    """(node, outcome) of every attempt of the job that says something about its node."""
    found = [
        (record.node, Outcome(job=f"{view.uid}-{record.attempt}", good=False, ended_at=record.ended_at))
        for record in view.status.history
        if record.outcome in BLAMED
    ]
    status = view.status
    if status.phase == Phase.SUCCEEDED and status.assignment and status.finished_at:
        measured = measured_by(view)
        outcome = Outcome(job=status.assignment.id, good=True, ended_at=status.finished_at, measured=measured)
        found.append((status.assignment.node, outcome))
    return found


def merged(known: Sequence[Outcome], seen: Iterable[Outcome]) -> list[Outcome]:
    """The newest outcomes of both, oldest first; merging the same again changes nothing."""
    by_assignment = {outcome.job: outcome for outcome in known}
    for outcome in seen:
        by_assignment.setdefault(outcome.job, outcome)
    return sorted(by_assignment.values(), key=lambda outcome: (outcome.ended_at, outcome.job))[-KEPT:]
