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

from .filters import Verdicts, examine, free_devices
from .holding import Candidate, Estimate, estimate_of, estimates
from .reserving import DEFAULT_RULES, Eviction, PreemptionRules, Reservations
from .scoring import Scores, score
from .tenants import Tenant, tenants_of
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


class _Planner:
    """One walk through the queue. Within it capacity only shrinks, so what was refused once is refused again."""

    def __init__(self, nodes: NodeTable, now: Now, running: Iterable[JobView], rules: PreemptionRules) -> None:
        self._nodes = nodes.thawed()
        self._now = now
        self._tenants = tenants_of(running, nodes, now)
        self._kept = Reservations(self._tenants, rules, now)
        self._refused: dict[tuple[Demand, float], Verdicts] = {}
        self._placements: list[Placement] = []
        self._waiting: list[Waiting] = []
        self._candidates: list[Candidate] = []

    def plan(self, queue: Sequence[Queued], most: int, estimated: int) -> Plan:
        postponed = 0
        for index, entry in enumerate(queue):
            verdicts = self._examine(entry)
            if verdicts is not None and verdicts.fits.any():
                if len(self._placements) == most:
                    postponed = len(queue) - index
                    break
                placement = self._place(entry, verdicts)
                if entry.may_be_written:
                    self._placements.append(placement)
                continue
            waiting = self._wait(entry, verdicts, estimated)
            if entry.may_be_written:
                self._waiting.append(waiting)
        found = estimates(self._candidates, self._nodes, self._tenants, self._kept.by_row)
        told = (replace(each, estimate=found.get(each.job.uid, each.estimate)) for each in self._waiting)
        return Plan(tuple(self._placements), tuple(told), tuple(self._kept.evictions), postponed)

    def _examine(self, entry: Queued) -> Verdicts | None:
        """None for a job that waits for its retry."""
        retry_at = entry.job.status.retry_at
        if retry_at is not None and parse(retry_at) > self._now.wall:
            return None
        demand = own_demand(entry.job, entry.excluded)
        longest_run_s = longest_run_s_of(entry.job, self._now)
        known = self._refused.get((demand, longest_run_s))
        if known is not None:
            return known
        verdicts = examine(demand, self._nodes)
        kept = [row for row in self._kept.by_row if verdicts.fits[row]]
        kept = [row for row in kept if self._kept.forbids(row, demand, longest_run_s)]
        if kept:
            mask = np.zeros(len(self._nodes), bool)
            mask[kept] = True
            verdicts = verdicts.without(mask)
        if not verdicts.fits.any():
            self._refused[demand, longest_run_s] = verdicts
        return verdicts

    def _place(self, entry: Queued, verdicts: Verdicts) -> Placement:
        """The best node's place, charged."""
        nodes, demand = self._nodes, own_demand(entry.job, entry.excluded)
        scores = score(demand, nodes)
        best_first = _best_first(verdicts, scores)
        row = best_first[0]
        free = _fullest_first(demand, nodes, row)
        longest_run_s = longest_run_s_of(entry.job, self._now)
        devices = self._kept.devices(row, demand, free, longest_run_s)
        nodes.charge(row, demand, devices)
        self._tenants[row].append(
            Tenant(entry.job, row, demand, tuple(devices), longest_run_s, measured=False, ordered=False)
        )
        return Placement(
            job=entry.job,
            node=nodes.names[row],
            gpus=tuple(nodes.gpu_uuids[row][device] for device in devices),
            candidates=tuple(scores.words(each, nodes.names[each]) for each in best_first),
            rejected=f"{_counts(demand, verdicts)}, of {len(nodes)} nodes." if verdicts.refused else "",
        )

    def _wait(self, entry: Queued, verdicts: Verdicts | None, estimated: int) -> Waiting:
        job, position = entry.job, len(self._waiting) + 1
        if verdicts is None:
            return Waiting(job, position, Reason.BACKING_OFF, _last_failure(job))
        demand = own_demand(job, entry.excluded)
        reason, message = explain(demand, verdicts, self._nodes)
        full = [] if verdicts.never else verdicts.full()
        hold = self._kept.keep(job, demand, full, self._nodes)
        if hold is None:
            if position <= estimated:
                longest_run_s = longest_run_s_of(job, self._now)
                self._candidates.append(Candidate(job.uid, demand, longest_run_s, frozenset(full)))
            return Waiting(job, position, reason, message)
        node, why = self._nodes.names[hold.row], message
        if hold.leaving:
            reason = Reason.PREEMPTING
            plural = "s" if hold.leaving != 1 else ""
            message = f"Waits for {hold.leaving} job{plural} on {node} to leave. {message}"
        else:
            message = f"{message} The next place on {node} is kept for it."
        return Waiting(job, position, reason, message, node, estimate_of(hold), why)


def explain(job: Demand, verdicts: Verdicts, nodes: NodeTable) -> tuple[str, str]:
    """Reason and sentence for a job that no node can take now."""
    count = len(nodes)
    if count == 0:
        return Reason.NO_NODES, "No ComputeNode exists yet: is the agent running?"
    if verdicts.never:
        hints = " ".join(dict.fromkeys(check.hint for check, _ in verdicts.refused if check.hint))
        return Reason.NO_NODE_FITS, f"0/{count} nodes fit: {_counts(job, verdicts)}. {hints}".rstrip()
    if count <= NODES_NAMED:
        named = (
            f"{nodes.names[row]} {_one_node(check.reason, check.words(1, job), nodes, int(row))}"
            for check, failing in verdicts.refused
            for row in np.flatnonzero(failing)
        )
        return Reason.NO_NODE_FREE, f"0/{count} nodes have room: {', '.join(named)}."
    return Reason.NO_NODE_FREE, f"0/{count} nodes have room: {_counts(job, verdicts)}."


def _best_first(verdicts: Verdicts, scores: Scores) -> list[int]:
    """The best rows that fit, by falling score; rows are sorted by name, and a stable sort keeps that for ties."""
    rows = np.flatnonzero(verdicts.fits)
    # Rounded, so that a tie is a tie whatever the order of the sums.
    return rows[np.argsort(-np.round(scores.total[rows], 9), kind="stable")][:CANDIDATES_TOLD].tolist()


def _fullest_first(job: Demand, nodes: NodeTable, row: int) -> list[int]:
    """Shared jobs fill the fullest devices that still have room, so that whole ones stay whole."""
    if job.gpus == 0:
        return []
    devices = np.flatnonzero(free_devices(job, nodes)[row])
    return devices[np.argsort(nodes.gpu_free_mib[row, devices], kind="stable")].tolist()


def _counts(job: Demand, verdicts: Verdicts) -> str:
    return ", ".join(check.words(int(failing.sum()), job) for check, failing in verdicts.refused)


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


def _last_failure(job: JobView) -> str:
    history, retry_at = job.status.history, job.status.retry_at
    last = f" Attempt {history[-1].attempt} ended as {history[-1].outcome}." if history else ""
    return f"Tried again after {retry_at}.{last}"
