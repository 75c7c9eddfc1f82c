"""Everything one pass will do, as a value: a pure function of the snapshot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from .lifecycle import StatusChange, backing_off_nodes, bound, queued, review
from .scheduling import queueing
from .scheduling.planning import Plan, plan
from .snapshot import ClusterSnapshot
from .views import JobView


@dataclass(frozen=True)
class Decisions:
    """Status changes in the order in which they matter."""

    binds: tuple[StatusChange, ...]
    changes: tuple[StatusChange, ...]
    """What follows from the jobs' lives, and the first word to every job that waits."""
    explanations: tuple[StatusChange, ...]
    """News for jobs that wait already, first in the queue first."""
    waiting: Mapping[str, int]
    """Reason to number of jobs."""
    postponed: int
    """Jobs left for the next pass."""


def decide(snapshot: ClusterSnapshot, *, most_binds: int) -> Decisions:
    """What to do about every job that may be written."""
    seen = {job.uid: job for job in snapshot.jobs if job.uid not in snapshot.held}
    reviewed = {uid: review(job, snapshot.liveness_for(job), snapshot.now) for uid, job in seen.items()}
    changes = {uid: change for uid, change in reviewed.items() if change is not None}
    after = [changes[uid].after if uid in changes else job for uid, job in seen.items()]

    planned = _plan(snapshot, [job for job in after if job.is_pending], most_binds)

    binds: list[StatusChange] = []
    for placement in planned.placements:
        job = placement.job
        binds.append(_joined(seen[job.uid], changes.pop(job.uid, None), bound(job, placement, snapshot.now)))
    explanations: list[StatusChange] = []
    for waiting in planned.waiting:
        job = waiting.job
        told = queued(job, waiting, snapshot.now)
        if told is None:
            continue
        if seen[job.uid].status.phase == told.status.phase:
            explanations.append(told)
        else:
            changes[job.uid] = _joined(seen[job.uid], changes.get(job.uid), told)
    return Decisions(
        binds=tuple(binds),
        changes=tuple(changes.values()),
        explanations=tuple(explanations),
        waiting=Counter(waiting.reason for waiting in planned.waiting),
        postponed=planned.postponed,
    )


def _plan(snapshot: ClusterSnapshot, pending: list[JobView], most_binds: int) -> Plan:
    pool = queueing.pool_of(snapshot.nodes)
    queue = queueing.order(pending, queueing.usage_of(snapshot.jobs, pool), pool)
    wall = snapshot.now.wall
    return plan([(job, backing_off_nodes(job, wall)) for job in queue], snapshot.nodes, snapshot.now, most=most_binds)


def _joined(seen: JobView, first: StatusChange | None, then: StatusChange) -> StatusChange:
    """Both changes as one write over what was seen: a lost job is released and bound again by the same patch."""
    if first is None:
        return then
    what = then.what if then.status.assignment else first.what
    return replace(then, job=seen, what=what, notes=first.notes + then.notes, outcome=first.outcome)
