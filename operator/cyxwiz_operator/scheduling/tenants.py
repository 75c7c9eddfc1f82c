"""Jobs that hold a place, and when they will give it back."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from cyxwiz_crds import Intent, State
from cyxwiz_operator.clock import Now, seconds_since
from cyxwiz_operator.node_table import NodeTable, own_demand
from cyxwiz_operator.views import Demand, JobView

UNKNOWN_S = math.inf
YIELD_GRACE_S = 30
"""A job has so long to save a checkpoint and leave."""
LATE_S = 30.0
"""A job that was told to leave is waited for so much longer than its grace; then its place is not counted on."""


@dataclass(frozen=True)
class Tenant:
    """One job on one node."""

    job: JobView
    row: int
    demand: Demand
    devices: tuple[int, ...]
    leaves_in_s: float
    """UNKNOWN_S when nobody knows."""
    measured: bool
    """By its own progress or by order; else the bound that its deadline sets."""
    ordered: bool
    """It was told to leave, and is not late."""

    @property
    def priority(self) -> int:
        return self.job.job.spec.priority

    @property
    def may_be_told(self) -> bool:
        """Nobody has told it to leave yet."""
        assignment = self.job.status.assignment
        return assignment is not None and assignment.intent == Intent.RUN

    def runs_for_s(self, now: Now) -> float:
        """Seconds since its trainer was started; less than zero while it was not."""
        execution = self.job.status.execution
        if execution is None or execution.state != State.RUNNING:
            return -1.0
        return seconds_since(execution.started_at, now.wall) or 0.0

    def lost_work(self) -> float:
        """Device seconds since its last checkpoint: what is gone if it cannot save another in time."""
        return unsaved_training_s(self.job) * max(self.demand.gpus, 1)


def unsaved_training_s(job: JobView) -> float:
    """Seconds of training since the job's last checkpoint, or since this attempt began."""
    execution = job.status.execution
    progress = execution.progress if execution else None
    if progress is None or not progress.elapsed_seconds or not progress.step:
        return 0.0
    return progress.elapsed_seconds * unsaved_share(job)


def unsaved_share(job: JobView) -> float:
    """Share of this attempt's steps that no checkpoint holds, 0 to 1; all of it while it has told of none."""
    execution, assignment = job.status.execution, job.status.assignment
    progress = execution.progress if execution else None
    if execution is None or progress is None or not progress.step:
        return 1.0
    began = assignment.restore_from.step if assignment and assignment.restore_from else 0
    saved = max(began, execution.checkpoint.step if execution.checkpoint else 0)
    return min(1.0, max(0.0, (progress.step - saved) / max(1, progress.step - began)))


class Tenants(Mapping[int, list[Tenant]]):
    """Row to the jobs that hold a place there, worked out when that is first asked: while every job finds a place
    nobody does."""

    def __init__(self, jobs: Iterable[JobView], nodes: NodeTable, now: Now) -> None:
        self._jobs, self._nodes, self._now = jobs, nodes, now
        self._added: list[Tenant] = []

    def add(self, tenant: Tenant) -> None:
        """One more."""
        if "_by_row" in self.__dict__:
            self._by_row[tenant.row].append(tenant)
        else:
            self._added.append(tenant)

    def __getitem__(self, row: int) -> list[Tenant]:
        if row not in self._by_row:
            raise KeyError(row)
        return self._by_row[row]

    def __iter__(self) -> Iterator[int]:
        return iter(self._by_row)

    def __len__(self) -> int:
        return len(self._by_row)

    @cached_property
    def _by_row(self) -> defaultdict[int, list[Tenant]]:
        found = tenants_of(self._jobs, self._nodes, self._now)
        for tenant in self._added:
            found[tenant.row].append(tenant)
        return found


def tenants_of(jobs: Iterable[JobView], nodes: NodeTable, now: Now) -> defaultdict[int, list[Tenant]]:
    """Row to the jobs that hold a place there."""
    rows = nodes.rows
    found: dict[int, list[Tenant]] = defaultdict(list)
    for job in jobs:
        assignment = job.status.assignment
        if assignment is None or not job.holds_capacity or assignment.node not in rows:
            continue
        row = rows[assignment.node]
        uuids = nodes.gpu_uuids[row]
        devices = tuple(uuids.index(uuid) for uuid in assignment.gpus if uuid in uuids)
        leaves_in_s, measured, ordered = _leaving(job, now)
        found[row].append(Tenant(job, row, own_demand(job), devices, leaves_in_s, measured, ordered))
    return found


def longest_run_s(job: JobView, now: Now) -> float:
    """How long the job can hold a place at most: what is left of its activeDeadlineSeconds."""
    limit_s = job.job.spec.active_deadline_seconds
    if limit_s is None:
        return UNKNOWN_S
    return max(0.0, limit_s - (job.active_s(now.wall) or 0.0)) + LATE_S


def _leaving(job: JobView, now: Now) -> tuple[float, bool, bool]:
    """(seconds, measured, ordered)"""
    assignment, execution = job.status.assignment, job.status.execution
    if assignment is not None and assignment.intent != Intent.RUN:
        waited_s = seconds_since(assignment.ordered_at, now.wall) or 0.0
        left_s = (assignment.grace_seconds or 0) - waited_s
        return (max(0.0, left_s), True, True) if left_s > -LATE_S else (UNKNOWN_S, False, False)
    progress = execution.progress if execution else None
    limit_s = longest_run_s(job, now)
    if progress is not None and progress.remaining_seconds is not None:
        remaining_s = float(progress.remaining_seconds)
        return min(remaining_s, limit_s), remaining_s <= limit_s, False
    return limit_s, False, False
