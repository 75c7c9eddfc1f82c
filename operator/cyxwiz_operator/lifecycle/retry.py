"""What follows from a failure: who caused it decides whether it is retried, and whether the retry is counted."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from enum import Enum
from typing import NamedTuple

from cyxwiz_crds import Failure
from cyxwiz_operator.clock import after, parse
from cyxwiz_operator.views import JobView

FIRST_DELAY_S = 10.0
LONGEST_DELAY_S = 300.0
NODE_DELAY_S = 30.0
"""A node is left out so long after it refused or failed a job; twice as long each further time in a row."""
LONGEST_NODE_DELAY_S = 900.0
NODE_FAULTS_FREE = 2
"""From the third failure on that was blamed on nodes, each counts: a poison job must not walk through the fleet."""


class Rule(Enum):
    """How a failure class is retried."""

    FINAL = "never: the request would fail again"
    COUNTED = "until backoffLimit, with growing delay"
    NODE_FAULT = "elsewhere, counted from the third on"
    FREE = "without counting"


RULES: dict[str, Rule] = {
    Failure.USER_ERROR: Rule.FINAL,
    Failure.DIVERGED: Rule.FINAL,
    Failure.DEADLINE_EXCEEDED: Rule.FINAL,
    Failure.OUT_OF_GPU_MEMORY: Rule.FINAL,
    Failure.CRASHED: Rule.COUNTED,
    Failure.STALLED: Rule.COUNTED,
    Failure.OUT_OF_HOST_MEMORY: Rule.COUNTED,
    Failure.NOT_STORED: Rule.COUNTED,
    Failure.NODE_LOST: Rule.NODE_FAULT,
    Failure.NEVER_CLAIMED: Rule.NODE_FAULT,
    Failure.GPU_FAULT: Rule.NODE_FAULT,
    Failure.REJECTED: Rule.FREE,
    Failure.NOT_RESERVED: Rule.FREE,
    Failure.EVICTED: Rule.FREE,
    Failure.PREEMPTED: Rule.FREE,
}
_BACKS_OFF = frozenset(
    {Failure.NODE_LOST, Failure.NEVER_CLAIMED, Failure.GPU_FAULT, Failure.REJECTED, Failure.NOT_RESERVED}
)


class Verdict(NamedTuple):
    """What a failure leads to."""

    failures: int
    """Counted so far, this one included when it counts."""
    node_faults: int
    retry_at: str | None
    """Not bound again before; None means at once."""
    gives_up: bool
    """backoffLimit is exceeded, or the class is never retried."""


def verdict_on(job: JobView, failure: str, wall: datetime) -> Verdict:
    """What follows from one more failure of this class. A class nobody here knows counts as a crash."""
    rule = RULES.get(failure, Rule.COUNTED)
    failures = job.status.failures or 0
    node_faults = job.status.node_faults or 0
    if rule is Rule.FINAL:
        return Verdict(failures, node_faults, None, gives_up=True)
    if rule is Rule.NODE_FAULT:
        node_faults += 1
    counts = rule is Rule.COUNTED or (rule is Rule.NODE_FAULT and node_faults > NODE_FAULTS_FREE)
    if not counts:
        return Verdict(failures, node_faults, None, gives_up=False)
    failures += 1
    delay_s = min(FIRST_DELAY_S * 2 ** (failures - 1), LONGEST_DELAY_S)
    return Verdict(failures, node_faults, after(wall, delay_s), gives_up=failures > job.job.spec.backoff_limit)


def backing_off_nodes(job: JobView, wall: datetime) -> frozenset[str]:
    """The nodes this job is kept away from for now.

    Read off the history, so that a restart of the operator forgets nothing: a node is left out after its last
    refusal for 30 s, doubled for each refusal before that in a row.
    """
    return frozenset(
        node
        for node, refusals, last in _refusals(job)
        if wall < last + timedelta(seconds=min(NODE_DELAY_S * 2 ** (refusals - 1), LONGEST_NODE_DELAY_S))
    )


def _refusals(job: JobView) -> Iterator[tuple[str, int, datetime]]:
    """(node, refusals in a row up to its newest record, time of the newest) for nodes whose newest is a refusal."""
    history = job.status.history
    for node in {record.node for record in history}:
        records = [record for record in history if record.node == node]
        in_a_row = 0
        for record in reversed(records):
            if record.outcome not in _BACKS_OFF:
                break
            in_a_row += record.outcome != Failure.NOT_RESERVED  # to ask Kubernetes again costs a pod and no more
        if records[-1].outcome in _BACKS_OFF:
            yield node, max(1, in_a_row), parse(records[-1].ended_at)
