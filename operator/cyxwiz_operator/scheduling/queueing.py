"""The order in which jobs are offered a place: priority, then fair share between namespaces, then age."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple

from cyxwiz_operator.node_table import NodeTable
from cyxwiz_operator.views import JobView

_Age = tuple[str, str]


class Pool(NamedTuple):
    """All there is, as the measure of a namespace's share."""

    gpus: int
    cpus: int
    memory_mib: int


def pool_of(nodes: NodeTable) -> Pool:
    """What all nodes have together, online or not: a share must not jump because a node does."""
    return Pool(int(nodes.gpus.sum()), int(nodes.cpus.sum()), int(nodes.memory_mib.sum()))


def share_of(job: JobView, pool: Pool) -> float:
    """The job's dominant share: the largest part it takes of GPUs, CPUs or memory (Ghodsi et al., DRF, NSDI 2011)."""
    demand = job.demand
    return _share(demand.gpus, demand.cpus, demand.memory_mib, pool)


@lru_cache
def _share(gpus: int, cpus: int, memory_mib: int, pool: Pool) -> float:
    return max(gpus / max(1, pool.gpus), cpus / max(1, pool.cpus), memory_mib / max(1, pool.memory_mib))


def usage_of(jobs: Iterable[JobView], pool: Pool) -> dict[str, float]:
    """Namespace to the sum of shares of its jobs that hold a place."""
    usage: dict[str, float] = defaultdict(float)
    for job in jobs:
        if job.holds_capacity:
            usage[job.job.metadata.namespace] += share_of(job, pool)
    return usage


def together(*usages: Mapping[str, float]) -> dict[str, float]:
    """The sums by namespace. What it held over the past and what it holds now both count: without the latter a burst
    would be free for as long as the past needs to notice it."""
    total: Counter[str] = Counter()
    for usage in usages:
        total.update(usage)
    return dict(total)


def order(pending: Iterable[JobView], usage: Mapping[str, float], pool: Pool) -> list[JobView]:
    """The queue. Within one priority the namespace that has least goes next, and is charged for what it is given."""
    by_priority: dict[int, list[JobView]] = defaultdict(list)
    for job in pending:
        by_priority[job.job.spec.priority].append(job)
    taken = dict(usage)
    return [
        job for priority in sorted(by_priority, reverse=True) for job in _fairly(by_priority[priority], taken, pool)
    ]


def _fairly(jobs: Sequence[JobView], taken: dict[str, float], pool: Pool) -> Iterable[JobView]:
    """The jobs of one priority; `taken` grows as they are given out."""
    lines: dict[str, list[tuple[_Age, JobView]]] = defaultdict(list)
    for aged in sorted([(_age(job), job) for job in jobs], key=itemgetter(0), reverse=True):
        lines[aged[1].job.metadata.namespace].append(aged)  # the oldest is last, where pop() is cheap
    heap = [(taken.get(namespace, 0.0), line[-1][0], namespace) for namespace, line in lines.items()]
    heapq.heapify(heap)
    while heap:
        _, _, namespace = heap[0]
        line = lines[namespace]
        _, job = line.pop()
        taken[namespace] = taken.get(namespace, 0.0) + share_of(job, pool)
        if line:
            heapq.heapreplace(heap, (taken[namespace], line[-1][0], namespace))
        else:
            heapq.heappop(heap)
        yield job


def _age(job: JobView) -> _Age:
    # RFC 3339 in UTC sorts as text; the name breaks ties within a second, so that a second pass agrees.
    return (job.job.metadata.creation_timestamp or "", job.key)
