"""What a ComputeNode's status says, and how its reputation moves."""

from __future__ import annotations

from typing import Any

import pytest

from cyxwiz_crds import ComputeNodeStatus
from cyxwiz_crds.compute_node import Allocation, Outcome
from cyxwiz_operator.node_review import allocations, review_node
from cyxwiz_operator.reputation import KEPT, is_on_probation, merged, outcomes_of, score_of
from cyxwiz_operator.speeds import Speeds, speeds_of, typical_speeds
from cyxwiz_operator.uptime import WEEK_S, online_s
from cyxwiz_operator.views import JobView, Liveness, NodeView

from .builders import NOW, START, ago, gpu_uuid, later, make_bound_job, make_job, make_node, make_table


def reviewed(node: NodeView, liveness: Liveness, *outcomes: Outcome, shut: bool = False) -> ComputeNodeStatus:
    return review_node(node, liveness, Allocation(), outcomes, shut, NOW)


@pytest.mark.parametrize(
    ("liveness", "before", "unschedulable", "phase"),
    [
        (Liveness.ONLINE, None, False, "Online"),
        (Liveness.ONLINE, "Offline", True, "Unschedulable"),
        (Liveness.UNSURE, None, False, "Offline"),
        (Liveness.UNSURE, "Online", False, "Online"),
        (Liveness.EXPIRED, "Online", False, "Offline"),
        (Liveness.FENCED, "Online", False, "Offline"),
    ],
)
def test_the_phase(liveness: Liveness, before: str | None, unschedulable: bool, phase: str) -> None:
    node = make_node(status={"phase": before} if before else {}, unschedulable=unschedulable)
    assert reviewed(node, liveness).phase == phase


def test_a_second_review_changes_nothing() -> None:
    for liveness in Liveness:
        first = reviewed(make_node(gpus=2), liveness)
        again = make_node(gpus=2, status=first.wire() | {"inventory": None})
        status = again.node.status.model_copy(update={"inventory": first.inventory})
        node = NodeView(again.node.model_copy(update={"status": status}))
        assert reviewed(node, liveness) == node.node.status


def test_uptime_starts_again_after_a_break() -> None:
    since = ago(3600)
    assert reviewed(make_node(status={"onlineSince": since}), Liveness.ONLINE).online_since == since
    assert reviewed(make_node(status={"onlineSince": since}), Liveness.EXPIRED).online_since is None
    assert reviewed(make_node(), Liveness.ONLINE).online_since == NOW.timestamp


def test_a_silent_node_whose_loss_is_not_believed_says_so() -> None:
    status = reviewed(make_node(), Liveness.EXPIRED, shut=True)
    assert [(each.status, each.reason) for each in status.conditions if each.type == "Ready"] == [
        ("False", "TooManyNodesLost")
    ]


def test_an_ill_gpu_is_named() -> None:
    status = reviewed(make_node(gpus=1, gpu_health="Lost"), Liveness.ONLINE)
    [driver] = [each for each in status.conditions if each.type == "DriverHealthy"]
    assert (driver.status, driver.message) == ("False", "GPU-node-a-0 is Lost")


def test_foreign_use_of_a_gpu_is_a_condition_from_the_first_time_on() -> None:
    def exclusive(node: NodeView) -> list[tuple[str, str]]:
        conditions = reviewed(node, Liveness.ONLINE).conditions
        return [(each.status, each.message) for each in conditions if each.type == "GPUsExclusive"]

    node = make_node(gpus=1, gpu_health="InUse")
    assert exclusive(make_node(gpus=1)) == []
    assert exclusive(node) == [("False", "GPU-node-a-0 is InUse. No job is placed there until that is over.")]
    seen = reviewed(node, Liveness.ONLINE).conditions
    over = make_node(gpus=1, status={"conditions": [each.wire() for each in seen]})
    assert exclusive(over) == [("True", "Nobody else uses its GPUs.")]
    assert not make_table(node).gpu_usable.any()


def test_allocations_count_what_jobs_hold() -> None:
    jobs = [make_bound_job("one", gpus=1, cpus=2, gpu_uuids=[gpu_uuid("node-a", 1)]), make_bound_job("two")]
    in_use = allocations(make_table(make_node(gpus=2), jobs=jobs))["node-a"]
    assert (in_use.jobs, in_use.gpus, in_use.cpus, in_use.memory_mi_b) == (2, 1, 3, 2048)


def outcome(name: str, good: bool, age_s: float = 0) -> Outcome:
    return Outcome(job=name, good=good, ended_at=ago(age_s))


def test_a_new_node_has_the_prior() -> None:
    assert score_of([], START) == 0.9


def test_failures_lower_the_score_and_fade() -> None:
    fresh = score_of([outcome("a", False)], START)
    old = score_of([outcome("a", False)], later(30 * 24 * 3600).wall)
    assert fresh == pytest.approx(0.6)
    assert fresh < old < 0.9


def measured(name: str, rate: str, **fields: Any) -> Outcome:
    """A good outcome of a job that trained at this rate."""
    shown = {"workload": "cnn-1", "device": "Test GPU", "secondsPerStep": "0.1", "stepsPerEpoch": 10}
    value = {"job": name, "good": True, "endedAt": ago(0), "measured": {**shown, "samplesPerSecond": rate, **fields}}
    return Outcome.model_validate(value)


def typical(*rates: str, **fields: Any) -> Speeds:
    """Of a fleet in which each node has shown one of these rates."""
    return typical_speeds(speeds_of([measured(f"j{n}", rate, **fields)]) for n, rate in enumerate(rates))


def test_a_node_that_trains_slower_than_the_fleet_is_trusted_less() -> None:
    fleet = typical("1000.0", "1000.0", "500.0")
    slow, usual, fast = (score_of([measured("j", rate)], START, fleet) for rate in ("450.0", "950.0", "2000.0"))
    assert slow == pytest.approx((0.9 * 2 + 0.5) / 3)
    assert usual == fast == pytest.approx((0.9 * 2 + 1.0) / 3)


def test_a_speed_is_compared_with_the_same_work_on_the_same_gpu_of_at_least_three_nodes() -> None:
    slow = [measured("j", "100.0")]
    assert score_of(slow, START, typical("1000.0", "1000.0")) == score_of(slow, START)
    assert score_of(slow, START, typical("1000.0", "1000.0", "1000.0", device="Other GPU")) == score_of(slow, START)
    assert score_of(slow, START, typical("1000.0", "1000.0", "1000.0", workload="vit-1")) == score_of(slow, START)
    assert score_of(slow, START, typical("1000.0", "1000.0", "1000.0")) < score_of(slow, START)


def test_a_speed_reached_beside_other_jobs_says_nothing_of_the_node() -> None:
    fleet = typical("1000.0", "1000.0", "1000.0")
    assert score_of([measured("j", "100.0", shared=True)], START, fleet) == score_of([measured("j", "1.0")], START)
    assert typical("1000.0", "1000.0", "1000.0", shared=True) == {}


@pytest.mark.parametrize("rate", ["0", "-5", "nan", "inf", "fast"])
def test_what_is_no_speed_is_not_compared(rate: str) -> None:
    assert score_of([measured("j", rate)], START, typical("9.0", "9.0", "9.0")) == score_of(
        [measured("j", "9.0")], START
    )


def test_a_node_with_two_faults_in_a_row_gets_one_job_at_a_time_until_one_succeeds() -> None:
    faults = [outcome("a", False, 20), outcome("b", False, 10)]

    def most_jobs(*outcomes: Outcome) -> int:
        status = {"reputation": {"score": "0.50", "outcomes": [each.wire() for each in outcomes]}}
        return int(make_table(make_node(status=status, maxConcurrentJobs=8)).max_jobs[0])

    assert most_jobs(*faults) == 1
    assert most_jobs(*faults, outcome("c", True, 5)) == 8
    assert most_jobs(outcome("a", False, 20), outcome("c", True, 15), outcome("b", False, 10)) == 8
    assert not is_on_probation(faults, later(25 * 3600).wall), "a day without a fault ends it too"
    status = reviewed(make_node(), Liveness.ONLINE, *faults)
    assert status.reputation is not None
    assert "one job at a time until one succeeds" in (status.reputation.probation or "")
    assert "one job at a time" in (status.summary or "")


def test_a_week_of_uptime_outlives_a_break() -> None:
    broken = reviewed(make_node(status={"phase": "Online", "onlineSince": ago(3600)}), Liveness.EXPIRED)
    assert [(span.since, span.until) for span in broken.earlier_online] == [(ago(3600), ago(0))]
    again = later(600)
    back = make_node(status=broken.wire() | {"onlineSince": ago(0)})
    assert online_s(back.online_since, back.earlier_online, again.wall) == 3600 + 600
    assert online_s(None, back.earlier_online, later(WEEK_S + 10).wall) == 0
    assert online_s(ago(10 * WEEK_S), [], START) == WEEK_S


def test_counting_an_outcome_again_changes_nothing() -> None:
    known = merged([], [outcome("a", True), outcome("b", False, 5)])
    assert merged(known, known) == known
    assert [each.job for each in known] == ["b", "a"]


def test_outcomes_that_were_dropped_do_not_come_back() -> None:
    many = [outcome(f"o{number}", True, age_s=number) for number in range(KEPT + 10)]
    kept = merged([], many)
    assert len(kept) == KEPT
    assert merged(kept, many) == kept


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (make_bound_job(status={"phase": "Succeeded", "finishedAt": ago(0)}), [("node-a", True)]),
        (make_bound_job(status={"phase": "Failed", "reason": "UserError", "finishedAt": ago(0)}), []),
        (make_bound_job(status={"phase": "Cancelled", "finishedAt": ago(0)}), []),
        (make_job(status={"history": [
            {"attempt": 1, "node": "node-b", "outcome": "NodeLost", "endedAt": ago(0)},
            {"attempt": 2, "node": "node-c", "outcome": "Crashed", "endedAt": ago(0)},
            {"attempt": 3, "node": "node-d", "outcome": "NeverClaimed", "endedAt": ago(0)},
            {"attempt": 4, "node": "node-e", "outcome": "Suspended", "endedAt": ago(0)},
        ]}), [("node-b", False), ("node-d", False)]),
    ],
)  # fmt: skip  # a table
def test_only_what_the_node_caused_counts(job: JobView, expected: list[tuple[str, bool]]) -> None:
    assert [(node, each.good) for node, each in outcomes_of(job)] == expected
