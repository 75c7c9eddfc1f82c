"""Nodes that shrink, vanish and come back, agents that claim late or never, jobs of all sizes and priorities."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import replace
from typing import Any

import pytest

from cyxwiz_crds import Execution
from cyxwiz_operator.views import JobView, NodeView

from .builders import later, make_job, make_node
from .test_control_loop import World

NAMES = ("node-a", "node-b", "node-c")
STEPS = 90


class Turbulence:
    """A world in which something happens at every step."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.world = World(nodes=tuple(self._node(name) for name in NAMES))
        self._made = 0
        self._version = 1000
        self._elapsed_s = 0

    def step(self, number: int) -> None:
        """Time passes, Leases are renewed, a job or a node comes or goes, and some agents report."""
        draw, world = self.draw, self.world
        self._elapsed_s += draw.choice([1, 3, 10, 40])
        world.now = later(self._elapsed_s)
        for name in list(world.watched.nodes):
            world.renew(name, version=2 * number + 2)
        happens = draw.random()
        if happens < 0.6:
            self._made += 1
            world.create(self._job(f"job-{self._made}"))
        elif happens < 0.75:
            name = draw.choice(NAMES)
            if draw.random() < 0.5:
                world.watched.drop_node(name)
            else:
                world.watched.put_node(self._node(name))
                world.renew(name, version=2 * number + 3)
        world.echo()
        for job in list(world.cluster.jobs.values()):
            if job.is_final:
                del world.cluster.jobs[job.uid]
                world.watched.drop_job(job.uid)
            elif job.status.assignment is not None:
                self._agent_of(job)

    def _agent_of(self, job: JobView) -> None:
        assignment, execution, now = job.status.assignment, job.status.execution, self.world.now.timestamp
        assert assignment is not None
        if execution is None:
            if self.draw.random() < 0.7:
                left = {"step": 1, "elapsedSeconds": 1, "remainingSeconds": self.draw.choice([20, 200])}
                self._report(job, state="Running", startedAt=now, progress=left)
        elif execution.state == "Running":
            if assignment.intent != "Run":
                self._report(job, state="Yielded" if assignment.intent == "Yield" else "Cancelled", endedAt=now)
            elif self.draw.random() < 0.15:
                self._report(job, state="Succeeded", endedAt=now)

    def _report(self, job: JobView, **said: Any) -> None:
        assignment, execution = job.status.assignment, job.status.execution
        assert assignment is not None
        sequence = execution.sequence + 1 if execution else 1
        report = Execution.model_validate({"assignmentID": assignment.id, "sequence": sequence, **said})
        self._version += 1
        metadata = job.job.metadata.model_copy(update={"resource_version": str(self._version)})
        status = job.status.model_copy(update={"execution": report})
        self.world.create(replace(job, job=job.job.model_copy(update={"metadata": metadata, "status": status})))

    def _node(self, name: str) -> NodeView:
        return make_node(name, gpus=self.draw.choice([0, 2, 4, 8]), cpus=self.draw.choice([4, 8, 16]))

    def _job(self, name: str) -> JobView:
        draw = self.draw
        limits: dict[str, Any] = {"activeDeadlineSeconds": 600} if draw.random() < 0.3 else {}
        namespace, gpus = draw.choice(["team-a", "team-b"]), draw.choice([0, 0, 1, 2])
        return make_job(
            name, namespace=namespace, gpus=gpus, cpus=draw.choice([1, 2, 4]), priority=draw.choice([0, 0, 5]), **limits
        )


def holders(world: World) -> dict[str, list[JobView]]:
    """Node to the jobs that hold a place there."""
    found: dict[str, list[JobView]] = defaultdict(list)
    for job in world.cluster.jobs.values():
        if job.holds_capacity and job.status.assignment is not None:
            found[job.status.assignment.node].append(job)
    return found


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_happens_nobody_is_given_what_is_not_there_and_passes_come_to_rest(seed: int) -> None:
    turbulence = Turbulence(seed)
    world = turbulence.world
    bound = 0
    for number in range(STEPS):
        turbulence.step(number)
        attempts = {job.uid: job.attempt for job in world.cluster.jobs.values()}
        await world.loop.one_pass()
        for name, here in holders(world).items():
            new = [job for job in here if job.attempt > attempts[job.uid]]
            if not new:
                continue  # a node that shrank under its jobs may well be too small for them
            bound += len(new)
            node = world.watched.nodes[name]
            assert sum(job.job.spec.resources.cpus for job in here) <= node.cpus
            given = Counter(uuid for job in here if job.status.assignment for uuid in job.status.assignment.gpus)
            for job in new:
                assert job.status.assignment is not None
                assert len(job.status.assignment.gpus) == job.job.spec.resources.gpus
                for uuid in job.status.assignment.gpus:
                    assert uuid in {gpu.uuid for gpu in node.gpus}
                    assert given[uuid] == 1
        await world.loop.one_pass()  # what the first gave back is free in the next
        writes = {kind: world.cluster.writes[kind] for kind in ("bind", "status")}
        await world.loop.one_pass()
        assert writes == {kind: world.cluster.writes[kind] for kind in ("bind", "status")}
    assert bound > STEPS / 9, "something happened"
