"""Jobs that start from the weights of another: they wait for it, go where they are, or end with the reason."""

from __future__ import annotations

from typing import Any

from cyxwiz_crds import TrainingJob
from cyxwiz_operator.decisions import Decisions, decide
from cyxwiz_operator.lifecycle import StatusChange
from cyxwiz_operator.sources import KNOWN_FOR_S, LOOKUPS_AT_ONCE, Sources
from cyxwiz_operator.views import JobView
from cyxwiz_operator.weights import Missing, Ready, source_in

from .builders import make_bound_job, make_job, make_node, make_snapshot

MODEL = {"sha256": "ab" * 32, "bytes": 10, "uri": "node://node-b/uid-base-1/model/model.safetensors"}
INIT = {"name": "cnn", "initFrom": {"job": "base"}}


def succeeded(**model: Any) -> JobView:
    return make_bound_job(
        "base",
        node="node-b",
        execution={"state": "Succeeded", "model": MODEL | model},
        status={"phase": "Succeeded"},
    )


class Lookups:
    """A cluster that can be asked for jobs, and how often it was."""

    def __init__(self, *jobs: JobView) -> None:
        self.jobs = {job.job.metadata.name: job.job for job in jobs}
        self.asked: list[str] = []

    async def read_job(self, namespace: str, name: str) -> TrainingJob | None:
        self.asked.append(name)
        return self.jobs.get(name)


async def decided(job: JobView, *others: JobView, finished: tuple[JobView, ...] = ()) -> Decisions:
    nodes = [make_node("node-a", cpus=64), make_node("node-b")]
    found = await Sources(Lookups(*finished)).look([job, *others], 0.0)
    return decide(make_snapshot([job, *others], nodes, sources=found), most_binds=10)


def only(changes: tuple[StatusChange, ...]) -> StatusChange:
    (change,) = changes
    return change


async def test_a_job_goes_where_the_weights_are_and_says_so() -> None:
    bind = only((await decided(make_job("fine", model=INIT), finished=(succeeded(),))).binds)
    assignment = bind.status.assignment
    assert assignment is not None
    assert assignment.node == "node-b"
    assert assignment.init_from is not None
    assert (assignment.init_from.uri, assignment.init_from.sha256) == (MODEL["uri"], MODEL["sha256"])
    assert "Starts from the weights of job base, sha256 abababab" in (bind.status.summary or "")


async def test_weights_that_every_node_can_read_bind_a_job_to_none() -> None:
    base = succeeded(uri="s3://models/base/model.safetensors", durable=True)
    bind = only((await decided(make_job("fine", model=INIT), finished=(base,))).binds)
    assert bind.status.assignment is not None
    assert bind.status.assignment.node == "node-a"


async def test_a_job_waits_while_the_one_it_starts_from_is_not_over_or_not_there() -> None:
    job, base = make_job("fine", model=INIT), make_bound_job("base", execution={"state": "Running"})
    told = next(change for change in (await decided(job, base)).changes if change.job.uid == job.uid)
    assert told.status.reason == "WaitingForWeights"
    assert "job base, which is Running" in (told.status.summary or "")
    absent = only((await decided(job)).changes)
    assert absent.status.phase == "Queued"
    assert "there is none of that name" in (absent.status.summary or "")


async def test_a_job_whose_weights_will_never_be_ends_before_it_has_a_place() -> None:
    base = make_bound_job("base", execution={"state": "Failed"}, status={"phase": "Failed"})
    end = only((await decided(make_job("fine", model=INIT), finished=(base,))).changes)
    assert (end.status.phase, end.status.reason) == ("Failed", "UserError")
    assert "job base has no weights, it ended as Failed" in (end.status.summary or "")


async def test_a_job_is_told_when_the_node_with_its_weights_is_gone() -> None:
    base = succeeded(uri="node://node-z/uid-base-1/model/model.safetensors")
    told = only((await decided(make_job("fine", model=INIT), finished=(base,))).changes)
    assert told.status.phase == "Queued"
    assert "2 lack the weights, which are on node-z alone" in (told.status.summary or "")


async def test_a_base_is_looked_up_once_for_all_who_wait_and_again_after_a_while() -> None:
    cluster = Lookups(succeeded())
    sources = Sources(cluster)
    jobs = [make_job(f"fine-{number}", model=INIT) for number in range(50)]
    for boot in (0.0, 1.0, KNOWN_FOR_S + 1):
        found = await sources.look(jobs, boot)
        assert found[("team-a", "base")] == Ready(MODEL["uri"], MODEL["sha256"])
    assert cluster.asked == ["base", "base"]
    assert await sources.look([make_job("other")], 20.0) == {}


async def test_a_base_that_ends_is_looked_up_at_once() -> None:
    cluster = Lookups(succeeded())
    sources = Sources(cluster)
    job, base = make_job("fine", model=INIT), make_bound_job("base", execution={"state": "Running"})
    assert isinstance((await sources.look([job, base], 0.0))["team-a", "base"], Missing)
    assert isinstance((await sources.look([job], 0.1))["team-a", "base"], Ready)


async def test_many_lookups_are_spread_over_passes() -> None:
    cluster = Lookups()
    sources = Sources(cluster)
    jobs = [make_job(f"j{n}", model={"name": "cnn", "initFrom": {"job": f"b{n}"}}) for n in range(LOOKUPS_AT_ONCE + 5)]
    assert len(await sources.look(jobs, 0.0)) == LOOKUPS_AT_ONCE
    assert len(await sources.look(jobs, 0.1)) == LOOKUPS_AT_ONCE + 5


def test_an_evaluation_leaves_no_weights_to_start_from() -> None:
    base = make_bound_job("base", execution={"state": "Succeeded"}, status={"phase": "Succeeded"})
    source = source_in(base.job, "base")
    assert isinstance(source, Missing)
    assert source.for_good
