"""Places for the queue, in order, each charged before the next is looked for: no herd, no over-commitment.

A job that finds none may keep one (`reserving`); later jobs then pass only where they are not in its way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from cyxwiz_crds import Reason
from cyxwiz_operator.clock import Now, parse
from cyxwiz_operator.node_table import NodeTable, own_demand
from cyxwiz_operator.views import Demand, JobView
from cyxwiz_operator.weights import Missing, Ready, Source

from .filters import FITS, KEPT, Verdicts
from .holding import Candidate, Estimate, estimate_of, estimates
from .ranking import Ranking, Rankings
from .reserving import DEFAULT_RULES, Eviction, PreemptionRules, Reservations
from .tenants import Tenant, Tenants
from .tenants import longest_run_s as longest_run_s_of

CANDIDATES_TOLD = 5
NODES_NAMED = 3
"""Up to so many nodes a waiting job is told of each by name, beyond only counts."""


@dataclass(frozen=True)
class Placement:
    """A place found."""

    job: JobView
    node: str
    gpus: tuple[str, ...]
    """UUIDs."""
    candidates: tuple[str, ...]
    """The best nodes in words, best first."""
    rejected: str
    """The nodes that could not take it, in words; empty when all could."""
    weights: Ready | None = None
    """What it starts from, where that is another job's."""


@dataclass(frozen=True)
class Waiting:
    """No place found, and why."""

    job: JobView
    position: int
    reason: str
    message: str
    holds: str | None = None
    """The node that is kept for it."""
    estimate: Estimate | None = None
    why: str = ""
    """The message without what is done about it, where something is."""


@dataclass(frozen=True)
class Plan:
    """What becomes of the queue."""

    placements: tuple[Placement, ...]
    waiting: tuple[Waiting, ...]
    evictions: tuple[Eviction, ...]
    postponed: int
    """Jobs not looked at, because the pass has enough to do."""


class Queued(NamedTuple):
    """One job of the queue."""

    job: JobView
    excluded: frozenset[str]
    """Nodes it stays away from."""
    may_be_written: bool = True
    """False while a write to it is on its way: its place is kept, and not given to it."""
    source: Source | None = None
    """Of the weights it starts from, where those are another job's."""

    @property
    def demand(self) -> Demand:
        """What it asks of a node."""
        node = self.source.node if isinstance(self.source, Ready) else None
        return own_demand(self.job, self.excluded, node)


def plan(
    queue: Sequence[Queued],
    nodes: NodeTable,
    now: Now,
    *,
    running: Iterable[JobView] = (),
    rules: PreemptionRules = DEFAULT_RULES,
    most: int = 1_000_000,
    estimated: int = 100,
) -> Plan:
    """At most `most` placements for `queue`, and for the first `estimated` that wait the time they may start at.

    `running` are the jobs that hold the places which are taken off `nodes`.
    """
    return _Planner(nodes, now, running, rules).plan(queue, most, estimated)


class _Refusal(NamedTuple):
    """Why no node takes a demand: within a pass capacity only shrinks, so what was refused once is refused again."""

    reason: str
    message: str
    full: tuple[int, ...]
    """Rows of nodes that only lack room."""
    rows: frozenset[int]
    """The same."""


class _Planner:
    """One walk through the queue."""

    def __init__(self, nodes: NodeTable, now: Now, running: Iterable[JobView], rules: PreemptionRules) -> None:
        self._rankings = Rankings(nodes)
        self._nodes = self._rankings.nodes
        self._now = now
        self._tenants = Tenants(running, nodes, now)
        self._kept = Reservations(self._tenants, rules, now)
        self._refused: dict[tuple[Demand, float], _Refusal] = {}
        self._placements: list[Placement] = []
        self._waiting: list[Waiting] = []
        self._candidates: list[Candidate] = []

    def plan(self, queue: Sequence[Queued], most: int, estimated: int) -> Plan:
        postponed = 0
        for index, entry in enumerate(queue):
            job = entry.job
            if job.status.retry_at is not None and parse(job.status.retry_at) > self._now.wall:
                if entry.may_be_written:
                    self._waiting.append(self._backing_off(job))
                continue
            if isinstance(entry.source, Missing):
                if entry.may_be_written:
                    self._waiting.append(self._waiting_for_weights(job, entry.source))
                continue
            demand = entry.demand
            longest_run_s = longest_run_s_of(job, self._now)
            refusal = self._refused.get((demand, longest_run_s))
            if refusal is None:
                ranking = self._rankings.of(demand)
                kept = self._kept_from(ranking, longest_run_s)
                if ranking.verdicts.fitting > len(kept):
                    if len(self._placements) == most:
                        postponed = len(queue) - index
                        break
                    placement = self._place(job, ranking, kept, longest_run_s)
                    if isinstance(entry.source, Ready):
                        placement = replace(placement, weights=entry.source)
                    if entry.may_be_written:
                        self._placements.append(placement)
                    continue
                refusal = self._refused[demand, longest_run_s] = _refusal(ranking, self._nodes, len(kept))
            waiting = self._wait(job, demand, longest_run_s, refusal, estimated)
            if entry.may_be_written:
                self._waiting.append(waiting)
        found = estimates(self._candidates, self._nodes, self._tenants, self._kept.by_row)
        for position, each in enumerate(self._waiting[:estimated]):
            self._waiting[position] = replace(each, estimate=found.get(each.job.uid, each.estimate))
        return Plan(tuple(self._placements), tuple(self._waiting), tuple(self._kept.evictions), postponed)

    def _kept_from(self, ranking: Ranking, longest_run_s: float) -> frozenset[int]:
        """Rows of nodes that fit and are kept for a job that this one would delay."""
        if not self._kept.by_row:
            return frozenset()
        first_failed = ranking.verdicts.first_failed
        fitting = (row for row in self._kept.by_row if first_failed[row] == FITS)
        return frozenset(
            row
            for row in fitting
            if self._kept.forbids(row, ranking.demand, self._free(row, ranking.demand), longest_run_s)
        )

    def _free(self, row: int, demand: Demand) -> list[int]:
        """Devices of the node that the job could have now."""
        return self._rankings.room(row).devices_for(demand) if demand.gpus else []

    def _place(self, job: JobView, ranking: Ranking, kept: frozenset[int], longest_run_s: float) -> Placement:
        """The best node's place, charged."""
        nodes, demand = self._nodes, ranking.demand
        best_first = ranking.best_first(CANDIDATES_TOLD, kept)
        row = best_first[0]
        candidates = tuple([ranking.words(each) for each in best_first])
        rejected = _counts(demand, ranking.verdicts, len(kept))
        devices = self._kept.devices(row, demand, self._free(row, demand), longest_run_s)
        self._rankings.charge(row, demand, devices)
        self._tenants.add(Tenant(job, row, demand, tuple(devices), longest_run_s, measured=False, ordered=False))
        return Placement(
            job=job,
            node=nodes.names[row],
            gpus=tuple([nodes.gpu_uuids[row][device] for device in devices]),
            candidates=candidates,
            rejected=f"{rejected}, of {len(nodes)} nodes." if rejected else "",
        )

    def _backing_off(self, job: JobView) -> Waiting:
        message = f"Will be tried again after {job.status.retry_at}."
        return Waiting(job, len(self._waiting) + 1, Reason.BACKING_OFF, message)

    def _waiting_for_weights(self, job: JobView, source: Missing) -> Waiting:
        return Waiting(job, len(self._waiting) + 1, Reason.WAITING_FOR_WEIGHTS, source.message)

    def _wait(self, job: JobView, demand: Demand, longest_run_s: float, refusal: _Refusal, estimated: int) -> Waiting:
        position = len(self._waiting) + 1
        hold = self._kept.keep(job, demand, refusal.full, self._nodes)
        if hold is None:
            if position <= estimated:
                self._candidates.append(Candidate(job.uid, demand, longest_run_s, refusal.rows))
            return Waiting(job, position, refusal.reason, refusal.message)
        node, why = self._nodes.names[hold.row], refusal.message
        if hold.leaving:
            plural = "s" if hold.leaving != 1 else ""
            message = f"Waits for {hold.leaving} job{plural} on {node} to leave. {why}"
            return Waiting(job, position, Reason.PREEMPTING, message, node, estimate_of(hold), why)
        message = f"{why} The next place on {node} is kept for it."
        return Waiting(job, position, refusal.reason, message, node, estimate_of(hold), why)


def _refusal(ranking: Ranking, nodes: NodeTable, kept: int) -> _Refusal:
    verdicts = ranking.verdicts
    reason, message = explain(ranking.demand, verdicts, nodes, kept)
    full = [] if verdicts.never else verdicts.full()
    return _Refusal(reason, message, tuple(full), frozenset(full))


def explain(job: Demand, verdicts: Verdicts, nodes: NodeTable, kept: int = 0) -> tuple[str, str]:
    """Reason and sentence for a job that no node can take now; `kept` nodes could, and are kept for others."""
    count = len(nodes)
    if count == 0:
        return Reason.NO_NODES, "No ComputeNode exists yet: is the agent running?"
    if verdicts.never:
        hints = " ".join(dict.fromkeys(check.hint for check, _ in verdicts.said() if check.hint))
        return Reason.NO_NODE_FITS, f"0/{count} nodes fit: {_counts(job, verdicts)}. {hints}".rstrip()
    if count <= NODES_NAMED:
        refused = [*verdicts.refused(), *([(KEPT, verdicts.fits)] if kept else [])]
        named = (
            f"{nodes.names[row]} {_one_node(check.reason, check.words(1, job), nodes, int(row))}"
            for check, failing in refused
            for row in np.flatnonzero(failing)
        )
        return Reason.NO_NODE_FREE, f"0/{count} nodes have room: {', '.join(named)}."
    return Reason.NO_NODE_FREE, f"0/{count} nodes have room: {_counts(job, verdicts, kept)}."


def _counts(job: Demand, verdicts: Verdicts, kept: int = 0) -> str:
    """2 are offline, 1 has fewer than 4 CPUs free; empty when every node can take it."""
    said = [*verdicts.said(), *([(KEPT, kept)] if kept else [])]
    return ", ".join([check.words(count, job) for check, count in said])


def _one_node(reason: str, words: str, nodes: NodeTable, row: int) -> str:
    jobs = int(nodes.jobs[row])
    by = f"by {jobs} job{'s' if jobs != 1 else ''}"
    match reason:
        case "NoFreeCPU":
            return f"full ({nodes.cpus[row] - nodes.free_cpus[row]} of {nodes.cpus[row]} CPUs used {by})"
        case "NoFreeGPU":
            used = int((nodes.gpu_jobs[row] > 0).sum())
            return f"full ({used} of {nodes.gpus[row]} GPUs used {by})"
        case "NoFreeMemory":
            return (
                f"full ({nodes.memory_mib[row] - nodes.free_memory_mib[row]} of {nodes.memory_mib[row]} MiB used {by})"
            )
        case _:
            return words.removeprefix("1 ")
