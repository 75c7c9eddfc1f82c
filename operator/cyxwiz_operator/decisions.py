"""Everything one pass will do, as a value: a pure function of the snapshot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from cyxwiz_crds import Phase, Reason

from .lifecycle import (
    StatusChange,
    answered,
    backing_off_nodes,
    bound,
    cannot_reserve,
    queued,
    review,
    review_reservation,
    told_to_yield,
    without_weights,
)
from .scheduling import queueing
from .scheduling.planning import Placement, Plan, Queued, Waiting, plan
from .scheduling.reserving import DEFAULT_RULES, PreemptionRules, held_node
from .snapshot import ClusterSnapshot
from .views import JobView
from .weights import Missing, source_for
from .workload import requirements_of

QUESTIONS_A_PASS = 1
"""Dry runs answered in one pass: each takes a plan of its own."""


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


def decide(
    snapshot: ClusterSnapshot,
    *,
    most_binds: int,
    preemption: PreemptionRules = DEFAULT_RULES,
    explained: int = 100,
    reservation_wait_s: float | None = None,
) -> Decisions:
    """What to do about every job that may be written; the first `explained` that wait hear all the news.

    With a `reservation_wait_s` GPUs are reserved through Kubernetes on nodes that want it so, and a job gives its place
    up after so long. A node's own mode counts, which it has from the start of its agent to the end: a change of the
    chart's reaches the operator first.
    """
    can_reserve = reservation_wait_s is not None
    seen = {job.uid: job for job in snapshot.jobs if job.uid not in snapshot.held}
    reviewed = {uid: review(job, snapshot.liveness_for(job), snapshot.now) for uid, job in seen.items()}
    changes = {uid: change for uid, change in reviewed.items() if change is not None}
    left = [job for uid, job in seen.items() if uid not in changes]
    changes |= _reserved(snapshot, left, reservation_wait_s) if reservation_wait_s is not None else {}
    changes |= _drained(snapshot, [job for uid, job in seen.items() if uid not in changes])
    changes |= _without_weights(snapshot, [job for uid, job in seen.items() if uid not in changes])
    after = [changes[uid].after if uid in changes else job for uid, job in seen.items()]

    planned = _plan(snapshot, after, most_binds, preemption, explained)

    now = snapshot.now
    binds: list[StatusChange] = []
    for placement in planned.placements:
        job = placement.job
        reserves = can_reserve and snapshot.views[placement.node].reserves
        binds.append(_joined(seen[job.uid], changes.pop(job.uid, None), bound(job, placement, now, reserves=reserves)))
    explanations: list[StatusChange] = []
    for waiting in planned.waiting:
        job = waiting.job
        if waiting.position > explained and _knows(job, waiting):
            continue
        told = queued(job, waiting, snapshot.now)
        if told is None:
            continue
        if seen[job.uid].status.phase == told.status.phase and held_node(job) == held_node(told.after):
            explanations.append(told)
        else:
            changes[job.uid] = _joined(seen[job.uid], changes.get(job.uid), told)
    for eviction in planned.evictions:
        uid = eviction.victim.uid
        if uid in seen and uid not in changes:
            by = eviction.by
            words = f"Preempted by {by.key} (priority {by.job.spec.priority}): saving a checkpoint."
            told = told_to_yield(seen[uid], snapshot.now, Reason.PREEMPTED, words)
            changes |= {uid: told} if told else {}
    questions = [job for job in after if job.is_question and job.uid not in changes]
    for job in questions[:QUESTIONS_A_PASS]:
        answer = _answer(job, snapshot, after, most_binds, preemption, explained)
        changes |= {job.uid: answer} if answer else {}
    return Decisions(
        binds=tuple(binds),
        changes=tuple(changes.values()),
        explanations=tuple(explanations),
        waiting=Counter(waiting.reason for waiting in planned.waiting),
        postponed=planned.postponed + len(questions[QUESTIONS_A_PASS:]),
    )


def _reserved(snapshot: ClusterSnapshot, jobs: list[JobView], wait_s: float) -> dict[str, StatusChange]:
    """uid to what follows from the state of its reservation, or from its wish to share a GPU that no node grants."""
    found: dict[str, StatusChange] = {}
    only_whole = all(view.reserves for view in snapshot.views.values() if view.gpus)
    for job in jobs:
        assignment = job.status.assignment
        pod = snapshot.reservations.get(assignment.id) if assignment else None
        change = review_reservation(job, pod, snapshot.liveness_for(job), snapshot.now, wait_s)
        change = change or (cannot_reserve(job, snapshot.now) if only_whole else None)
        found |= {job.uid: change} if change else {}
    return found


def _drained(snapshot: ClusterSnapshot, jobs: list[JobView]) -> dict[str, StatusChange]:
    """uid to the order to leave, for jobs on nodes that are to be empty."""
    found: dict[str, StatusChange] = {}
    for job in jobs:
        assignment = job.status.assignment
        node = snapshot.views.get(assignment.node) if assignment and job.holds_capacity else None
        if node is not None and node.draining_because:
            words = f"{node.name} is drained, {node.draining_because}: saving a checkpoint."
            change = told_to_yield(job, snapshot.now, Reason.DRAINING, words)
            found |= {job.uid: change} if change else {}
    return found


def _knows(job: JobView, waiting: Waiting) -> bool:
    """The job has been told that it waits and why, if not at which place."""
    status = job.status
    return status.phase == Phase.QUEUED and status.reason == waiting.reason and held_node(job) == waiting.holds


def _without_weights(snapshot: ClusterSnapshot, jobs: list[JobView]) -> dict[str, StatusChange]:
    """uid to the end of jobs that start from weights which will never be."""
    found: dict[str, StatusChange] = {}
    for job in jobs:
        source = source_for(job, snapshot.sources) if job.is_pending else None
        if isinstance(source, Missing) and source.for_good:
            found[job.uid] = without_weights(job, source.message, snapshot.now)
    return found


def _answer(
    job: JobView,
    snapshot: ClusterSnapshot,
    after: list[JobView],
    most_binds: int,
    preemption: PreemptionRules,
    explained: int,
) -> StatusChange | None:
    """What the scheduler would do with the job, were it in the queue; None where jobs before it come first."""
    planned = _plan(snapshot, after, most_binds, preemption, explained, question=job)
    found = next((each for each in (*planned.placements, *planned.waiting) if each.job.uid == job.uid), None)
    if found is None:
        return None
    by_name = snapshot.views
    devices: set[str] = set()
    if isinstance(found, Placement):
        devices = {gpu.name for gpu in by_name[found.node].gpus if gpu.uuid in found.gpus} or {"CPU"}
    shown = (outcome for node in by_name.values() for outcome in node.outcomes)
    return answered(job, found, requirements_of(job.job.spec, shown, frozenset(devices)), snapshot.now)


def _plan(
    snapshot: ClusterSnapshot,
    after: list[JobView],
    most_binds: int,
    preemption: PreemptionRules,
    explained: int,
    question: JobView | None = None,
) -> Plan:
    """The queue's places; with a `question`, those of the queue up to that job, as if it were one of it."""
    pool = queueing.pool_of(snapshot.nodes)
    taken = queueing.together(snapshot.usage, queueing.usage_of(snapshot.jobs, pool))
    # Those whose write is on its way stand in the queue too: else others would take their place meanwhile.
    awaited = [job for job in snapshot.jobs if job.uid in snapshot.awaited]
    pending = [job for job in (*after, *awaited) if job.is_pending]
    queue = queueing.order([*pending, question] if question else pending, taken, pool)
    if question is not None:
        queue = queue[: next(place for place, job in enumerate(queue, 1) if job is question)]
    wall = snapshot.now.wall
    # As they will be once told what they are told now; a place given back in this pass is free in the next.
    told = {job.uid: job for job in after if job.status.assignment}
    running = [told.get(job.uid, job) for job in snapshot.jobs]
    entries = [
        Queued(job, backing_off_nodes(job, wall), job.uid not in snapshot.held, source_for(job, snapshot.sources))
        for job in queue
    ]
    return plan(
        entries,
        snapshot.nodes,
        snapshot.now,
        running=running,
        rules=preemption,
        most=most_binds,
        estimated=explained,
    )


def _joined(seen: JobView, first: StatusChange | None, then: StatusChange) -> StatusChange:
    """Both changes as one write over what was seen: a lost job is released and bound again by the same patch."""
    if first is None:
        return then
    what = then.what if then.status.assignment else first.what
    return replace(then, job=seen, what=what, notes=first.notes + then.notes, outcome=first.outcome)
