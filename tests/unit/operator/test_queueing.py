"""Priority, then fair share, then age."""

from __future__ import annotations

from cyxwiz_operator.scheduling.queueing import Pool, order, usage_of
from cyxwiz_operator.views import JobView

from .builders import make_bound_job, make_job

POOL = Pool(gpus=8, cpus=64, memory_mib=1_000_000)


def names(jobs: list[JobView]) -> list[str]:
    return [job.job.metadata.name for job in jobs]


def test_higher_priority_goes_first() -> None:
    jobs = [make_job("old", age_s=100), make_job("urgent", priority=5), make_job("last", age_s=200, priority=-1)]
    assert names(order(jobs, {}, POOL)) == ["urgent", "old", "last"]


def test_the_oldest_of_one_namespace_goes_first_and_names_break_ties() -> None:
    jobs = [make_job("b"), make_job("a"), make_job("old", age_s=10)]
    assert names(order(jobs, {}, POOL)) == ["old", "a", "b"]


def test_a_burst_of_one_team_does_not_keep_the_others_waiting() -> None:
    burst = [make_job(f"burst-{n}", namespace="team-a", age_s=100 - n) for n in range(3)]
    late = [make_job(f"late-{n}", namespace="team-b", age_s=10 - n) for n in range(2)]
    assert names(order([*burst, *late], {}, POOL)) == ["burst-0", "late-0", "burst-1", "late-1", "burst-2"]


def test_whoever_holds_less_goes_first() -> None:
    running = make_bound_job("running", namespace="team-a", gpus=4, gpu_uuids=["x"])
    jobs = [make_job("a", namespace="team-a", age_s=100), make_job("b", namespace="team-b")]
    assert names(order(jobs, usage_of([running], POOL), POOL)) == ["b", "a"]


def test_the_share_is_that_of_the_scarcest_resource() -> None:
    gpu = make_bound_job("gpu", namespace="team-a", gpus=1)
    cpu = make_bound_job("cpu", namespace="team-b", cpus=32)
    assert usage_of([gpu, cpu], POOL) == {"team-a": 1 / 8, "team-b": 1 / 2}


def test_ended_jobs_count_for_nothing() -> None:
    assert usage_of([make_bound_job(gpus=4, execution={"state": "Failed"})], POOL) == {}
