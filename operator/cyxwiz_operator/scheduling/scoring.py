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
class Scores:
    """(N,) columns. `total` holds the weighed sum and the bonus."""

    reputation: Floats
    availability: Floats
    capability: Floats
    uptime: Floats
    bonus: Floats
    total: Floats

    def words(self, row: int, name: str) -> str:
        """node-a 0.87 = reputation 0.36 + availability 0.30 + capability 0.15 + uptime 0.06"""
        parts = [f"{part} {weight * getattr(self, part)[row]:.2f}" for part, weight in WEIGHTS.items()]
        if self.bonus[row]:
            parts.append(f"checkpoint {self.bonus[row]:.2f}")
        return f"{name} {self.total[row]:.2f} = {' + '.join(parts)}"

    def correct(self, row: int, availability: float) -> None:
        """The node has so much less free; summed in the order of `score`, so that equal nodes stay equal."""
        self.availability[row] = availability
        total = float(self.bonus[row])
        for part, weight in WEIGHTS.items():
            total += weight * float(getattr(self, part)[row])
        self.total[row] = total


def score(job: Demand, nodes: NodeTable) -> Scores:
    """Every node's parts, whether it can take the job or not."""
    parts = {
        "reputation": nodes.reputation,
        "availability": _availability(job, nodes),
        "capability": _capability(job, nodes),
        "uptime": nodes.online_seconds / WEEK_S,
    }
    bonus = np.zeros(len(nodes), np.float64)
    if job.checkpoint_node in nodes.names:
        bonus[nodes.names.index(job.checkpoint_node)] = CHECKPOINT_BONUS
    total = sum((WEIGHTS[name] * part for name, part in parts.items()), start=bonus)
    return Scores(**parts, bonus=bonus, total=total)


def _availability(job: Demand, nodes: NodeTable) -> Floats:
    """The free share of the scarcest resource the job needs."""
    free = np.minimum(_share(nodes.free_cpus, nodes.cpus), _share(nodes.free_memory_mib, nodes.memory_mib))
    if job.gpus:
        usable_mib = np.where(nodes.gpu_usable, nodes.gpu_total_mib, 0).sum(axis=1)
        free_mib = np.where(nodes.gpu_usable, nodes.gpu_free_mib, 0).sum(axis=1)
        free = np.minimum(free, _share(free_mib, usable_mib))
    return free


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
