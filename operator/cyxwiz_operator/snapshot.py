"""One consistent picture of the cluster, taken at the start of a pass; every decision of the pass rests on it alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from .clock import Now
from .ledger import Ledger
from .node_table import Columns, NodeTable, node_table
from .reservation_pods import Reservation
from .views import JobView, Liveness, NodeView
from .weights import Key, Source


class Observer(Protocol):
    """Whoever knows which nodes are alive (`leases.LeaseBook`)."""

    def liveness(self, name: str, now: Now) -> Liveness: ...


@dataclass(frozen=True)
class ClusterSnapshot:
    """What is true, as far as the operator can know."""

    now: Now
    jobs: tuple[JobView, ...]
    """Unfinished jobs; a write of ours that was not seen back yet counts as seen."""
    held: frozenset[str]
    """uids of jobs not to be written: a write is on its way back, or was just refused."""
    awaited: frozenset[str]
    """Those of them that were written."""
    nodes: NodeTable
    """Every ComputeNode, with what the jobs hold taken off."""
    views: Mapping[str, NodeView]
    """The same nodes as objects, by name."""
    usage: Mapping[str, float]
    """Namespace to its share of the pool over the past (`scheduling.usage`)."""
    liveness: Mapping[str, Liveness]
    """Of every node that exists or that a job is assigned to."""
    sources: Mapping[Key, Source]
    """What is known of the jobs that others start from."""
    reservations: Mapping[str, Reservation]
    """What is known of the pods that reserve GPUs, by assignment."""

    def liveness_for(self, job: JobView) -> Liveness:
        """That of the job's node; UNSURE for a job without one."""
        assignment = job.status.assignment
        return Liveness.UNSURE if assignment is None else self.liveness[assignment.node]


def take_snapshot(
    seen: Mapping[str, JobView],
    nodes: Mapping[str, NodeView],
    ledger: Ledger,
    leases: Observer,
    columns: Columns,
    now: Now,
    usage: Mapping[str, float] | None = None,
    sources: Mapping[Key, Source] | None = None,
    reservations: Mapping[str, Reservation] | None = None,
) -> ClusterSnapshot:
    """The picture at `now`; entries of the ledger that `seen` has caught up with are forgotten."""
    ledger.settle(seen, now.boot)
    jobs = tuple(ledger.view_of(job) for job in seen.values())
    names = nodes.keys() | {job.status.assignment.node for job in jobs if job.status.assignment}
    liveness = {name: leases.liveness(name, now) for name in names}
    return ClusterSnapshot(
        now=now,
        jobs=jobs,
        held=frozenset(job.uid for job in jobs if ledger.holds(job)),
        awaited=frozenset(job.uid for job in jobs if ledger.awaits(job)),
        nodes=node_table(columns.of(nodes.values(), now.wall), jobs, liveness),
        views=dict(nodes),
        usage=usage or {},
        liveness=liveness,
        sources=sources or {},
        reservations=dict(reservations or {}),
    )
