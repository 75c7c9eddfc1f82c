"""How good a node is for a job: four parts from 0 to 1, weighed and summed, for all nodes at once.

What each part means, where it comes from, and a worked example: docs/design/scoring.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cyxwiz_operator.node_table import Floats, NodeTable
from cyxwiz_operator.uptime import WEEK_S
from cyxwiz_operator.views import Demand

WEIGHTS = {"reputation": 0.4, "availability": 0.3, "capability": 0.2, "uptime": 0.1}
CHECKPOINT_BONUS = 1.0
"""More than any difference of scores: going on from a checkpoint beats every better node."""

BEST_COMPUTE_CAPABILITY = 10.0
BEST_GPU_MEMORY_MIB = 80 * 1024
BEST_CPUS = 64
DEGRADED_FACTOR = 0.5


@dataclass(frozen=True)
class Standing:
    """(N,) columns of what no placement changes. `total` is their weighed sum."""

    reputation: Floats
    capability: Floats
    uptime: Floats
    total: Floats


@dataclass(frozen=True)
class Scores:
    """(N,) columns. Whoever corrects `availability`, which may be shared, corrects the totals with it."""

    standing: Standing
    availability: Floats
    bonus_row: int | None
    """The node that holds the job's checkpoint."""

    @property
    def total(self) -> Floats:
        """(N,) the weighed sums, and the bonus."""
        total = self.standing.total + WEIGHTS["availability"] * self.availability
        if self.bonus_row is not None:
            total[self.bonus_row] += CHECKPOINT_BONUS
        return total

    def total_of(self, row: int) -> float:
        """The same for one node, summed in the same order, so that equal nodes stay equal."""
        total = self.standing.total.item(row) + WEIGHTS["availability"] * self.availability.item(row)
        return total + CHECKPOINT_BONUS if row == self.bonus_row else total

    def words(self, row: int, name: str) -> str:
        """node-a 0.87 = reputation 0.36 + availability 0.30 + capability 0.15 + uptime 0.06"""
        standing = self.standing
        reputation = WEIGHTS["reputation"] * standing.reputation.item(row)
        availability = WEIGHTS["availability"] * self.availability.item(row)
        capability = WEIGHTS["capability"] * standing.capability.item(row)
        uptime = WEIGHTS["uptime"] * standing.uptime.item(row)
        checkpoint = f" + checkpoint {CHECKPOINT_BONUS:.2f}" if row == self.bonus_row else ""
        return (
            f"{name} {self.total_of(row):.2f} = reputation {reputation:.2f} + availability {availability:.2f}"
            f" + capability {capability:.2f} + uptime {uptime:.2f}{checkpoint}"
        )


def score(job: Demand, nodes: NodeTable, availability: Floats | None = None) -> Scores:
    """Every node's parts, whether it can take the job or not; `availability` where it is known already."""
    what = (job.gpus > 0, job.gpu_memory_mib, job.data if job.data in nodes.has_read else "")
    return Scores(
        standing=nodes.once(("score", what), lambda: _standing(job, nodes)),
        availability=availability_of(job.gpus > 0, nodes) if availability is None else availability,
        bonus_row=nodes.row_of(job.checkpoint_node),
    )


def availability_of(for_gpus: bool, nodes: NodeTable) -> Floats:
    """The free share of the scarcest resource that jobs of this kind need."""
    free = np.minimum(_share(nodes.free_cpus, nodes.cpus), _share(nodes.free_memory_mib, nodes.memory_mib))
    if for_gpus:
        usable_mib = np.where(nodes.gpu_usable, nodes.gpu_total_mib, 0).sum(axis=1)
        free_mib = np.where(nodes.gpu_usable, nodes.gpu_free_mib, 0).sum(axis=1)
        free = np.minimum(free, _share(free_mib, usable_mib))
    return free


def _standing(job: Demand, nodes: NodeTable) -> Standing:
    capability, uptime = _capability(job, nodes), nodes.online_seconds / WEEK_S
    total = WEIGHTS["reputation"] * nodes.reputation + WEIGHTS["capability"] * capability + WEIGHTS["uptime"] * uptime
    return Standing(nodes.reputation, capability, uptime, total)


def _capability(job: Demand, nodes: NodeTable) -> Floats:
    """0.4 for compute capability, 0.3 for the fit of memory, 0.2 for warm trainers, 0.1 for data read there before.

    For a CPU job cores and the absence of GPUs take the place of the first two.
    """
    has_read = nodes.has_read.get(job.data)
    ready = 0.2 * nodes.warm + (0.0 if has_read is None else 0.1 * has_read)
    if job.gpus == 0:
        return 0.4 * np.minimum(nodes.cpus / BEST_CPUS, 1.0) + 0.3 * (nodes.gpus == 0) + ready
    architecture = np.minimum(nodes.compute_capability / BEST_COMPUTE_CAPABILITY, 1.0)
    largest_mib = nodes.gpu_total_mib.max(axis=1, initial=0)
    if job.gpu_memory_mib is None:
        memory = np.minimum(largest_mib / BEST_GPU_MEMORY_MIB, 1.0)
    else:  # the smallest that is large enough: large ones stay for those who need them
        memory = np.minimum(job.gpu_memory_mib / np.maximum(largest_mib, 1), 1.0)
    healthy = np.where(nodes.gpu_degraded.any(axis=1), DEGRADED_FACTOR, 1.0)
    return healthy * (0.4 * architecture + 0.3 * memory + ready)


def _share(free: np.ndarray, total: np.ndarray) -> Floats:
    return np.clip(free, 0, None) / np.maximum(total, 1)
