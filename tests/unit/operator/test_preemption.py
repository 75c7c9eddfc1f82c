"""Who leaves for whom: never more than needed, never an equal, and the place is kept for the one that asked."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyxwiz_operator.lifecycle import review, told_to_yield
from cyxwiz_operator.node_table import own_demand
from cyxwiz_operator.scheduling.planning import Queued, plan
from cyxwiz_operator.scheduling.preemption import choose_victims
from cyxwiz_operator.scheduling.reserving import PreemptionRules
from cyxwiz_operator.scheduling.room import Room
from cyxwiz_operator.scheduling.tenants import tenants_of
from cyxwiz_operator.views import JobView, Liveness

from .builders import NOW, ago, later, make_bound_job, make_job, make_node, make_table, reported, written
from .test_control_loop import World


def training(name: str, *, started_s_ago: float = 600, step: int = 100, saved: int = 100, **job: Any) -> JobView:
    checkpoint = {"step": saved, "epoch": 1, "digest": "sha256:1f2e", "uri": f"node://node-a/{name}/step-{saved}"}
    return make_bound_job(
        name,
        bound_s_ago=started_s_ago,
        execution={
            "state": "Running",
            "startedAt": ago(started_s_ago),
            "progress": {"step": step, "elapsedSeconds": 100},
            "checkpoint": checkpoint,
        },
        **job,
    )


def evicted(job: JobView, running: list[JobView], rules: PreemptionRules | None = None) -> list[str]:
    table = make_table(make_node(cpus=4), jobs=running)
    made = plan([Queued(job, frozenset())], table, NOW, running=running, rules=rules or PreemptionRules())
    return [each.victim.job.metadata.name for each in made.evictions]


URGENT = make_job("urgent", cpus=4, priority=10)


@pytest.mark.parametrize(
    ("sentence", "job", "running", "names"),
    [
        ("who loses least", make_job(cpus=2, priority=10),
         [training("much", cpus=2, saved=10), training("little", cpus=2, saved=90)], ["little"]),
        ("as few as make room", make_job(cpus=2, priority=10),
         [training("small", cpus=1), training("large", cpus=3)], ["large"]),
        ("never an equal", URGENT, [training("equal", cpus=4, priority=10)], []),
        ("nobody when that is not enough", URGENT,
         [training("low", cpus=2), training("high", cpus=2, priority=11)], []),
        ("nobody who has just begun", URGENT, [training("new", cpus=4, started_s_ago=59)], []),
        ("nobody when the job does not want it", make_job(cpus=4, priority=10, preemptionPolicy="Never"),
         [training("low", cpus=4)], []),
        ("nobody twice", URGENT,
         [training("told", cpus=4, assignment={"intent": "Yield", "graceSeconds": 30, "orderedAt": ago(5)})], []),
        ("nobody whose trainer was not started", URGENT, [make_bound_job("bound", cpus=4)], []),
    ],
)  # fmt: skip  # a table
def test_who_is_told_to_leave(sentence: str, job: JobView, running: list[JobView], names: list[str]) -> None:
    assert evicted(job, running) == names, sentence


def test_the_administrator_may_forbid_it() -> None:
    assert evicted(URGENT, [training("low", cpus=4)], PreemptionRules(enabled=False)) == []
    assert evicted(URGENT, [training("low", cpus=4)], PreemptionRules(min_runtime_s=601)) == []


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3), st.integers(0, 100)), max_size=6),
    st.integers(1, 8),
    st.integers(0, 3),
)
def test_nobody_leaves_in_vain(running: list[tuple[int, int, int]], cpus: int, priority: int) -> None:
    free = 8
    holding: list[JobView] = []
    for number, (size, rank, saved) in enumerate(running):
        if size <= free:
            free -= size
            holding.append(training(f"r{number}", cpus=size, priority=rank, saved=saved))
    table = make_table(make_node(cpus=8), jobs=holding)
    demand = own_demand(make_job(cpus=cpus))
    if Room.of(table, 0).fits(demand):
        return
    tenants = tenants_of(holding, table, NOW)
    victims = choose_victims(demand, priority, table, [0], tenants, 60, NOW)
    lower = sum(each.demand.cpus for each in tenants[0] if each.priority < priority)
    assert (victims is not None) is (free + lower >= cpus)
    if victims is not None:
        assert all(each.priority < priority for each in victims.tenants)
        freed = sum(each.demand.cpus for each in victims.tenants)
        assert free + freed >= cpus
        assert all(free + freed - each.demand.cpus < cpus for each in victims.tenants)


def test_a_preempted_job_waits_again_with_its_checkpoint_and_without_a_mark() -> None:
    told = told_to_yield(training("low", cpus=4), NOW, "Preempted", "Preempted by team-a/urgent.")
    assert told is not None
    assert told.status.assignment is not None
    assert (told.status.assignment.intent, told.status.assignment.ordered_at) == ("Yield", NOW.timestamp)
    assert review(written(told), Liveness.ONLINE, NOW) is None
    execution = told.status.execution
    assert execution is not None
    left = reported(written(told), **{**execution.wire(), "state": "Yielded", "sequence": 2})
    change = review(left, Liveness.ONLINE, NOW)
    assert change is not None
    status = change.status
    assert (status.phase, status.reason, status.assignment, status.failures) == ("Pending", "Preempted", None, None)
    assert status.restore_from is not None
    assert status.restore_from.step == 100
    assert [record.outcome for record in status.history] == ["Preempted"]


async def test_the_place_is_kept_for_the_job_that_asked_also_by_an_operator_that_was_restarted() -> None:
    low = training("low", cpus=4)
    world = World(low, URGENT, nodes=(make_node(cpus=4),))
    await world.loop.one_pass()
    world.echo()
    scheduling = world.job("urgent").status.scheduling
    assert scheduling is not None
    assert (scheduling.holds, world.job("urgent").status.reason) == ("node-a", "Preempting")
    assert world.job("low").status.reason == "Stopping"
    writes = dict(world.cluster.writes)
    await world.loop.one_pass()
    assert world.cluster.writes == writes

    restarted = World(nodes=(make_node(cpus=4),))
    execution = world.job("low").status.execution
    assert execution is not None
    left = reported(world.job("low"), **{**execution.wire(), "state": "Yielded", "sequence": 2})
    for job in (left, world.job("urgent"), make_job("sly", cpus=1, age_s=10_000)):
        restarted.create(job)
    for _ in range(3):
        await restarted.loop.one_pass()
        restarted.echo()
    assert [restarted.job(name).status.phase for name in ("urgent", "low", "sly")] == ["Bound", "Queued", "Queued"]


async def test_a_job_that_does_not_leave_is_not_waited_for_for_ever() -> None:
    deaf = training("deaf", cpus=4, assignment={"intent": "Yield", "graceSeconds": 30, "orderedAt": ago(0)})
    world = World(deaf, URGENT, nodes=(make_node(cpus=4), make_node("node-b", cpus=4)))
    other = training("other", cpus=4, node="node-b")
    world.create(other)
    await world.loop.one_pass()
    assert world.job("other").status.assignment is not None
    assert world.job("other").status.reason != "Stopping"
    world.echo()
    world.now = later(61)
    for name in ("node-a", "node-b"):
        world.renew(name, version=2)
    await world.loop.one_pass()
    assert world.job("other").status.reason == "Stopping"
