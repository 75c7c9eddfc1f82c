"""The objects as the watches last showed them. Doors write here; the control loop reads once per pass."""

from __future__ import annotations

import asyncio

from .views import JobView, NodeView, Unreadable


class Watched:
    """Jobs by uid, nodes by name, and the bell that wakes the control loop."""

    def __init__(self) -> None:
        self.jobs: dict[str, JobView] = {}
        self.unreadable: dict[str, Unreadable] = {}
        self.nodes: dict[str, NodeView] = {}
        self.bell = asyncio.Event()
        self.jobs_synced = asyncio.Event()
        self.leases_synced = asyncio.Event()

    def put_job(self, job: JobView) -> None:
        """The newest version of a job. Mere progress rings no bell: no decision rests on it."""
        before = self.jobs.get(job.uid)
        self.jobs[job.uid] = job
        self.unreadable.pop(job.uid, None)
        if before is None or _decisive(before) != _decisive(job):
            self.bell.set()

    def put_unreadable(self, job: Unreadable) -> None:
        """A job that cannot be read; what was known of it before is not true any more."""
        self.jobs.pop(job.uid, None)
        self.unreadable[job.uid] = job
        self.bell.set()

    def drop_job(self, uid: str) -> None:
        """The job is deleted or final."""
        self.jobs.pop(uid, None)
        self.unreadable.pop(uid, None)
        self.bell.set()

    def put_node(self, node: NodeView) -> None:
        """The newest version of a node."""
        self.nodes[node.name] = node
        self.bell.set()

    def drop_node(self, name: str) -> None:
        """The node's object is gone."""
        self.nodes.pop(name, None)
        self.bell.set()


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
