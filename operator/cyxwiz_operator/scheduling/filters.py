"""Which nodes can take a job: an ordered tuple of checks, each a column over all nodes with its reason and words.

A node is counted under the first check it fails. The first seven say "could never": nothing but new hardware, labels or
another job changes them. The others say "not now".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from cyxwiz_crds import size_text
from cyxwiz_operator.node_table import Mask, NodeTable
from cyxwiz_operator.views import Demand


@dataclass(frozen=True)
class Filter:
    """One check. `check` answers (N,) bool: True where the node passes."""

    reason: str
    check: Callable[[Demand, NodeTable], Mask]
    one: str
    """Words after "1", such as "is offline"; may use the fields of Demand."""
    many: str
    """Words after a larger number."""
    hint: str = ""
    """What the user can do, where no node passes."""

    def words(self, count: int, job: Demand) -> str:
        """4 have fewer than 8 GPUs"""
        text = self.one if count == 1 else self.many
        return f"{count} {text.format(**_words_of(job))}"


def job_type_is_taken(job: Demand, nodes: NodeTable) -> Mask:
    if not any(nodes.job_types):
        return np.ones(len(nodes), bool)
    return _each(nodes, [not types or job.job_type in types for types in nodes.job_types])


def labels_match(job: Demand, nodes: NodeTable) -> Mask:
    if not job.node_selector:
        return np.ones(len(nodes), bool)
    wanted = job.node_selector
    return _each(nodes, [all(labels.get(key) == value for key, value in wanted) for labels in nodes.labels])


def has_weights(job: Demand, nodes: NodeTable) -> Mask:
    if job.weights_node is None:
        return np.ones(len(nodes), bool)
    return _each(nodes, [name == job.weights_node for name in nodes.names])


def has_gpus(job: Demand, nodes: NodeTable) -> Mask:
    return (nodes.gpus >= job.gpus) | ~nodes.known


def has_gpu_memory(job: Demand, nodes: NodeTable) -> Mask:
    if job.gpus == 0 or job.gpu_memory_mib is None:
        return np.ones(len(nodes), bool)
    return ((nodes.gpu_total_mib >= job.gpu_memory_mib).sum(axis=1) >= job.gpus) | ~nodes.known


def has_cpus(job: Demand, nodes: NodeTable) -> Mask:
    return (nodes.cpus >= job.cpus) | ~nodes.known


def has_memory(job: Demand, nodes: NodeTable) -> Mask:
    return (nodes.memory_mib >= job.memory_mib) | ~nodes.known


def is_online(job: Demand, nodes: NodeTable) -> Mask:
    return nodes.online & nodes.known


def is_schedulable(job: Demand, nodes: NodeTable) -> Mask:
    return ~nodes.unschedulable


def is_not_backing_off(job: Demand, nodes: NodeTable) -> Mask:
    if not job.excluded:
        return np.ones(len(nodes), bool)
    return _each(nodes, [name not in job.excluded for name in nodes.names])


def has_job_slot(job: Demand, nodes: NodeTable) -> Mask:
    return nodes.jobs < nodes.max_jobs


def has_free_gpus(job: Demand, nodes: NodeTable) -> Mask:
    if job.gpus == 0:
        return np.ones(len(nodes), bool)
    if job.gpu_memory_mib is None:
        return nodes.idle_gpus >= job.gpus
    return free_devices(job, nodes).sum(axis=1) >= job.gpus


def gpus_are_given(job: Demand, nodes: NodeTable) -> Mask:
    """Kubernetes gives out whole GPUs, to an operator that was told how to ask."""
    if job.gpus == 0:
        return np.ones(len(nodes), bool)
    return ~(nodes.withheld if job.gpu_memory_mib is None else nodes.reserves)


def has_free_cpus(job: Demand, nodes: NodeTable) -> Mask:
    return nodes.free_cpus >= job.cpus


def has_free_memory(job: Demand, nodes: NodeTable) -> Mask:
    return nodes.free_memory_mib >= job.memory_mib


def free_devices(job: Demand, nodes: NodeTable) -> Mask:
    """(N, G) bool: devices the job could have now. A whole GPU must be untouched, a shared one have the memory.

    As the agent's admission has it: beside others a job is charged its CUDA context too, alone it may have all.
    """
    untouched = nodes.gpu_jobs == 0
    if job.gpu_memory_mib is None:
        return nodes.gpu_usable & untouched
    context_mib = np.where(untouched, 0, nodes.gpu_context_mib[:, np.newaxis])
    return nodes.gpu_usable & (nodes.gpu_free_mib >= job.gpu_memory_mib + context_mib)


COULD_NEVER = (
    Filter("JobType", job_type_is_taken, "does not take {job_type} jobs", "do not take {job_type} jobs"),
    Filter(
        "NodeSelector", labels_match, "lacks the labels {labels}", "lack the labels {labels}",
        hint="Compare nodeSelector with spec.labels of the ComputeNodes.",
    ),
    Filter(
        "WeightsElsewhere", has_weights,
        "lacks the weights, which are on {weights_node} alone", "lack the weights, which are on {weights_node} alone",
    ),
    Filter(
        "TooFewGPUs", has_gpus, "has fewer than {gpus}", "have fewer than {gpus}",
        hint="Set resources.gpus: 0 to train on the CPU.",
    ),
    Filter(
        "GPUMemoryTooSmall", has_gpu_memory,
        "has too few GPUs of {gpu_memory}", "have too few GPUs of {gpu_memory}",
        hint="Set a smaller resources.gpuMemory.",
    ),
    Filter(
        "TooFewCPUs", has_cpus, "has fewer than {cpus}", "have fewer than {cpus}", hint="Set a smaller resources.cpus."
    ),
    Filter(
        "TooLittleMemory", has_memory, "has less than {memory} of memory", "have less than {memory} of memory",
        hint="Set a smaller resources.memory.",
    ),
    Filter(
        "GPUMode", gpus_are_given, "is of another GPU mode than it needs", "are of another GPU mode than it needs",
        hint="docs/upgrade.md: a machine changes its GPU mode when its pod is replaced.",
    ),
)  # fmt: skip  # one check reads best as one block
NOT_NOW = (
    Filter("Offline", is_online, "is offline", "are offline"),  # the most telling first
    Filter("Unschedulable", is_schedulable, "is unschedulable", "are unschedulable"),
    Filter(
        "BackingOff",
        is_not_backing_off,
        "refused or lost it a short while ago",
        "refused or lost it a short while ago",
    ),
    Filter("TooManyJobs", has_job_slot, "runs its largest number of jobs", "run their largest number of jobs"),
    Filter("NoFreeGPU", has_free_gpus, "has fewer than {gpus} free", "have fewer than {gpus} free"),
    Filter("NoFreeCPU", has_free_cpus, "has fewer than {cpus} free", "have fewer than {cpus} free"),
    Filter("NoFreeMemory", has_free_memory, "has less than {memory} free", "have less than {memory} free"),
)
FILTERS = COULD_NEVER + NOT_NOW
FULL = NOT_NOW[3:]
"""Those that pass once others have left."""
NUMBER = {check.reason: number for number, check in enumerate(FILTERS)}
"""Reason to place in FILTERS."""
KEPT = Filter("Kept", is_schedulable, "is kept for a job before it", "are kept for jobs before it")
"""No check of a node, but what the queue says: see `reserving`."""

FITS = -1
_FIRST_FULL = NUMBER[FULL[0].reason]


@dataclass(frozen=True)
class Verdicts:
    """What the checks say of every node. Right again after a placement once `correct` was told of its node."""

    first_failed: npt.NDArray[np.int8]
    """(N,) place in FILTERS of the first check the node fails, FITS where every one passes."""
    counts: list[int]
    """Number of nodes for each of FILTERS."""

    @classmethod
    def unchecked(cls, nodes: int) -> Self:
        """Nothing speaks against any node yet."""
        return cls(np.full(nodes, FITS, np.int8), [0] * len(FILTERS))

    @property
    def fits(self) -> Mask:
        """(N,) True where every check passes."""
        return self.first_failed == FITS

    @property
    def fitting(self) -> int:
        """Number of nodes that can take the job."""
        return len(self.first_failed) - sum(self.counts)

    @property
    def never(self) -> bool:
        """No node could ever run the job."""
        return sum(self.counts[: len(COULD_NEVER)]) == len(self.first_failed)

    def refused(self) -> Iterator[tuple[Filter, Mask]]:
        """(check, the nodes that fail it first), in order, without empty ones."""
        for number, check in enumerate(FILTERS):
            if self.counts[number]:
                yield check, self.first_failed == number

    def full(self) -> list[int]:
        """Rows of nodes that only lack room."""
        return np.flatnonzero(self.first_failed >= _FIRST_FULL).tolist()

    def said(self) -> list[tuple[Filter, int]]:
        """(check, nodes that fail it first), in order, without empty ones."""
        if not any(self.counts):
            return []
        return [(check, count) for check, count in zip(FILTERS, self.counts, strict=True) if count]

    def correct(self, row: int, lacks: str | None) -> None:
        """The node has less room than before; `lacks` is the reason of the first of FULL it fails now."""
        before = self.first_failed.item(row)
        if before != FITS and before < _FIRST_FULL:
            return  # something else came first, and still does
        after = FITS if lacks is None else NUMBER[lacks]
        if before == after:
            return
        if before != FITS:
            self.counts[before] -= 1
        if after != FITS:
            self.counts[after] += 1
        self.first_failed[row] = after


def examine(job: Demand, nodes: NodeTable) -> Verdicts:
    """Every check on every node."""
    what = job._replace(excluded=frozenset(), checkpoint_node=None, data="")
    never = nodes.once(("could never", what), lambda: _checked(COULD_NEVER, job, nodes, Verdicts.unchecked(len(nodes))))
    return _checked(NOT_NOW, job, nodes, never)


def _checked(checks: Sequence[Filter], job: Demand, nodes: NodeTable, before: Verdicts) -> Verdicts:
    """The verdicts after these checks too, which follow those of `before`."""
    first_failed, counts = before.first_failed.copy(), list(before.counts)
    fits = first_failed == FITS
    for check in checks:
        failing = check.check(job, nodes)
        np.logical_not(failing, out=failing)
        failing &= fits
        failures = int(np.count_nonzero(failing))
        if failures:
            first_failed[failing] = NUMBER[check.reason]
            counts[NUMBER[check.reason]] = failures
            fits ^= failing
    return Verdicts(first_failed, counts)


def _each(nodes: NodeTable, answers: list[bool]) -> Mask:
    return np.array(answers, dtype=bool) if len(nodes) else np.zeros(0, bool)


def _words_of(job: Demand) -> dict[str, str]:
    return {
        "job_type": job.job_type,
        "labels": ", ".join(f"{key}={value}" for key, value in job.node_selector),
        "weights_node": job.weights_node or "",
        "gpus": _some_gpus(job),
        "gpu_memory": "" if job.gpu_memory_mib is None else size_text(job.gpu_memory_mib * 2**20),
        "cpus": f"{job.cpus} CPU{'s' if job.cpus != 1 else ''}",
        "memory": size_text(job.memory_mib * 2**20),
    }


def _some_gpus(job: Demand) -> str:
    text = f"{job.gpus} GPU{'s' if job.gpus != 1 else ''}"
    return text if job.gpu_memory_mib is None else f"{text} with {size_text(job.gpu_memory_mib * 2**20)}"
