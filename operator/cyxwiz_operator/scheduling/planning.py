"""Places for the queue, in order, each charged before the next is looked for: no herd, no over-commitment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cyxwiz_crds import Reason
from cyxwiz_operator.clock import Now, parse
from cyxwiz_operator.node_table import NodeTable, own_demand
from cyxwiz_operator.views import Demand, JobView

from .filters import Verdicts, examine, free_devices
from .scoring import Scores, score

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


@dataclass(frozen=True)
class Plan:
    """What becomes of the queue."""

    placements: tuple[Placement, ...]
    waiting: tuple[Waiting, ...]
    postponed: int
    """Jobs not looked at, because the pass has enough to do."""


def plan(queue: Sequence[tuple[JobView, frozenset[str]]], nodes: NodeTable, now: Now, *, most: int = 1_000_000) -> Plan:
    """At most `most` placements for `queue`, which is (job, nodes it stays away from) in order."""
    nodes = nodes.thawed()
    placements: list[Placement] = []
    waiting: list[Waiting] = []
    # Within a pass capacity only shrinks, so what was refused once is refused again.
    refused: dict[Demand, Verdicts] = {}
    for index, (job, excluded) in enumerate(queue):
        position = len(waiting) + 1
        retry_at = job.status.retry_at
        if retry_at is not None and parse(retry_at) > now.wall:
            waiting.append(Waiting(job, position, Reason.BACKING_OFF, _last_failure(job, retry_at)))
            continue
        demand = own_demand(job, excluded)
        verdicts = refused.get(demand)
        if verdicts is None:
            verdicts = examine(demand, nodes)
            if verdicts.fits.any():
                if len(placements) == most:
                    return Plan(tuple(placements), tuple(waiting), postponed=len(queue) - index)
                placements.append(_place(job, demand, verdicts, nodes))
                continue
            refused[demand] = verdicts
        reason, message = explain(demand, verdicts, nodes)
        waiting.append(Waiting(job, position, reason, message))
    return Plan(tuple(placements), tuple(waiting), postponed=0)


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


def _place(job: JobView, demand: Demand, verdicts: Verdicts, nodes: NodeTable) -> Placement:
    """The best node's place, charged."""
    scores = score(demand, nodes)
    best_first = _best_first(verdicts, scores)
    row = best_first[0]
    devices = _choose_devices(demand, nodes, row)
    found = Placement(
        job=job,
        node=nodes.names[row],
        gpus=tuple(nodes.gpu_uuids[row][device] for device in devices),
        candidates=tuple(scores.words(each, nodes.names[each]) for each in best_first[:CANDIDATES_TOLD]),
        rejected=f"{_counts(demand, verdicts)}, of {len(nodes)} nodes." if verdicts.refused else "",
    )
    nodes.charge(row, demand, devices)
    return found


def _best_first(verdicts: Verdicts, scores: Scores) -> list[int]:
    """Rows that fit, by falling score; rows are sorted by name, and a stable sort keeps that for ties."""
    rows = np.flatnonzero(verdicts.fits)
    # Rounded, so that a tie is a tie whatever the order of the sums.
    return [int(row) for row in rows[np.argsort(-np.round(scores.total[rows], 9), kind="stable")]]


def _choose_devices(job: Demand, nodes: NodeTable, row: int) -> list[int]:
    """Shared jobs fill the fullest devices that still have room, so that whole ones stay whole."""
    devices = np.flatnonzero(free_devices(job, nodes)[row])
    fullest_first = devices[np.argsort(nodes.gpu_free_mib[row, devices], kind="stable")]
    return [int(device) for device in fullest_first[: job.gpus]]


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


def _last_failure(job: JobView, retry_at: str) -> str:
    history = job.status.history
    last = f" Attempt {history[-1].attempt} ended as {history[-1].outcome}." if history else ""
    return f"Tried again after {retry_at}.{last}"
