"""All nodes as columns: one numpy array per fact, one row per node, so that a check is one expression.

`N` is the number of nodes, `G` the largest number of GPUs of one node; rows of smaller nodes are padded with devices
that are not usable.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from .reputation import NO_SPEEDS, is_on_probation, score_of
from .speeds import Speeds, typical_speeds
from .uptime import online_s
from .views import Demand, JobView, Liveness, NodeView

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

T = TypeVar("T")
UNBOUNDED_JOBS = 2**31
MOST_KEPT = 1024
"""40 KB each for 5,000 nodes."""
_NAME = attrgetter("name")
_FRESH = timedelta(minutes=1)
_USABLE_HEALTH = frozenset({"Healthy", "Degraded", "Unmonitored"})


@dataclass(frozen=True)
class NodeTable:
    """Every node, sorted by name. The first columns stand still; the last ones shrink as jobs are placed."""

    names: tuple[str, ...]
    labels: tuple[Mapping[str, str], ...]
    job_types: tuple[frozenset[str], ...]
    """Empty means all."""
    gpu_uuids: tuple[tuple[str, ...], ...]
    known: Mask
    """(N,) the agent has told what the node has."""
    online: Mask
    """(N,) its Lease is being renewed."""
    unschedulable: Mask
    """(N,) an administrator keeps new jobs away, here or on the Kubernetes Node."""
    max_jobs: Ints
    """(N,)"""
    cpus: Ints
    """(N,)"""
    memory_mib: Ints
    """(N,)"""
    gpus: Ints
    """(N,) devices, healthy or not."""
    gpu_usable: Mask
    """(N, G) the device exists and its health allows jobs."""
    gpu_degraded: Mask
    """(N, G)"""
    gpu_total_mib: Ints
    """(N, G) 0 where there is no device."""
    gpu_context_mib: Ints
    """(N,) charged to each job that shares a GPU, besides its `gpuMemory`."""
    reserves: Mask
    """(N,) its GPUs are had whole, and through Kubernetes."""
    withheld: Mask
    """(N,) the same, where this operator was not told how to ask Kubernetes."""
    compute_capability: Floats
    """(N,) of its best GPU, 0 without one."""
    reputation: Floats
    """(N,) 0 to 1."""
    online_seconds: Floats
    """(N,) within the last week."""
    warm: Mask
    """(N,) it keeps trainers ready."""
    has_read: Mapping[str, Mask]
    """Data set to (N,): its newest jobs have read it there. A data set that is missing nobody has read."""

    jobs: Ints
    """(N,) jobs that hold capacity."""
    free_cpus: Ints
    """(N,)"""
    free_memory_mib: Ints
    """(N,)"""
    gpu_free_mib: Ints
    """(N, G) memory not given to any job; below 0 where a job alone has all of it and its context comes on top."""
    gpu_jobs: Ints
    """(N, G) jobs on the device."""
    idle_gpus: Ints
    """(N,) usable devices without a job."""

    kept: dict[Hashable, Any] = field(default_factory=dict)
    """What was worked out from the columns that stand still, for as long as they do."""

    def once(self, key: Hashable, work_out: Callable[[], T]) -> T:
        """What `work_out` answers, which must rest on `key` and on columns that stand still alone."""
        if key not in self.kept:
            if len(self.kept) >= MOST_KEPT:
                self.kept.clear()
            self.kept[key] = work_out()
        return self.kept[key]

    @property
    def rows(self) -> Mapping[str, int]:
        """Name to row."""
        return self.once("rows", lambda: {name: row for row, name in enumerate(self.names)})

    def row_of(self, name: str | None) -> int | None:
        """The row of a node; None where there is no node of that name."""
        return None if name is None else self.rows.get(name)

    def __len__(self) -> int:
        return len(self.names)

    def thawed(self) -> NodeTable:
        """A copy whose columns that shrink may be charged."""
        names = ("jobs", "free_cpus", "free_memory_mib", "gpu_free_mib", "gpu_jobs", "idle_gpus")
        return replace(self, **{name: getattr(self, name).copy() for name in names})

    def frozen(self) -> NodeTable:
        """The same table; numpy refuses to change it."""
        for each in fields(self):
            column = getattr(self, each.name)
            if isinstance(column, np.ndarray):
                column.setflags(write=False)
        return self

    def charge(self, row: int, demand: Demand, devices: Sequence[int]) -> None:
        """The node has this much less. Only on a thawed table."""
        self.jobs[row] += 1
        self.free_cpus[row] -= demand.cpus
        self.free_memory_mib[row] -= demand.memory_mib
        for device in devices:
            self.gpu_free_mib[row, device] -= self.share_mib(row, device, demand)
            if self.gpu_jobs[row, device] == 0 and self.gpu_usable[row, device]:
                self.idle_gpus[row] -= 1
            self.gpu_jobs[row, device] += 1

    def share_mib(self, row: int, device: int, demand: Demand) -> int:
        """What the job is charged of this device."""
        if demand.gpu_memory_mib is None:
            return int(self.gpu_total_mib[row, device])
        return demand.gpu_memory_mib + int(self.gpu_context_mib[row])

    def charge_all(self, jobs: Sequence[tuple[int, int, int]], shares: Sequence[tuple[int, int, int]]) -> None:
        """Many at once: (row, CPUs, MiB) of each job, (row, device, MiB) of each device it has a share of."""
        if jobs:
            row, cpus, memory_mib = np.array(jobs, np.int64).T
            np.add.at(self.jobs, row, 1)
            np.subtract.at(self.free_cpus, row, cpus)
            np.subtract.at(self.free_memory_mib, row, memory_mib)
        if shares:
            row, device, size_mib = np.array(shares, np.int64).T
            np.subtract.at(self.gpu_free_mib, (row, device), size_mib)
            np.add.at(self.gpu_jobs, (row, device), 1)
            self.idle_gpus[row] = (self.gpu_usable[row] & (self.gpu_jobs[row] == 0)).sum(axis=1)


class Columns:
    """The columns that stand still, kept from pass to pass: 5,000 nodes take 0.3 s to read, so only those are that have
    changed.

    What fades with time or is measured against the fleet is read anew for all every minute.
    """

    def __init__(self, *, can_reserve: bool = False) -> None:
        """With `can_reserve` GPUs may be asked of Kubernetes."""
        self._can_reserve = can_reserve
        self._views: list[NodeView] = []
        self._typical = NO_SPEEDS
        self._table = self._read([], datetime.min)
        self._read_at = datetime.min

    def of(self, nodes: Iterable[NodeView], wall: datetime) -> NodeTable:
        """Every node as if it were offline and idle."""
        views = sorted(nodes, key=_NAME)
        if abs(wall.replace(tzinfo=None) - self._read_at) > _FRESH or not self._read_changed(views, wall):
            self._read_at = wall.replace(tzinfo=None)
            self._typical = typical_speeds(view.speeds for view in views)
            self._table = self._read(views, wall)
        self._views = views
        return self._table

    def _read_changed(self, views: Sequence[NodeView], wall: datetime) -> bool:
        """False where that does not do: other nodes, or one with more devices than any had."""
        if len(views) != len(self._views):
            return False
        rows = [row for row, (view, before) in enumerate(zip(views, self._views, strict=True)) if view is not before]
        if not rows:
            return True
        fresh = self._read([views[row] for row in rows], wall)
        same = all(self._table.names[row] == name for row, name in zip(rows, fresh.names, strict=True))
        if not same or fresh.gpu_usable.shape[1] > self._table.gpu_usable.shape[1]:
            return False
        self._table = _with_rows(self._table, rows, fresh)
        return True

    def _read(self, views: Sequence[NodeView], wall: datetime) -> NodeTable:
        return _idle_table(views, wall, self._typical, self._can_reserve)


def node_table(idle: NodeTable, jobs: Iterable[JobView], liveness: Mapping[str, Liveness]) -> NodeTable:
    """The nodes with what `jobs` hold taken off."""
    table = replace(idle.thawed(), online=_bools(liveness.get(name) is Liveness.ONLINE for name in idle.names))
    rows = table.rows
    taken: list[tuple[int, int, int]] = []
    shares: list[tuple[int, int, int]] = []
    for view in jobs:
        assignment = view.status.assignment
        if assignment is None or not view.holds_capacity or assignment.node not in rows:
            continue
        row, demand = rows[assignment.node], view.demand
        taken.append((row, demand.cpus, demand.memory_mib))
        uuids = table.gpu_uuids[row]
        execution = view.status.execution
        # Kubernetes chooses the GPUs of a reservation, and only the agent sees which.
        gpus = (execution.gpus if execution else None) or assignment.gpus
        devices = [uuids.index(uuid) for uuid in gpus if uuid in uuids]
        shares += [(row, device, table.share_mib(row, device, demand)) for device in devices]
    table.charge_all(taken, shares)
    return table.frozen()


def own_demand(view: JobView, excluded: frozenset[str] = frozenset(), weights_node: str | None = None) -> Demand:
    """What the job asks of a node."""
    if not excluded and weights_node is None:
        return view.demand
    return view.demand._replace(excluded=excluded, weights_node=weights_node)


def _with_rows(table: NodeTable, rows: Sequence[int], fresh: NodeTable) -> NodeTable:
    """The table with these rows as they are in `fresh`."""
    columns: dict[str, Any] = {"has_read": _read_by(table, rows, fresh)}
    for each in fields(table):
        old, new = getattr(table, each.name), getattr(fresh, each.name)
        if isinstance(old, np.ndarray):
            columns[each.name] = column = old.copy()
            if column.ndim == 1:
                column[rows] = new
            else:
                column[rows] = 0  # devices that it no longer has
                column[rows, : new.shape[1]] = new
        elif isinstance(old, tuple):
            listed = list(old)
            for row, value in zip(rows, new, strict=True):
                listed[row] = value
            columns[each.name] = tuple(listed)
    return NodeTable(**columns)


def _read_by(table: NodeTable, rows: Sequence[int], fresh: NodeTable) -> Mapping[str, Mask]:
    found: dict[str, Mask] = {}
    for data in table.has_read.keys() | fresh.has_read.keys():
        mask = table.has_read[data].copy() if data in table.has_read else np.zeros(len(table), bool)
        mask[rows] = fresh.has_read.get(data, False)
        found[data] = mask
    return found


def _idle_table(views: Sequence[NodeView], wall: datetime, typical: Speeds, can_reserve: bool) -> NodeTable:
    count = len(views)
    devices = max((len(view.gpus) for view in views), default=0)
    usable = np.zeros((count, devices), bool)
    degraded = np.zeros((count, devices), bool)
    total_mib = np.zeros((count, devices), np.int64)
    for row, view in enumerate(views):
        for device, gpu in enumerate(view.gpus):
            usable[row, device] = gpu.health in _USABLE_HEALTH
            degraded[row, device] = gpu.health == "Degraded"
            total_mib[row, device] = gpu.memory_total_mi_b - (gpu.memory_reserved_mi_b or 0)
    cpus = _ints(view.cpus for view in views)
    memory_mib = _ints(view.memory_mib for view in views)
    return NodeTable(
        names=tuple(view.name for view in views),
        labels=tuple(view.labels for view in views),
        job_types=tuple(frozenset(view.node.spec.job_types) for view in views),
        gpu_uuids=tuple(tuple(gpu.uuid for gpu in view.gpus) for view in views),
        known=_bools(view.node.status.inventory is not None for view in views),
        online=np.zeros(count, bool),
        unschedulable=_bools(view.closed_because is not None for view in views),
        max_jobs=_ints(_most_jobs(view, wall) for view in views),
        cpus=cpus,
        memory_mib=memory_mib,
        gpus=_ints(len(view.gpus) for view in views),
        gpu_usable=usable,
        gpu_degraded=degraded,
        gpu_total_mib=total_mib,
        gpu_context_mib=_ints(view.gpu_context_mib for view in views),
        reserves=_bools(view.reserves for view in views),
        withheld=_bools(view.reserves and not can_reserve for view in views),
        compute_capability=_floats(view.compute_capability for view in views),
        reputation=_floats(score_of(view.outcomes, wall, typical) for view in views),
        online_seconds=_floats(online_s(view.online_since, view.earlier_online, wall) for view in views),
        warm=_bools(view.warm for view in views),
        has_read=_has_read(views),
        jobs=np.zeros(count, np.int64),
        free_cpus=cpus.copy(),
        free_memory_mib=memory_mib.copy(),
        gpu_free_mib=total_mib.copy(),
        gpu_jobs=np.zeros((count, devices), np.int64),
        idle_gpus=usable.sum(axis=1),
    )


def _most_jobs(view: NodeView, wall: datetime) -> int:
    if is_on_probation(view.outcomes, wall):
        return 1
    return UNBOUNDED_JOBS if view.max_jobs is None else view.max_jobs


def _has_read(views: Sequence[NodeView]) -> Mapping[str, Mask]:
    found: dict[str, Mask] = {}
    for row, view in enumerate(views):
        for data in view.data:
            found.setdefault(data, np.zeros(len(views), bool))[row] = True
    return found


def _ints(values: Iterable[int]) -> Ints:
    return np.fromiter(values, np.int64)


def _floats(values: Iterable[float]) -> Floats:
    return np.fromiter(values, np.float64)


def _bools(values: Iterable[bool]) -> Mask:
    return np.fromiter(values, np.bool_)
