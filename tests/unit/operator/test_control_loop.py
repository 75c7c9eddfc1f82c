"""Passes against a fake cluster that comes in by the same door as the real one."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from cyxwiz_crds import ComputeNodeStatus
from cyxwiz_crds.compute_node import Lease
from cyxwiz_operator.clock import Now
from cyxwiz_operator.cluster import Conflict, Invalid, NotFound, Stored, Unavailable
from cyxwiz_operator.control_loop import ControlLoop
from cyxwiz_operator.leases import LeaseBook
from cyxwiz_operator.lifecycle import Note, StatusChange
from cyxwiz_operator.metrics import Metrics
from cyxwiz_operator.settings import Settings
from cyxwiz_operator.views import JobView, NodeView, Unreadable
from cyxwiz_operator.watched import Watched

from .builders import NOW, ago, later, make_bound_job, make_job, make_lease, make_node, written


class FakeCluster:
    """Keeps what was written; the watch shows it only when `World.echo` is called."""

    def __init__(self) -> None:
        self.jobs: dict[str, JobView] = {}
        self.writes: Counter[str] = Counter()
        self.notes: list[tuple[str, str]] = []
        self.node_statuses: list[ComputeNodeStatus] = []
        self.leases: dict[str, Lease] = {}
        self.failure: Exception | None = None
        self.node_asked, self.node_answers, self.bound = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.node_answers.set()
        self.fair_share: Stored | None = None
        self.landed: Callable[[JobView], None] = lambda _: None
        """Called before a write is answered, as the watch may be."""
        self._version = 100

    async def write_status(self, change: StatusChange, kind: str) -> JobView:
        if self.failure is not None:
            raise self.failure
        stored = self.jobs[change.job.uid]
        if stored.job.metadata.resource_version != change.job.job.metadata.resource_version:
            raise Conflict(409, "Conflict", "changed")
        self._version += 1
        self.writes[kind] += 1
        if kind == "bind":
            self.bound.set()
        self.jobs[change.job.uid] = written(change, str(self._version))
        self.landed(self.jobs[change.job.uid])
        return self.jobs[change.job.uid]

    async def write_node_status(self, node: NodeView, status: ComputeNodeStatus) -> None:
        if self.failure is not None:
            raise self.failure
        self.node_statuses.append(status)
        self.node_asked.set()
        await self.node_answers.wait()

    async def note(self, job: JobView, note: Note, now: Now) -> None:
        self.notes.append((job.job.metadata.name, note.reason))

    async def tell_unreadable(self, job: Unreadable, now: Now) -> None:
        self.writes["invalid"] += 1

    async def read_fair_share(self) -> Stored | None:
        return self.fair_share

    async def write_fair_share(self, text: str, version: str | None) -> str:
        if (self.fair_share.version if self.fair_share else None) != version:
            raise Conflict(409, "Conflict", "changed")
        self.writes["fair share"] += 1
        self.fair_share = Stored(text, str(self.writes["fair share"]))
        return self.fair_share.version

    async def read_lease(self, name: str) -> Lease | None:
        if self.failure is not None:
            raise self.failure
        return self.leases.get(name)

    async def fence(self, lease: Lease) -> Lease:
        self.writes["fence"] += 1
        self.leases[lease.name] = make_lease(lease.name, version=99, holder=None)
        return self.leases[lease.name]


class World:
    """A control loop, its cluster and its clock."""

    def __init__(self, *jobs: JobView, nodes: tuple[NodeView, ...] = (), **settings: Any) -> None:
        self.now = NOW
        self.cluster = FakeCluster()
        self.watched = Watched()
        self.leases = LeaseBook(NOW)
        for node in nodes:
            self.watched.put_node(node)
            self.renew(node.name, version=1)
        for job in jobs:
            self.create(job)
        self.loop = ControlLoop(
            self.cluster,  # pyright: ignore[reportArgumentType]  # the fake has the methods that are used
            self.watched,
            self.leases,
            Settings(**settings),
            Metrics(),
            clock=lambda: self.now,
        )

    def create(self, job: JobView) -> None:
        self.cluster.jobs[job.uid] = job
        self.watched.put_job(job)

    def renew(self, name: str, version: int) -> None:
        lease = make_lease(name, version=version, renewed=self.now)
        self.cluster.leases[name] = lease
        self.leases.observe(lease, self.now)

    def echo(self) -> None:
        for job in self.cluster.jobs.values():
            self.watched.put_job(job)

    def job(self, name: str = "digits") -> JobView:
        return self.cluster.jobs[f"uid-team-a-{name}"]


async def test_a_job_is_bound_once_though_the_watch_lags() -> None:
    world = World(make_job(), nodes=(make_node(),))
    await world.loop.one_pass()
    await world.loop.one_pass()
    assert world.cluster.writes == {"bind": 1}
    assert world.job().attempt == 1
    world.echo()
    await world.loop.one_pass()
    assert world.cluster.writes == {"bind": 1}


async def test_a_conflict_is_waited_out_and_then_decided_anew() -> None:
    world = World(make_job(), nodes=(make_node(),))
    world.cluster.jobs["uid-team-a-digits"] = make_job(version="7", cancel=True)
    await world.loop.one_pass()
    await world.loop.one_pass()
    assert world.cluster.writes == {}
    world.echo()
    await world.loop.one_pass()
    assert world.job().status.phase == "Cancelled"


async def test_a_write_that_the_schema_refuses_is_tried_again_later_and_stops_nobody_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(make_job(), nodes=(make_node(),))
    world.cluster.failure = Invalid(422, "Invalid", "attempt never decreases")
    with caplog.at_level(logging.ERROR):
        await world.loop.one_pass()
        await world.loop.one_pass()
    assert [record.message for record in caplog.records if "job" in vars(record)] == ["write refused"]
    world.cluster.failure = None
    world.now = later(29)
    await world.loop.one_pass()
    assert world.cluster.writes["bind"] == 0
    world.now = later(30)
    await world.loop.one_pass()
    assert world.cluster.writes["bind"] == 1


async def test_a_lost_node_is_fenced_before_its_job_is_bound_elsewhere() -> None:
    job = make_bound_job(node="node-a", execution={"state": "Running"})
    world = World(job, nodes=(make_node("node-a"), make_node("node-b")))
    world.now = later(30)
    world.renew("node-b", version=2)
    await world.loop.one_pass()
    assert (world.cluster.writes["fence"], world.job().attempt) == (0, 1)
    world.now = later(40)
    await world.loop.one_pass()
    assert world.cluster.leases["node-a"].holder is None
    assert (world.job().attempt, world.job().status.execution) == (2, None)
    assignment = world.job().status.assignment
    assert assignment is not None
    assert assignment.node == "node-b"


async def test_a_node_that_renewed_unseen_is_not_fenced() -> None:
    world = World(make_bound_job(execution={"state": "Running"}), nodes=(make_node(),))
    world.now = later(40)
    world.cluster.leases["node-a"] = make_lease(version=2, renewed=world.now)
    await world.loop.one_pass()
    assert (world.cluster.writes["fence"], world.job().attempt) == (0, 1)


async def test_no_node_is_given_up_while_our_own_requests_fail() -> None:
    world = World(make_bound_job(execution={"state": "Running"}), nodes=(make_node(),))
    world.cluster.failure = Unavailable(0, "NoConnection", "refused")
    world.now = later(40)
    await world.loop.one_pass()
    world.cluster.failure = None
    world.now = later(79)
    await world.loop.one_pass()
    assert world.cluster.writes["fence"] == 0
    world.now = later(80)
    await world.loop.one_pass()
    assert world.cluster.writes["fence"] == 1


async def test_why_a_job_waits_is_told_at_once_and_then_once_a_minute() -> None:
    world = World(make_job(gpus=8), nodes=(make_node(),))
    await world.loop.one_pass()
    world.echo()
    assert (world.job().status.phase, world.cluster.writes) == ("Queued", {"status": 1})
    for seconds, explained in ((1, 1), (2, 1), (60, 1), (61, 2)):
        world.now = later(seconds)
        world.watched.put_node(make_node(f"node-{seconds}"))
        await world.loop.one_pass()
        world.echo()
        assert world.cluster.writes["explain"] == explained


async def test_a_clean_life_has_two_events_and_no_queued() -> None:
    world = World(make_job(), nodes=(make_node(),))
    await world.loop.one_pass()
    bound = world.job()
    assert bound.status.assignment is not None
    execution = {"assignmentID": bound.status.assignment.id, "sequence": 1, "state": "Succeeded"}
    status = bound.status.wire() | {"execution": execution}
    world.create(make_job(version="200", status=status))
    await world.loop.one_pass()
    assert world.job().status.phase == "Succeeded"
    assert world.cluster.writes == {"bind": 1, "status": 1}
    assert world.cluster.notes == [("digits", "Bound"), ("digits", "Succeeded")]


async def test_a_node_status_is_written_at_most_every_ten_seconds_but_for_its_phase() -> None:
    world = World(nodes=(make_node(),))
    await world.loop.one_pass()
    assert [status.phase for status in world.cluster.node_statuses] == ["Online"]
    online = world.cluster.node_statuses[0]
    seen = make_node(status=online.wire())
    world.watched.put_node(seen)
    await world.loop.one_pass()
    assert len(world.cluster.node_statuses) == 1
    world.create(make_bound_job(execution={"state": "Running"}))
    for seconds, writes in ((9, 1), (10, 2)):
        world.now = later(seconds)
        await world.loop.one_pass()
        assert len(world.cluster.node_statuses) == writes
    metadata = seen.node.metadata.model_copy(update={"resource_version": "2"})
    spec = seen.node.spec.model_copy(update={"unschedulable": True})
    world.watched.put_node(replace(seen, node=seen.node.model_copy(update={"spec": spec, "metadata": metadata})))
    world.now = later(11)
    await world.loop.one_pass()
    assert [status.phase for status in world.cluster.node_statuses[2:]] == ["Unschedulable"]


async def test_a_node_deleted_behind_kopfs_back_is_forgotten() -> None:
    world = World(nodes=(make_node(),))
    world.cluster.failure = NotFound(404, "NotFound", "no such node")
    await world.loop.one_pass()
    assert world.watched.nodes == {}


async def test_an_unreadable_job_is_told_so_once() -> None:
    world = World()
    world.watched.put_unreadable(Unreadable("team-a", "odd", "uid-odd", "1", {}, "spec.epochs: no integer"))
    await world.loop.one_pass()
    await world.loop.one_pass()
    assert world.cluster.writes == {"invalid": 1}


async def test_mere_progress_wakes_nobody() -> None:
    world = World(make_bound_job(execution={"state": "Running"}))
    world.watched.bell.clear()
    progress = {"state": "Running", "sequence": 2, "progress": {"step": 5}}
    world.watched.put_job(make_bound_job(version="2", execution=progress))
    assert not world.watched.bell.is_set()
    world.watched.put_job(make_bound_job(version="3", execution={"state": "Succeeded", "sequence": 3}))
    assert world.watched.bell.is_set()


async def test_what_we_write_of_a_node_ourselves_wakes_nobody() -> None:
    world = World(nodes=(make_node(),))
    await world.loop.one_pass()
    ours = {key: value for key, value in world.cluster.node_statuses[0].wire().items() if key != "inventory"}
    world.watched.put_node(make_node(status=ours))
    assert not world.watched.bell.is_set()
    world.watched.put_node(make_node(cpus=16, status=ours))
    assert world.watched.bell.is_set(), "more room than before does"


async def test_a_burst_is_bound_over_several_passes() -> None:
    jobs = [make_job(f"job-{number}") for number in range(5)]
    world = World(*jobs, nodes=(make_node(),), binds_per_pass=2)
    for bound in (2, 4, 5):
        await world.loop.one_pass()
        assert world.cluster.writes["bind"] == bound
        assert world.watched.bell.is_set() is (bound < 5)


async def test_only_the_first_of_the_queue_are_told_news_of_their_wait() -> None:
    filler = make_bound_job("filler", cpus=8, execution={"state": "Running"})
    queue = [make_job(f"job-{number}", cpus=8, age_s=100 - number) for number in range(6)]
    world = World(filler, *queue, nodes=(make_node(cpus=8),), explained_jobs=4)
    await world.loop.one_pass()
    world.echo()
    assert world.cluster.writes["status"] == 6, "everyone is told once that it waits, and why"
    world.cluster.jobs.pop(queue[0].uid)
    world.watched.drop_job(queue[0].uid)
    world.now = later(61)
    await world.loop.one_pass()
    assert world.cluster.writes["explain"] == 4, "five have moved up, the first four are told"


async def test_a_node_that_shrinks_under_its_jobs_keeps_them_and_takes_no_more() -> None:
    jobs = [make_bound_job(f"job-{number}", cpus=3, execution={"state": "Running"}) for number in range(2)]
    world = World(*jobs, nodes=(make_node(cpus=8, maxConcurrentJobs=4),))
    await world.loop.one_pass()
    world.watched.put_node(make_node(cpus=4, maxConcurrentJobs=1))
    world.create(make_job("another"))
    await world.loop.one_pass()
    assert [world.job(f"job-{number}").status.phase for number in range(2)] == ["Running", "Running"]
    assert world.job("another").status.reason == "NoNodeFree"
    assert "node-a runs its largest number of jobs" in (world.job("another").status.summary or "")


async def test_the_watchs_echo_of_our_own_write_is_the_same_view_and_wakes_nobody() -> None:
    world = World(make_job(), nodes=(make_node(),))
    await world.loop.one_pass()
    bound = world.job()
    assert world.watched.as_written(bound.uid, "1") is None
    assert world.watched.as_written(bound.uid, bound.job.metadata.resource_version) is bound
    world.watched.bell.clear()
    world.watched.put_job(bound)
    assert not world.watched.bell.is_set()
    assert world.watched.written == {}
    world.watched.put_job(make_bound_job(version="300", execution={"state": "Running"}))
    assert world.watched.bell.is_set(), "what others write still does"


async def test_an_echo_that_is_faster_than_the_answer_wakes_nobody() -> None:
    world = World(make_job(), nodes=(make_node(),))
    world.cluster.landed = lambda job: world.watched.put_job(replace(job))
    await world.loop.one_pass()
    assert not world.watched.bell.is_set()
    assert world.watched.writing == {}
    await world.loop.one_pass()
    assert world.cluster.writes == {"bind": 1}


async def test_what_others_wrote_during_our_write_wakes_the_loop() -> None:
    world = World(make_job(), nodes=(make_node(),))
    claimed = make_bound_job(version="300", execution={"state": "Running"})
    world.cluster.landed = lambda _: world.watched.put_job(claimed)
    await world.loop.one_pass()
    assert world.watched.bell.is_set()


@pytest.mark.parametrize(("rung", "bound"), [(True, 3), (False, 5)])
async def test_a_burst_of_binds_makes_way_after_a_second(rung: bool, bound: int) -> None:
    jobs = [make_job(f"job-{number}") for number in range(5)]
    world = World(*jobs, nodes=(make_node(),), parallel_writes=1, bind_for_s=1.0)

    def landed(_: JobView) -> None:
        world.now = later(0.4, world.now)
        if rung:
            world.watched.bell.set()

    world.cluster.landed = landed
    await world.loop.one_pass()
    assert world.cluster.writes["bind"] == bound
    await world.loop.one_pass()
    assert world.cluster.writes["bind"] == 5


async def test_a_cancel_decided_beside_a_burst_waits_for_a_second_of_it() -> None:
    jobs = [make_job(f"job-{number}") for number in range(5)]
    cancelled = make_bound_job("late", execution={"state": "Running"}, cancel=True)
    world = World(*jobs, cancelled, nodes=(make_node(),), parallel_writes=1, bind_for_s=1.0)

    def landed(_: JobView) -> None:
        world.now = later(0.4, world.now)

    world.cluster.landed = landed
    await world.loop.one_pass()
    assert world.cluster.writes == {"bind": 3, "status": 1}
    assert world.watched.bell.is_set(), "the others follow at once"
    await world.loop.one_pass()
    assert world.cluster.writes["bind"] == 5


@pytest.mark.parametrize("left", [make_job(version="2"), make_job(version="2", suspend=True)])
async def test_a_place_given_back_by_our_own_write_wakes_the_loop(left: JobView) -> None:
    world = World(make_bound_job(), nodes=(make_node(),))
    world.watched.written[left.uid] = left
    world.watched.bell.clear()
    world.watched.put_job(left)
    assert world.watched.bell.is_set()


async def test_words_wait_while_binds_do() -> None:
    jobs = [make_job(f"job-{number}") for number in range(4)]
    world = World(*jobs, nodes=(make_node(),), binds_per_pass=1)
    told: list[int] = []
    for seconds in (0, 1, 11, 11):
        world.now = later(seconds)
        await world.loop.one_pass()
        told.append(len(world.cluster.notes))
    assert told == [1, 1, 3, 4], "the first, none within ten seconds, then all, and the last when nobody waits"


async def test_a_kill_between_a_jobs_end_and_its_nodes_reputation_neither_loses_nor_doubles_the_outcome() -> None:
    done = make_bound_job(status={"phase": "Succeeded", "finishedAt": ago(5)})
    node = make_node()
    for _ in range(2):  # a second kill, after the node was written
        world = World(nodes=(node,))
        world.loop.teller.remember_finished(done)  # as the sweep after every start finds it
        assert world.loop.teller.has_counted(done) is (node.node.status.reputation is not None)
        await world.loop.one_pass()
        status = world.cluster.node_statuses[-1] if world.cluster.node_statuses else node.node.status
        assert status.reputation is not None
        assert [each.job for each in status.reputation.outcomes] == ["uid-team-a-digits-1"]
        node = make_node(status=status.wire())


async def test_a_job_that_comes_while_nodes_are_written_does_not_wait_for_them() -> None:
    world = World(nodes=tuple(make_node(f"node-{number}") for number in range(20)))
    world.cluster.node_answers.clear()
    first = asyncio.create_task(world.loop.one_pass())
    await world.cluster.node_asked.wait()
    world.create(make_job())
    await asyncio.wait_for(first, 5)
    second = asyncio.create_task(world.loop.one_pass())
    await asyncio.wait_for(world.cluster.bound.wait(), 5)
    world.cluster.node_answers.set()
    await second
    assert len(world.cluster.node_statuses) == 20
