"""The objects as the watches last showed them. Doors write here; the control loop reads once per pass."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from .views import JobView, Machine, NodeView, Unreadable


class Watched:
    """Jobs by uid, nodes by name, and the bell that wakes the control loop."""

    def __init__(self) -> None:
        self.jobs: dict[str, JobView] = {}
        self.unreadable: dict[str, Unreadable] = {}
        self.written: dict[str, JobView] = {}
        """Our own last write to each job, until the watch shows it: it needs no second reading."""
        self.writing: dict[str, JobView] = {}
        """What a write under way will make of the job: the watch may show it before the write is answered."""
        self.nodes: dict[str, NodeView] = {}
        self.machines: dict[str, Machine] = {}
        self.bell = asyncio.Event()
        self.jobs_synced = asyncio.Event()
        self.leases_synced = asyncio.Event()
        self.pods_synced = asyncio.Event()

    def put_job(self, job: JobView) -> None:
        """The newest version of a job. Mere progress rings no bell: no decision rests on it."""
        before = self.jobs.get(job.uid)
        self.jobs[job.uid] = job
        self.unreadable.pop(job.uid, None)
        ours = self.written.pop(job.uid, None) or self.writing.get(job.uid)
        if ours is not None and job.holds_capacity and _decisive(ours) == _decisive(job):
            return  # nothing was given back, and what follows from a binding is the agent's to do
        if before is None or _decisive(before) != _decisive(job):
            self.bell.set()

    def as_written(self, uid: str, version: str) -> JobView | None:
        """The job as we wrote it, if that is the version asked for."""
        job = self.written.get(uid)
        return job if job is not None and job.job.metadata.resource_version == version else None

    def put_unreadable(self, job: Unreadable) -> None:
        """A job that cannot be read; what was known of it before is not true any more."""
        self.jobs.pop(job.uid, None)
        self.unreadable[job.uid] = job
        self.bell.set()

    def drop_job(self, uid: str) -> None:
        """The job is deleted or final."""
        self.jobs.pop(uid, None)
        self.written.pop(uid, None)
        self.unreadable.pop(uid, None)
        self.bell.set()

    def put_node(self, node: NodeView) -> None:
        """The newest version of a node. What we write of it ourselves rings no bell."""
        before = self.nodes.get(node.name)
        after = self.nodes[node.name] = replace(node, machine=self.machines.get(node.name))
        if before is None or _room(before) != _room(after):
            self.bell.set()

    def put_machine(self, machine: Machine) -> None:
        """The newest version of a Kubernetes Node; most of its changes say nothing about who may run there."""
        if self.machines.get(machine.name) != machine:
            self.machines[machine.name] = machine
            self._join(machine.name)

    def drop_machine(self, name: str) -> None:
        """The Kubernetes Node is gone."""
        if self.machines.pop(name, None):
            self._join(name)

    def _join(self, name: str) -> None:
        node = self.nodes.get(name)
        if node is not None:
            self.put_node(node)

    def drop_node(self, name: str) -> None:
        """The node's object is gone."""
        self.nodes.pop(name, None)
        self.bell.set()


def _room(node: NodeView) -> tuple[object, ...]:
    """Who may run there, and how much: what others have to say of a node."""
    return (node.node.metadata.generation, node.node.spec, node.node.status.inventory, node.machine)


def _decisive(job: JobView) -> tuple[object, ...]:
    metadata, status = job.job.metadata, job.status
    execution = status.execution
    return (
        metadata.generation,
        metadata.deletion_timestamp,
        status.phase,
        status.attempt,
        status.assignment,
        execution and (execution.assignment_id, execution.state),
    )
