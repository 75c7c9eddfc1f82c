"""The whole thread on a real API server: applied, bound, trained, watched; and broken on purpose."""

from __future__ import annotations

import hashlib
import json
import time

from cyxwiz_platform import Platform
from tests.thread import (
    TRAINS_WITHIN_S,
    Object,
    apply_and_wait,
    condition,
    digits,
    endless,
    finished,
    phase,
    status_of,
    stepping,
    trainers_of,
    wait_gone,
    wait_warm,
)


def test_an_applied_job_is_bound_trained_and_succeeds_with_its_models_digest(thread: Platform) -> None:
    wait_warm(thread)
    job = apply_and_wait(thread, digits("whole"), finished, "a final phase")
    status = status_of(job)
    assert status["phase"] == "Succeeded", status.get("summary")
    assert status["attempt"] == 1
    progress = status["execution"]["progress"]
    assert (progress["epochs"], progress["percent"]) == ("5/5", "100%")
    assert float(progress["validationAccuracy"]) > 0.95
    assert status["execution"]["start"].startswith("Warm")
    assert status["execution"]["data"]["synthetic"] is False
    assert condition(job, "Finished")["status"] == condition(job, "Complete")["status"] == "True"
    assert condition(job, "Running")["status"] == condition(job, "Failed").get("status", "False") == "False"
    model = status["execution"]["model"]
    _, _, node, assignment, *path = model["uri"].split("/")
    content = thread.machines[node].state.joinpath("jobs", assignment, *path).read_bytes()
    assert hashlib.sha256(content).hexdigest() == model["sha256"]
    wait_gone(assignment)
    assert job["metadata"].get("finalizers", []) == []
    assert set(job["metadata"].get("annotations", {})) == {"kubectl.kubernetes.io/last-applied-configuration"}


def test_kubectl_wait_for_finished_ends(thread: Platform) -> None:
    thread.apply(digits("waited", epochs=1))
    thread.cluster.run_kubectl(
        "wait", "--for=condition=Finished", "--timeout=90s", "trainingjob/waited", timeout=TRAINS_WITHIN_S + 10
    )


def test_a_job_that_no_node_can_run_says_why_and_what_to_do(thread: Platform) -> None:
    job = apply_and_wait(thread, digits("impossible", gpus=8), phase("Queued"), "Queued")
    scheduled = condition(job, "Scheduled")
    assert (scheduled["status"], scheduled["reason"]) == ("False", "NoNodeFits")
    assert "0/2 nodes" in status_of(job)["summary"]
    assert "gpus: 0" in status_of(job)["summary"]


def test_a_job_waits_while_its_only_node_is_full_and_then_runs(thread: Platform) -> None:
    apply_and_wait(thread, endless("fills-a", cpus=2), phase("Running"), "Running")
    waiting = apply_and_wait(thread, digits("waits", cpus=2, epochs=1), phase("Queued"), "Queued")
    assert condition(waiting, "Scheduled")["reason"] == "NoNodeFree"
    thread.cluster.run_kubectl("delete", "trainingjob", "fills-a")
    job = thread.wait_for("trainingjob", "waits", finished, what="a final phase", within_s=TRAINS_WITHIN_S)
    assert status_of(job)["phase"] == "Succeeded"
    assert condition(job, "Scheduled")["status"] == "True"


def test_a_mistake_of_the_user_fails_at_once_with_advice_and_is_not_retried(thread: Platform) -> None:
    job = digits("mistake") | {}
    job["spec"]["model"] = {"name": "resnet19"}
    failed = apply_and_wait(thread, job, finished, "a final phase")
    status = status_of(failed)
    assert (status["phase"], status["reason"], status["attempt"]) == ("Failed", "UserError", 1)
    assert "resnet18" in status["summary"]
    assert condition(failed, "Finished")["status"] == "True"


def test_a_cancelled_job_stops_its_processes_and_keeps_its_record(thread: Platform) -> None:
    running = apply_and_wait(thread, endless("cancelled"), stepping, "training")
    assignment = status_of(running)["assignment"]["id"]
    assert trainers_of(assignment)
    thread.cluster.run_kubectl("patch", "tj", "cancelled", "--type=merge", "-p", '{"spec":{"cancel":true}}')
    job = thread.wait_for("trainingjob", "cancelled", finished, what="a final phase")
    assert status_of(job)["phase"] == "Cancelled"
    assert status_of(job)["assignment"]["id"] == assignment
    wait_gone(assignment)


def test_a_deleted_job_is_gone_at_once_and_its_processes_soon_after(thread: Platform) -> None:
    running = apply_and_wait(thread, endless("deleted"), stepping, "training")
    assignment = status_of(running)["assignment"]["id"]
    thread.cluster.run_kubectl("delete", "trainingjob", "deleted", "--timeout=5s")
    assert thread.get("trainingjob", "deleted") == {}
    wait_gone(assignment)


def test_a_suspended_job_gives_its_place_back_and_goes_on_from_its_checkpoint(thread: Platform) -> None:
    apply_and_wait(thread, endless("paused"), stepping, "training")
    thread.cluster.run_kubectl("patch", "tj", "paused", "--type=merge", "-p", '{"spec":{"suspend":true}}')
    paused = thread.wait_for("trainingjob", "paused", phase("Suspended"), what="Suspended")
    assert "assignment" not in status_of(paused)
    step = status_of(paused)["restoreFrom"]["step"]
    assert step > 0
    thread.cluster.run_kubectl("patch", "tj", "paused", "--type=merge", "-p", '{"spec":{"suspend":false}}')
    job = thread.wait_for(
        "trainingjob", "paused", lambda j: status_of(j).get("attempt") == 2 and stepping(j), what="on"
    )
    assert status_of(job)["execution"]["progress"]["step"] >= step


def test_a_job_under_way_is_steered_from_kubectl_and_says_which_order_it_goes_by(thread: Platform) -> None:
    apply_and_wait(thread, endless("steered"), stepping, "training")

    def steer(generation: int, **control: object) -> Object:
        patch = json.dumps({"spec": {"control": {"generation": generation, **control}}})
        thread.cluster.run_kubectl("patch", "tj", "steered", "--type=merge", "-p", patch)
        taken = "{.status.execution.control.generation}"
        wait = ["wait", f"--for=jsonpath={taken}={generation}", "--timeout=60s", "trainingjob/steered"]
        thread.cluster.run_kubectl(*wait, timeout=70)
        return status_of(thread.get("trainingjob", "steered"))["execution"]

    saved = steer(1, checkpointNow=True)
    assert "checkpoint saved" in saved["control"]["message"]
    assert saved["checkpoint"]["step"] > 0
    assert "learning rate 0.001" in steer(2, learningRate=0.001, checkpointNow=False)["control"]["message"]
    steer(3, stopAfterEpoch=True)
    job = thread.wait_for("trainingjob", "steered", finished, what="a final phase")
    status = status_of(job)
    assert (status["phase"], status["attempt"]) == ("Succeeded", 1), status.get("summary")
    progress = status["execution"]["progress"]
    assert progress["learningRate"] == "0.001000"
    epoch = progress["epoch"]
    assert (progress["epochs"], progress["percent"]) == (f"{epoch}/{epoch}", "100%")
    assert f"Trained {epoch} epoch" in status["summary"]


def test_an_order_outlives_the_attempt_that_heard_it(thread: Platform) -> None:
    apply_and_wait(thread, endless("ordered"), stepping, "training")
    patch = ["patch", "tj", "ordered", "--type=merge", "-p"]
    thread.cluster.run_kubectl(*patch, '{"spec":{"control":{"generation":1,"epochs":9000},"suspend":true}}')
    thread.wait_for("trainingjob", "ordered", phase("Suspended"), what="Suspended")
    thread.cluster.run_kubectl(*patch, '{"spec":{"suspend":false}}')
    again = thread.wait_for("trainingjob", "ordered", stepping, what="training again", within_s=TRAINS_WITHIN_S)
    assert status_of(again)["attempt"] == 2
    assert status_of(again)["execution"]["progress"]["epochs"].endswith("/9000")


def test_a_bind_happens_once_while_the_job_changes_all_the_time(thread: Platform) -> None:
    thread.apply(*(digits(f"busy-{n}", epochs=1) for n in range(6)))
    for turn in range(10):
        patch = json.dumps({"spec": {"priority": turn}, "metadata": {"labels": {"turn": str(turn)}}})
        for n in range(6):
            thread.cluster.run_kubectl("patch", "tj", f"busy-{n}", "--type=merge", "-p", patch)
    for n in range(6):
        job = thread.wait_for("trainingjob", f"busy-{n}", finished, what="a final phase", within_s=TRAINS_WITHIN_S)
        assert (status_of(job)["phase"], status_of(job)["attempt"]) == ("Succeeded", 1)
        folders = [m.state / "jobs" / f"{job['metadata']['uid']}-{a}" for m in thread.machines.values() for a in (1, 2)]
        assert sum(folder.exists() for folder in folders) == 1


def test_an_unreadable_object_becomes_a_condition_on_itself_and_nothing_else(thread: Platform) -> None:
    """As after a downgrade: the stored schema allows what this operator's models do not."""
    at = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/epochs/minimum"
    crd = ["patch", "crd", "trainingjobs.cyxwiz.io", "--type=json", "-p"]

    def allow(minimum: int) -> None:
        thread.cluster.run_kubectl(*crd, json.dumps([{"op": "replace", "path": at, "value": minimum}]))

    allow(-5)
    try:
        deadline = time.monotonic() + 20
        while True:  # the API server takes up a changed schema some moments later
            try:
                thread.apply(digits("unreadable", epochs=-1))
                break
            except Exception:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        job = thread.wait_for(
            "trainingjob",
            "unreadable",
            lambda j: condition(j, "Scheduled").get("reason") == "InvalidObject",
            what="said",
        )
        assert "epochs" in condition(job, "Scheduled")["message"]
        other = apply_and_wait(thread, digits("readable", epochs=1), finished, "a final phase")
        assert status_of(other)["phase"] == "Succeeded"
    finally:
        thread.cluster.run_kubectl("delete", "trainingjob", "unreadable", "--ignore-not-found")
        allow(1)
