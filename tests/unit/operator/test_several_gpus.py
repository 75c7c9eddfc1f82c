"""Jobs of several GPUs: where they are placed, what is kept for them, what they are charged, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from cyxwiz_crds.training_job import batch_problem
from cyxwiz_operator.lifecycle import review
from cyxwiz_operator.scheduling.planning import Placement, Plan, Queued, plan
from cyxwiz_operator.scheduling.queueing import Pool
from cyxwiz_operator.scheduling.usage import Usage
from cyxwiz_operator.views import JobView, Liveness, NodeView

from .builders import NOW, START, ago, gpu_uuid, later, make_bound_job, make_job, make_node, make_table


def running(name: str, *gpus: int, **job: Any) -> JobView:
    uuids = [gpu_uuid("node-a", number) for number in gpus]
    execution = {"state": "Running", "startedAt": ago(600)}
    return make_bound_job(name, gpus=len(gpus), gpu_uuids=uuids, execution=execution, **job)


def planned(waiting: list[JobView], node: NodeView, *holding: JobView) -> Plan:
    return plan([Queued(job, frozenset()) for job in waiting], make_table(node, jobs=holding), NOW, running=holding)


def devices(placement: Placement) -> set[int]:
    return {int(uuid.rpartition("-")[2]) for uuid in placement.gpus}


def test_a_job_is_given_distinct_free_and_healthy_devices_of_one_node() -> None:
    node = make_node(gpus=6, ill_gpus=(1,))
    made = planned([make_job("two", gpus=2), make_job("three", gpus=3)], node, running("busy", 4))
    (two,) = made.placements
    assert len(two.gpus) == len(devices(two)) == 2
    assert not devices(two) & {1, 4}
    (three,) = made.waiting
    assert three.reason == "NoNodeFree"


def test_jobs_of_one_pass_share_no_device() -> None:
    made = planned([make_job(f"job-{number}", gpus=3) for number in range(3)], make_node(gpus=8))
    first, second = map(devices, made.placements)
    assert len(first | second) == 6
    assert [each.job.job.metadata.name for each in made.waiting] == ["job-2"]


def test_a_job_that_shares_its_gpus_has_a_part_of_several_and_never_two_of_one() -> None:
    node = make_node(gpus=2, gpu_memory_mib=16_384)
    made = planned([make_job(f"job-{number}", gpus=2, gpu_memory="8Gi") for number in range(3)], node)
    assert [devices(each) for each in made.placements] == [{0, 1}, {0, 1}]
    assert len(made.waiting) == 1


@pytest.mark.parametrize(("large", "pass_by"), [(4, []), (3, ["one"])])
def test_small_jobs_pass_only_where_no_device_is_kept_for_a_large_one(large: int, pass_by: list[str]) -> None:
    """Two of five are idle; four will be when "ends" has."""
    holding = running("ends", 0, 1, activeDeadlineSeconds=3600), running("stays", 2)
    waiting = [make_job("large", gpus=large), make_job("one", gpus=1), make_job("another", gpus=1)]
    made = planned(waiting, make_node(gpus=5), *holding)
    assert [each.job.job.metadata.name for each in made.placements] == pass_by
    assert made.waiting[0].holds == "node-a"


def test_what_is_left_over_later_is_not_given_where_it_is_not_free_now() -> None:
    """The device that is idle is one of those kept; the one left over once "ends" has is still busy."""
    holding = running("ends", 1, 2, activeDeadlineSeconds=3600), running("stays", 3)
    made = planned([make_job("large", gpus=2), make_job("small", gpus=1)], make_node(gpus=4), *holding)
    assert made.placements == ()
    large, small = made.waiting
    assert large.holds == "node-a"
    assert "node-a is kept for a job before it" in small.message


def test_a_namespace_is_charged_for_each_gpu_of_its_jobs() -> None:
    pool = Pool(gpus=8, cpus=800, memory_mib=10_000_000)
    jobs = [running("four", 0, 1, 2, 3, namespace="large"), running("one", 4, namespace="small")]
    used = Usage(START).accrued(jobs, pool, later(600).wall).by_namespace
    assert used["large"] == pytest.approx(4 * used["small"])


@pytest.mark.parametrize(
    ("batch_size", "gpus", "parts", "words"),
    [
        (32, 0, 1, None),
        (32, 4, 2, None),
        (32, 3, 1, "batchSize: 32 has no 3 equal parts, as resources.gpus: 3 ask for: set batchSize: 30 or 33"),
        (3, 4, 1, "batchSize: 3 has no 4 equal parts, as resources.gpus: 4 ask for: set batchSize: 4"),
        (
            32, 2, 3,
            "batchSize: 32 has no 6 equal parts, as resources.gpus: 2 and hyperparameters.accumulateSteps: 3 ask for: "
            "set batchSize: 30 or 36",
        ),
    ],
)  # fmt: skip
def test_batches_have_equal_parts(batch_size: int, gpus: int, parts: int, words: str | None) -> None:
    assert batch_problem(batch_size, gpus, parts) == words


def test_a_batch_that_gpus_cannot_share_ends_the_job_before_it_waits_for_them() -> None:
    change = review(make_job(gpus=3, batchSize=32), Liveness.ONLINE, NOW)
    assert change is not None
    assert (change.status.phase, change.status.reason) == ("Failed", "UserError")
    assert "set batchSize: 30 or 33" in (change.status.summary or "")
    assert review(make_job(gpus=3, batchSize=33), Liveness.ONLINE, NOW) is None
