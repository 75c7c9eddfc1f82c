"""Fair share over time: who used much waits longer, and nobody waits for ever."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyxwiz_operator.clock import timestamp
from cyxwiz_operator.cluster import Stored
from cyxwiz_operator.scheduling.queueing import Pool, order, together
from cyxwiz_operator.scheduling.usage import HALF_LIFE_S, Usage
from cyxwiz_operator.views import JobView

from .builders import NOW, START, later, make_bound_job, make_job
from .test_control_loop import World

POOL = Pool(gpus=0, cpus=4, memory_mib=1_000_000)


def after(usage: Usage, seconds: float, *jobs: JobView) -> Usage:
    return usage.accrued(jobs, POOL, later(seconds).wall)


def test_the_whole_pool_for_a_half_life_is_a_half() -> None:
    used = after(Usage(START), HALF_LIFE_S, make_bound_job(cpus=4))
    assert used.by_namespace == pytest.approx({"team-a": 0.5})
    assert after(used, 2 * HALF_LIFE_S).by_namespace == pytest.approx({"team-a": 0.25})


@given(st.lists(st.floats(1, 10_000), min_size=1, max_size=20))
def test_it_does_not_matter_how_often_it_is_accounted(steps: list[float]) -> None:
    job = make_bound_job(cpus=2)
    often, seconds = Usage(START), 0.0
    for step in steps:
        seconds += step
        often = after(often, seconds, job)
    assert often.by_namespace == pytest.approx(after(Usage(START), seconds, job).by_namespace, rel=1e-6)


def test_an_operator_that_was_away_counts_a_job_to_its_own_end_and_from_its_own_binding() -> None:
    ended = make_bound_job(cpus=4, execution={"state": "Failed", "endedAt": timestamp(later(600).wall)})
    assert after(Usage(START), 600, make_bound_job(cpus=4)).by_namespace["team-a"] == pytest.approx(
        after(Usage(START), 600, ended).by_namespace["team-a"]
    )
    away = after(Usage(START), 3600, ended).by_namespace["team-a"]
    assert away == pytest.approx(after(after(Usage(START), 600, ended), 3600).by_namespace["team-a"])
    since = make_bound_job(cpus=4, bound_s_ago=-1800)
    assert after(Usage(START), 1800, since).by_namespace == {}


def test_a_clock_that_is_set_back_counts_nothing_twice() -> None:
    used = after(Usage(START), 600, make_bound_job(cpus=4))
    assert after(used, 300, make_bound_job(cpus=4)) == used


def test_what_is_written_is_read() -> None:
    used = after(Usage(START), 600, make_bound_job(cpus=4))
    again = Usage.from_json(used.to_json())
    assert (again.until, again.by_namespace) == (used.until, pytest.approx(used.by_namespace, abs=1e-9))
    for broken in ("", "[]", "{}", '{"until": 3, "usage": {}}', '{"until": "now", "usage": {"a": 1}}'):
        with pytest.raises(ValueError, match=r"."):
            Usage.from_json(broken)


@given(
    st.dictionaries(st.sampled_from("bcd"), st.floats(0, 2), min_size=1),
    st.floats(0, 2),
    st.integers(0, 3),
    st.integers(1, 4),
)
def test_how_many_jobs_of_another_team_go_first_is_bounded(
    others: dict[str, float], own: float, ahead: int, cpus: int
) -> None:
    """The gap in usage, in jobs, and one for each job of its own team that is older."""
    mine = [make_job(f"mine-{n}", namespace="a", cpus=cpus, age_s=10 - n) for n in range(ahead + 1)]
    theirs = [make_job(f"x-{n}", namespace=name, cpus=cpus, age_s=100) for name in others for n in range(20)]
    queue = order([*mine, *theirs], {"a": own, **others}, POOL)
    before = queue[: queue.index(mine[-1])]
    share = cpus / POOL.cpus
    for name, used in others.items():
        first = sum(job.job.metadata.namespace == name for job in before)
        assert first <= max(0, math.floor((own - used) / share + 1e-9)) + ahead + 1


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=5), st.integers(3600, 14400))
def test_no_team_starves(past: list[float], run_s: int) -> None:
    """One place, teams that ask for it without end: each has it again within half-life x log2(teams) and a run."""
    total = sum(past) or 1.0
    teams = [f"team-{n}" for n in range(len(past))]
    usage = Usage(START, {team: value / max(1.0, total) for team, value in zip(teams, past, strict=True)})
    patience_s = HALF_LIFE_S * math.log2(len(teams)) + run_s
    waited_s = dict.fromkeys(teams, 0.0)
    clock_s = 0.0
    asking = [make_job(namespace=team) for team in teams]
    while clock_s < 2 * patience_s:
        queue = order(asking, together(usage.by_namespace, {}), POOL)
        chosen = queue[0].job.metadata.namespace
        for team in teams:
            waited_s[team] = 0.0 if team == chosen else waited_s[team] + run_s
            assert waited_s[team] <= patience_s + run_s
        usage = usage.accrued(
            [make_bound_job(namespace=chosen, cpus=4, bound_s_ago=-clock_s)], POOL, later(clock_s + run_s).wall
        )
        clock_s += run_s


def test_who_used_much_yesterday_goes_second_today() -> None:
    jobs = [make_job("a", namespace="team-a", age_s=100), make_job("b", namespace="team-b")]
    used = after(Usage(START), 3600, make_bound_job(namespace="team-a", cpus=4))
    assert [job.job.metadata.name for job in order(jobs, used.by_namespace, POOL)] == ["b", "a"]


async def test_usage_is_written_once_a_minute_and_a_kill_loses_none_of_a_running_job() -> None:
    job = make_bound_job(cpus=4, execution={"state": "Running"}, bound_s_ago=0)
    world = World(job)
    for second in range(0, 150, 10):
        world.now = later(second)
        await world.loop.one_pass()
    assert world.cluster.writes["fair share"] == 2
    seen = world.loop.fair_share.usage.by_namespace
    successor = World(job)
    successor.cluster.fair_share = world.cluster.fair_share
    successor.now = later(140)
    await successor.loop.fair_share.load(successor.now)
    await successor.loop.one_pass()
    assert successor.loop.fair_share.usage.by_namespace == pytest.approx(seen, rel=1e-6)


async def test_an_idle_cluster_writes_no_usage_and_an_unreadable_one_starts_anew() -> None:
    world = World()
    world.now = later(600)
    await world.loop.one_pass()
    assert world.cluster.writes["fair share"] == 0
    world.cluster.fair_share = Stored("not ours", "7")
    await world.loop.fair_share.load(NOW)
    assert world.loop.fair_share.usage.by_namespace == {}
