"""What the operator knows of one job and one node: the parsed objects, and the few numbers that placement asks for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from functools import cached_property
from typing import NamedTuple, TypeVar

from cyxwiz_crds import (
    ENDED_STATES,
    FINAL_PHASES,
    ComputeNode,
    ConditionType,
    Phase,
    TrainingJob,
    TrainingJobStatus,
)
from cyxwiz_crds.compute_node import Gpu, Outcome, Span

from .clock import seconds_since
from .speeds import Speeds, speeds_of

T = TypeVar("T")
_MIB = 2**20
_LONGEST_DATA = 64


class Liveness(Enum):
    """What the operator has itself observed of a node's Lease (`leases`)."""

    ONLINE = "Online"
    """Seen renewed within E, or renewed so recently by the wall clock that it may be used."""
    UNSURE = "Unsure"
    """Silent, but not for E yet."""
    EXPIRED = "Expired"
    """Silent for E or longer, and not fenced: its jobs may still compute."""
    FENCED = "Fenced"
    """Nobody holds its Lease: nothing bound to it before computes any more."""


class Demand(NamedTuple):
    """What a job asks of a node. Equal demands get equal answers, so they are worked out once per pass."""

    gpus: int
    gpu_memory_mib: int | None
    """Per GPU; None means whole GPUs."""
    cpus: int
    memory_mib: int
    job_type: str
    node_selector: tuple[tuple[str, str], ...]
    excluded: frozenset[str]
    """Nodes that refused or failed this job a short while ago."""
    checkpoint_node: str | None
    """The node whose disk holds the job's newest checkpoint."""
    data: str = ""
    """The data set, as `data_of` names it."""
    weights_node: str | None = None
    """The only node that has the weights it starts from."""


@dataclass(frozen=True)
class JobView:
    """One TrainingJob as last seen, or as it will be once a write of ours is seen back."""

    job: TrainingJob

    # Cached: a pass over thousands of jobs asks for these dozens of times each.
    @cached_property
    def uid(self) -> str:
        return self.job.metadata.uid

    @property
    def key(self) -> str:
        """namespace/name."""
        return f"{self.job.metadata.namespace}/{self.job.metadata.name}"

    @cached_property
    def status(self) -> TrainingJobStatus:
        return self.job.status

    @property
    def attempt(self) -> int:
        """Number of bindings so far."""
        return self.job.status.attempt or 0

    @cached_property
    def is_final(self) -> bool:
        return self.status.phase in FINAL_PHASES

    @cached_property
    def is_wanted(self) -> bool:
        """True while its owner wants it to run."""
        spec = self.job.spec
        return not (self.is_final or spec.cancel or spec.suspend or self.job.metadata.deletion_timestamp)

    @cached_property
    def is_pending(self) -> bool:
        """True when nothing but a place is missing."""
        return self.is_wanted and self.status.assignment is None and not self.job.spec.dry_run

    @cached_property
    def is_question(self) -> bool:
        """True for a dry run that was not answered yet."""
        return self.is_wanted and self.job.spec.dry_run

    @cached_property
    def holds_capacity(self) -> bool:
        """True from the binding until its processes are gone."""
        execution = self.status.execution
        if self.status.assignment is None or self.is_final:
            return False
        return execution is None or execution.state not in ENDED_STATES

    def active_s(self, wall: datetime) -> float | None:
        """Seconds since its first start, without those it was suspended; None before that start."""
        since_start_s = seconds_since(self.status.first_started_at, wall)
        return None if since_start_s is None else since_start_s - self.suspended_s(wall)

    def suspended_s(self, wall: datetime) -> float:
        """Seconds it was suspended so far, a suspension that goes on included."""
        total_s = float(self.status.suspended_seconds or 0)
        if self.status.phase == Phase.SUSPENDED:
            began = (each for each in self.status.conditions if each.type == ConditionType.SUSPENDED)
            total_s += max(0.0, seconds_since(next((each.last_transition_time for each in began), None), wall) or 0.0)
        return total_s

    @cached_property
    def memory_mib(self) -> int:
        """Host memory, rounded up."""
        return -(-self.job.spec.resources.memory_bytes // _MIB)

    @cached_property
    def gpu_memory_mib(self) -> int | None:
        """Memory per GPU, rounded up; None means whole GPUs."""
        size = self.job.spec.resources.gpu_memory_bytes
        return None if size is None else -(-size // _MIB)

    @cached_property
    def demand(self) -> Demand:
        """What it asks of a node, whatever refused it before."""
        spec = self.job.spec
        return Demand(
            gpus=spec.resources.gpus,
            gpu_memory_mib=self.gpu_memory_mib,
            cpus=spec.resources.cpus,
            memory_mib=self.memory_mib,
            job_type=spec.job_type,
            node_selector=tuple(sorted(spec.node_selector.items())),
            excluded=frozenset(),
            checkpoint_node=self.checkpoint_node,
            data=data_of(spec.dataset.uri),
        )

    @property
    def checkpoint_node(self) -> str | None:
        """The node whose disk holds the newest checkpoint, from `node://<node>/...`."""
        source = self.status.restore_from
        if source is None or not source.uri.startswith("node://"):
            return None
        return source.uri.removeprefix("node://").partition("/")[0]

    def once(self, key: Hashable, work_out: Callable[[JobView], T]) -> T:
        """What `work_out` answers of this view, which never changes."""
        kept: dict[Hashable, T] = self.__dict__.setdefault("_kept", {})
        if key not in kept:
            kept[key] = work_out(self)
        return kept[key]

    def with_status(self, status: TrainingJobStatus) -> JobView:
        """The same job with another status."""
        return replace(self, job=self.job.model_copy(update={"status": status}))

    def as_written(self, status: TrainingJobStatus, version: str) -> JobView:
        """The same job once the API server has taken that status."""
        metadata = self.job.metadata.model_copy(update={"resource_version": version})
        return replace(self, job=self.job.model_copy(update={"metadata": metadata, "status": status}))


@dataclass(frozen=True)
class Machine:
    """What the Kubernetes Node of a ComputeNode says about who may run there."""

    name: str
    cordoned: bool = False
    cordon_drains: bool = False
    """Jobs leave a cordoned node, unless its ComputeNode says otherwise."""
    no_schedule: tuple[str, ...] = ()
    """Keys of the taints that keep new work away and that jobs do not tolerate."""
    no_execute: tuple[str, ...] = ()
    """Keys of those that send running work away as well."""


@dataclass(frozen=True)
class NodeView:
    """One ComputeNode as last seen, with its Kubernetes Node where one is known."""

    node: ComputeNode
    machine: Machine | None = None

    @cached_property
    def draining_because(self) -> str | None:
        """Why its jobs are to leave, in words; None when they may stay."""
        if self.node.spec.drain:
            return "spec.drain is true"
        if self.machine and self.machine.no_execute:
            return f"its Kubernetes node has the NoExecute taint {self.machine.no_execute[0]}"
        if self.machine and self.machine.cordoned:
            own = self.node.spec.cordon_drains
            if self.machine.cordon_drains if own is None else own:
                return "its Kubernetes node is cordoned and cordonDrains is true"
        return None

    @cached_property
    def closed_because(self) -> str | None:
        """Why it takes no new jobs, in words; None when it does."""
        if self.node.spec.unschedulable:
            return "spec.unschedulable is true"
        if self.machine and self.machine.cordoned:
            return "its Kubernetes node is cordoned"
        if self.machine and self.machine.no_schedule:
            return f"its Kubernetes node has the taint {self.machine.no_schedule[0]}"
        return self.draining_because

    @cached_property
    def name(self) -> str:
        return self.node.metadata.name

    @property
    def gpus(self) -> Sequence[Gpu]:
        inventory = self.node.status.inventory
        return inventory.gpus if inventory else ()

    @property
    def cpus(self) -> int:
        inventory = self.node.status.inventory
        return inventory.cpus if inventory else 0

    @property
    def memory_mib(self) -> int:
        inventory = self.node.status.inventory
        return inventory.memory_mi_b if inventory else 0

    @property
    def gpu_context_mib(self) -> int:
        """Charged to each job that shares a GPU, besides its `gpuMemory`."""
        inventory = self.node.status.inventory
        return (inventory.gpu_context_mi_b or 0) if inventory else 0

    @property
    def reserves(self) -> bool:
        """Its agent starts jobs on GPUs that Kubernetes has given to a pod of theirs, and on no others."""
        inventory = self.node.status.inventory
        return inventory is not None and inventory.gpu_mode == "reserve"

    @cached_property
    def labels(self) -> Mapping[str, str]:
        """The Kubernetes node's, overruled by the administrator's."""
        inventory = self.node.status.inventory
        return {**(inventory.labels if inventory else {}), **self.node.spec.labels}

    @property
    def max_jobs(self) -> int | None:
        """The smaller of the administrator's and the agent's bound."""
        inventory = self.node.status.inventory
        bounds = (self.node.spec.max_concurrent_jobs, inventory.max_concurrent_jobs if inventory else None)
        return min((bound for bound in bounds if bound is not None), default=None)

    @cached_property
    def compute_capability(self) -> float:
        """Of its best GPU, such as 9.0; 0 without one."""
        return max((_number(gpu.compute_capability) for gpu in self.gpus), default=0.0)

    @property
    def outcomes(self) -> Sequence[Outcome]:
        reputation = self.node.status.reputation
        return reputation.outcomes if reputation else ()

    @cached_property
    def speeds(self) -> Speeds:
        """What it has shown of workloads that had its devices for themselves."""
        return speeds_of(self.outcomes)

    @property
    def data(self) -> frozenset[str]:
        """Data sets that its newest jobs have read there."""
        return frozenset(each.measured.data for each in self.outcomes if each.measured and each.measured.data)

    @property
    def warm(self) -> bool:
        """It keeps trainers ready."""
        inventory = self.node.status.inventory
        return inventory is not None and inventory.warm_trainers

    @property
    def earlier_online(self) -> Sequence[Span]:
        return self.node.status.earlier_online

    @property
    def online_since(self) -> str | None:
        return self.node.status.online_since


@dataclass(frozen=True)
class Unreadable:
    """A TrainingJob whose content this version cannot read."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    status: dict[str, object]
    """As it came."""
    problem: str
    """A sentence that names the field."""


def data_of(uri: str) -> str:
    """The uri, or its beginning and a digest: short enough for a status."""
    return uri if len(uri) <= _LONGEST_DATA else f"{uri[:48]}-{hashlib.sha256(uri.encode()).hexdigest()[:12]}"


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:  # a driver of the future may say it in words
        return 0.0
