"""How reliable a node has been: outcomes of attempts, read off the jobs, and the score made of them.

Only what a node caused counts: training that it carried to the end, how fast it did so beside others of its kind, and
attempts that it lost. What users or the administrator caused moves nothing. Outcomes are keyed by assignment, so
counting one again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from cyxwiz_crds import Failure, Phase
from cyxwiz_crds.compute_node import Outcome

from .clock import seconds_since
from .speeds import Speeds, number
from .views import JobView
from .workload import measured_by

NO_SPEEDS: Speeds = {}
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


FAST_ENOUGH = 0.9
"""Share of the fleet's median speed that is as good as all of it: so much do equal machines differ."""
PROBATION_FAULTS = 2
PROBATION_S = 24 * 3600.0


def value_of(outcome: Outcome, typical: Speeds) -> float:
    """0 for a fault, 1 for a job carried to its end, less where that was slower than the fleet is."""
    measured = outcome.measured
    if not outcome.good or measured is None or measured.shared:
        return float(outcome.good)
    usual, rate = typical.get((measured.workload, measured.device)), number(measured.samples_per_second)
    return 1.0 if usual is None or rate is None else min(1.0, rate / (FAST_ENOUGH * usual))


def faults_in_a_row(outcomes: Sequence[Outcome], wall: datetime) -> int:
    """How many faults of the last day the newest outcomes are; one good outcome ends the row."""
    faults = 0
    for outcome in reversed(outcomes):
        if outcome.good or (seconds_since(outcome.ended_at, wall) or 0.0) > PROBATION_S:
            break
        faults += 1
    return faults


def is_on_probation(outcomes: Sequence[Outcome], wall: datetime) -> bool:
    """After two faults in a row a node is given one job at a time, until one succeeds or a day has passed."""
    return faults_in_a_row(outcomes, wall) >= PROBATION_FAULTS


def score_of(outcomes: Sequence[Outcome], wall: datetime, typical: Speeds = NO_SPEEDS) -> float:
    """0 to 1: the mean of the outcomes' values, recent ones weighing more, drawn towards the prior."""
    good = PRIOR * PRIOR_WEIGHT
    total = PRIOR_WEIGHT
    for outcome in outcomes:
        age_s = max(0.0, seconds_since(outcome.ended_at, wall) or 0.0)
        weight = 0.5 ** (age_s / HALF_LIFE_S)
        total += weight
        good += weight * value_of(outcome, typical)
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
