"""The queue at work on two machines: preemption, places kept, cordons, drains."""

from __future__ import annotations

import pytest

from cyxwiz_platform import Platform
from tests.thread import (
    TRAINS_WITHIN_S,
    apply_and_wait,
    digits,
    endless,
    finished,
    has_checkpoint,
    phase,
    status_of,
    stepping,
)

ON_A = {"kubernetes.io/hostname": "node-a"}


def test_an_urgent_job_takes_the_place_of_another_which_goes_on_from_its_checkpoint(hasty: Platform) -> None:
    apply_and_wait(hasty, endless("patient", cpus=2), has_checkpoint, "a checkpoint")
    done = apply_and_wait(hasty, digits("urgent", cpus=2, epochs=1, priority=10), finished, "a final phase")
    assert (status_of(done)["phase"], status_of(done)["attempt"]) == ("Succeeded", 1)
    after = hasty.wait_for(
        "trainingjob",
        "patient",
        lambda job: status_of(job).get("attempt") == 2 and stepping(job),
        what="training again",
        within_s=TRAINS_WITHIN_S,
    )
    status = status_of(after)
    assert [(record["attempt"], record["outcome"]) for record in status["history"]] == [(1, "Preempted")]
    source = status["assignment"]["restoreFrom"]
    assert source["attempt"] == 1
    assert status["execution"]["progress"]["step"] >= source["step"] > 0
    assert status.get("failures", 0) == 0


def test_small_jobs_pass_a_large_one_only_where_they_are_not_in_its_way(thread: Platform) -> None:
    apply_and_wait(thread, endless("filler", nodeSelector=ON_A), phase("Running"), "Running")
    large = apply_and_wait(thread, endless("large", cpus=2), phase("Queued"), "Queued")
    assert status_of(large)["scheduling"]["holds"] == "node-a"
    small = apply_and_wait(thread, digits("small", epochs=1, nodeSelector=ON_A), phase("Queued"), "Queued")
    assert "kept for a job before it" in status_of(small)["summary"]
    passed = apply_and_wait(thread, digits("passes", epochs=1), finished, "a final phase")
    assert status_of(passed)["assignment"]["node"] == "node-b"
    assert status_of(thread.get("trainingjob", "small"))["phase"] == "Queued"
    thread.cluster.run_kubectl("delete", "trainingjob", "filler")
    thread.wait_for("trainingjob", "large", phase("Running"), what="Running", within_s=TRAINS_WITHIN_S)


def test_a_cordoned_node_takes_no_new_job_until_it_is_uncordoned(thread: Platform) -> None:
    thread.cluster.run_kubectl("cordon", "node-a")
    try:
        thread.wait_for("computenode", "node-a", phase("Unschedulable"), what="Unschedulable")
        waiting = apply_and_wait(thread, digits("kept-away", cpus=2, epochs=1), phase("Queued"), "Queued")
        assert "node-a is unschedulable" in status_of(waiting)["summary"]
    finally:
        thread.cluster.run_kubectl("uncordon", "node-a")
    job = thread.wait_for("trainingjob", "kept-away", finished, what="a final phase", within_s=TRAINS_WITHIN_S)
    assert status_of(job)["phase"] == "Succeeded"


@pytest.mark.parametrize("how", ["spec.drain", "kubectl drain"])
def test_a_job_on_a_drained_node_saves_a_checkpoint_and_moves(thread: Platform, how: str) -> None:
    kubectl = thread.cluster.run_kubectl
    before = apply_and_wait(thread, endless("moves-on"), has_checkpoint, "a checkpoint")
    node = status_of(before)["assignment"]["node"]

    def patch(spec: str) -> None:
        kubectl("patch", "computenode", node, "--type=merge", "-p", f'{{"spec":{spec}}}')

    if how == "spec.drain":
        patch('{"drain":true}')
    else:
        patch('{"cordonDrains":true}')
        # The agent's Pod belongs to no DaemonSet here, and its token ends with it: no Pod is to be evicted.
        kubectl("drain", node, "--ignore-daemonsets", "--pod-selector=none=none")
    try:
        moved = thread.wait_for(
            "trainingjob",
            "moves-on",
            lambda job: status_of(job).get("attempt") == 2 and stepping(job),
            what="training elsewhere",
            within_s=TRAINS_WITHIN_S,
        )
        assert status_of(moved)["assignment"]["node"] != node
        assert [record["outcome"] for record in status_of(moved)["history"]] == ["Evicted"]
        assert status_of(thread.get("computenode", node))["phase"] == "Draining"
    finally:
        patch('{"drain":false,"cordonDrains":null}')
        kubectl("uncordon", node)
    thread.wait_for("computenode", node, phase("Online"), what="Online")
