"""Places kept for jobs that wait: looked ahead by a plain simulation, and never worse than promised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyxwiz_operator.node_table import own_demand
from cyxwiz_operator.scheduling.filters import examine
from cyxwiz_operator.scheduling.planning import Plan, Queued, plan
from cyxwiz_operator.scheduling.room import Room
from cyxwiz_operator.views import JobView, NodeView

from .builders import ago, later, make_bound_job, make_job, make_node, make_table
from .test_scheduling import clusters
from .test_scheduling import jobs as any_job


def running(name: str, *, ends_in_s: int | None = None, node: str = "node-a", **job: Any) -> JobView:
    progress = {} if ends_in_s is None else {"progress": {"remainingSeconds": ends_in_s}}
    return make_bound_job(name, node=node, execution={"state": "Running", "startedAt": ago(600), **progress}, **job)


def planned(waiting: list[JobView], nodes: list[NodeView], holding: list[JobView]) -> Plan:
    queue = [Queued(job, frozenset()) for job in waiting]
    return plan(queue, make_table(*nodes, jobs=holding), later(0), running=holding)


def placed(made: Plan) -> dict[str, str]:
    return {each.job.job.metadata.name: each.node for each in made.placements}


@settings(max_examples=200, deadline=None)
@given(clusters(), any_job("new"))
def test_room_agrees_with_the_columns(cluster: tuple[list[NodeView], list[JobView], set[str]], job: JobView) -> None:
    found, busy, offline = cluster
    table = make_table(*found, jobs=busy, offline=offline)
    demand = own_demand(job)
    verdicts = examine(demand, table)
    full = verdicts.full()
    for row in range(len(table)):
        if verdicts.fits[row] or row in full:
            assert Room.of(table, row).fits(demand) is bool(verdicts.fits[row])


def test_a_small_job_does_not_take_the_place_a_large_one_waits_for() -> None:
    holding = [running("one", cpus=4), running("two", cpus=2)]
    made = planned([make_job("large", cpus=8), make_job("small", cpus=2)], [make_node(cpus=8)], holding)
    assert placed(made) == {}
    large, small = made.waiting
    assert (large.holds, large.estimate) == ("node-a", None)
    assert "node-a is kept for a job before it" in small.message


def test_a_small_job_passes_on_another_node() -> None:
    nodes = [make_node("node-a", cpus=8), make_node("node-b", cpus=2)]
    made = planned([make_job("large", cpus=8), make_job("small", cpus=2)], nodes, [running("one", cpus=4)])
    assert placed(made) == {"small": "node-b"}


def test_a_small_job_passes_when_it_has_ended_by_then() -> None:
    holding = [running("one", cpus=4, ends_in_s=600)]
    waiting = [
        make_job("large", cpus=8),
        make_job("too-long", cpus=2, activeDeadlineSeconds=600),
        make_job("short", cpus=2, activeDeadlineSeconds=500),
    ]
    made = planned(waiting, [make_node(cpus=8)], holding)
    assert placed(made) == {"short": "node-a"}
    large = made.waiting[0]
    assert large.estimate is not None
    assert (large.holds, large.estimate.confidence) == ("node-a", "High")


def test_a_small_job_passes_into_what_is_left_over() -> None:
    holding = [running("one", cpus=4, ends_in_s=600)]
    waiting = [make_job("large", cpus=6), make_job("small", cpus=2), make_job("next", cpus=1)]
    made = planned(waiting, [make_node(cpus=8)], holding)
    assert placed(made) == {"small": "node-a"}


def test_the_node_that_is_free_first_is_kept_and_stays_kept() -> None:
    nodes = [make_node(name, cpus=8) for name in ("node-a", "node-b")]
    holding = [running("a", cpus=8, ends_in_s=500), running("b", node="node-b", cpus=8, ends_in_s=400)]
    [waiting] = planned([make_job(cpus=8)], nodes, holding).waiting
    assert waiting.holds == "node-b"
    held = make_job(cpus=8, status={"scheduling": {"holds": "node-a"}})
    assert planned([held], nodes, holding).waiting[0].holds == "node-a"
    holding[1] = running("b", node="node-b", cpus=8, ends_in_s=100)
    assert planned([held], nodes, holding).waiting[0].holds == "node-b"


def test_only_the_first_of_the_queue_keeps_a_place() -> None:
    nodes = [make_node(name, cpus=8) for name in ("node-a", "node-b")]
    holding = [running("a", cpus=8), running("b", node="node-b", cpus=8)]
    made = planned([make_job("first", cpus=8), make_job("second", cpus=8)], nodes, holding)
    assert [each.holds for each in made.waiting] == ["node-a", None]


def test_jobs_that_can_never_run_keep_nobody_from_keeping_a_place() -> None:
    impossible = [make_job(f"huge-{number}", cpus=99) for number in range(20)]
    made = planned([*impossible, make_job("large", cpus=8)], [make_node(cpus=8)], [running("one", cpus=4)])
    assert made.waiting[-1].holds == "node-a"


def test_a_job_whose_write_is_on_its_way_keeps_its_place() -> None:
    queue = [Queued(make_job("first", cpus=8), frozenset(), may_be_written=False), Queued(make_job("b"), frozenset())]
    made = plan(queue, make_table(make_node(cpus=8)), later(0))
    assert placed(made) == {}
    assert [each.job.job.metadata.name for each in made.waiting] == ["b"]


def test_those_behind_are_told_when_their_turn_comes() -> None:
    holding = [running("one", cpus=8, ends_in_s=600), running("two", node="node-b", cpus=2, ends_in_s=700)]
    nodes = [make_node("node-a", cpus=8), make_node("node-b", cpus=2)]
    made = planned([make_job("large", cpus=8), make_job("small", cpus=1)], nodes, holding)
    told = [each.estimate for each in made.waiting]
    assert [(each.in_s, each.confidence) if each else None for each in told] == [(600, "High"), (700, "Medium")]


@dataclass
class Run:
    """One job of the simulation and its true length."""

    job: JobView
    length_s: int
    ends_at_s: int = 0
    node: str = ""


LENGTHS = st.sampled_from([60, 120, 300, 600])


@st.composite
def runs(draw: st.DrawFn, name: str) -> Run:
    length_s = draw(LENGTHS)
    # Its deadline is its length: what the scheduler believes is true. (It adds half a minute for the end.)
    return Run(make_job(name, cpus=draw(st.integers(1, 8)), activeDeadlineSeconds=length_s), length_s + 30)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(runs("x"), max_size=6), st.lists(runs("y"), min_size=1, max_size=8), st.integers(1, 3), st.integers(5, 8)
)
def test_the_first_of_the_queue_starts_no_later_than_it_was_told(
    busy: list[Run], queue: list[Run], count: int, cpus: int
) -> None:
    """Pass after pass over simulated time: whoever overtakes, the time told to the first is kept."""
    nodes = [make_node(f"node-{n}", cpus=8) for n in range(count)]
    head = Run(make_job("head", cpus=cpus), 600)
    waiting = [
        Run(make_job(f"w{number}", cpus=_cpus(run), activeDeadlineSeconds=run.length_s - 30), run.length_s)
        for number, run in enumerate(queue)
    ]
    everyone = {run.job.key: run for run in (head, *waiting)}
    started: list[Run] = []
    for number, run in enumerate(busy):
        run.job = make_job(f"b{number}", cpus=_cpus(run))
        everyone[run.job.key] = run
    for each in plan([Queued(run.job, frozenset()) for run in busy], make_table(*nodes), later(0)).placements:
        run = everyone[each.job.key]
        run.node, run.ends_at_s = each.node, run.length_s
        started.append(run)
    order, clock_s, promised_s = [head, *waiting], 0, None
    held: str | None = None
    while head in order:
        on = [
            running(r.job.job.metadata.name, node=r.node, ends_in_s=r.ends_at_s - clock_s, cpus=_cpus(r))
            for r in started
            if r.ends_at_s > clock_s
        ]
        made = planned([_holding(run.job, held) if run is head else run.job for run in order], nodes, on)
        for each in made.placements:
            run = everyone[each.job.key]
            run.node, run.ends_at_s = each.node, clock_s + run.length_s
            started.append(run)
            order.remove(run)
        if head in order:
            first = made.waiting[0]
            assert first.job.key == head.job.key
            assert first.estimate is not None
            held = first.holds
            starts_at_s = clock_s + first.estimate.in_s
            promised_s = starts_at_s if promised_s is None else min(promised_s, starts_at_s)
            assert starts_at_s <= promised_s
            clock_s = min(r.ends_at_s for r in started if r.ends_at_s > clock_s)
    assert promised_s is None or clock_s <= promised_s


def _cpus(run: Run) -> int:
    return run.job.job.spec.resources.cpus


def _holding(job: JobView, node: str | None) -> JobView:
    spec = job.job.spec
    return make_job(job.job.metadata.name, cpus=spec.resources.cpus, status={"scheduling": {"holds": node}})


@pytest.mark.parametrize("leaves", [True, False])
def test_a_job_that_was_told_to_leave_is_counted_on_until_it_is_late(leaves: bool) -> None:
    order = {"intent": "Yield", "graceSeconds": 30, "orderedAt": ago(30 if leaves else 61)}
    leaving = make_bound_job("old", cpus=8, assignment=order, execution={"state": "Running"})
    [waiting] = planned([make_job(cpus=8)], [make_node(cpus=8)], [leaving]).waiting
    assert waiting.reason == ("Preempting" if leaves else "NoNodeFree")
