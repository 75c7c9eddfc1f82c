"""The whole thread on a real API server: applied, bound, trained, watched; and broken on purpose."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cyxwiz_crds import FINAL_PHASES
from cyxwiz_devcluster import Cluster
from cyxwiz_platform import Platform

TRAINS_WITHIN_S = 90.0
Object = dict[str, Any]


def digits(name: str, *, epochs: int = 5, cpus: int = 1, gpus: int = 0, **spec: Any) -> Object:
    """Real images, a small network, a second or two."""
    return {
        "apiVersion": "cyxwiz.io/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name},
        "spec": {
            "model": {"name": "cnn"},
            "dataset": {"uri": "builtin://digits"},
            "epochs": epochs,
            "resources": {"gpus": gpus, "cpus": cpus, "memory": "512Mi"},
            **spec,
        },
    }


def endless(name: str, **spec: Any) -> Object:
    """A job that is still running whatever a test does meanwhile, with a checkpoint after every short epoch."""
    return digits(name, epochs=10_000, **spec)


@pytest.fixture(scope="module")
def thread(installed: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Operator and two machines of different sizes, running."""
    with Platform(installed, tmp_path_factory.mktemp("t")) as platform:
        platform.add_machine("node-a", cpus=2, memory="4Gi")
        platform.add_machine("node-b", cpus=1, memory="2Gi")
        platform.start_operator()
        platform.wait_machines()
        for name in platform.machines:
            platform.wait_for("computenode", name, is_online, what="Online with trainers")
        yield platform
        print(platform.operator.last_words() if platform.operator else "")
    installed.run_kubectl("delete", "trainingjobs,computenodes,nodes", "--all")


@pytest.fixture(autouse=True)
def no_jobs_left(installed: Cluster) -> Iterator[None]:
    yield
    installed.run_kubectl("delete", "trainingjobs", "--all", "-n", "default")


def is_online(node: Object) -> bool:
    status = node.get("status", {})
    return status.get("phase") == "Online" and bool(status.get("inventory", {}).get("models"))


def status_of(job: Object) -> Object:
    return job.get("status", {})


def phase(*phases: str) -> Any:
    return lambda job: status_of(job).get("phase") in phases


def finished(job: Object) -> bool:
    return status_of(job).get("phase") in FINAL_PHASES


def stepping(job: Object) -> bool:
    """It has reported training steps."""
    return (status_of(job).get("execution", {}).get("progress") or {}).get("step", 0) > 0


def condition(job: Object, kind: str) -> Object:
    return next((c for c in status_of(job).get("conditions", []) if c["type"] == kind), {})


def apply_and_wait(platform: Platform, job: Object, until: Any, what: str) -> Object:
    platform.apply(job)
    return platform.wait_for("trainingjob", job["metadata"]["name"], until, what=what, within_s=TRAINS_WITHIN_S)


def trainers_of(assignment: str) -> list[int]:
    """Processes that train this assignment: those whose working folder is its job folder."""
    found: list[int] = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if (process / "cwd").readlink().name == assignment:
                    found.append(int(process.name))
            except OSError:
                continue
    return found


def wait_gone(assignment: str, within_s: float = 40.0) -> None:
    deadline = time.monotonic() + within_s
    while trainers := trainers_of(assignment):
        assert time.monotonic() < deadline, f"still running: {trainers}"
        time.sleep(0.1)


def test_an_applied_job_is_bound_trained_and_succeeds_with_its_models_digest(thread: Platform) -> None:
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


def test_an_operator_killed_in_the_middle_changes_nothing(thread: Platform) -> None:
    before = apply_and_wait(thread, endless("survives"), stepping, "training")
    assert thread.operator is not None
    thread.operator.kill()
    thread.apply(digits("meanwhile", epochs=1))
    thread.start_operator()
    done = thread.wait_for("trainingjob", "meanwhile", finished, what="a final phase", within_s=TRAINS_WITHIN_S)
    assert status_of(done)["phase"] == "Succeeded"
    after = thread.get("trainingjob", "survives")
    assert status_of(after)["phase"] == "Running"
    assert status_of(after)["assignment"] == status_of(before)["assignment"]


def test_an_agent_killed_and_started_again_finds_its_job_running(thread: Platform) -> None:
    before = apply_and_wait(thread, endless("found-again"), stepping, "training")
    assignment = status_of(before)["assignment"]
    trainers = trainers_of(assignment["id"])
    machine = thread.machines[assignment["node"]]
    machine.agent.kill()
    thread.restart_agent(machine.name)
    seen = status_of(before)["execution"]["progress"]["step"]
    after = thread.wait_for(
        "trainingjob", "found-again", lambda j: status_of(j)["execution"]["progress"]["step"] > seen, what="more steps"
    )
    assert status_of(after)["assignment"] == assignment
    assert trainers_of(assignment["id"]) == trainers


def test_a_killed_runner_takes_its_jobs_along_and_they_are_retried_from_their_checkpoint(thread: Platform) -> None:
    before = apply_and_wait(
        thread, endless("retried"), lambda j: status_of(j).get("execution", {}).get("checkpoint"), "a checkpoint"
    )
    assignment = status_of(before)["assignment"]
    machine = thread.machines[assignment["node"]]
    machine.runner.kill()
    wait_gone(assignment["id"])
    thread.restart_runner(machine.name)
    after = thread.wait_for(
        "trainingjob",
        "retried",
        lambda j: status_of(j).get("attempt", 0) > 1 and stepping(j),
        what="a second attempt",
        within_s=TRAINS_WITHIN_S,
    )
    history = status_of(after)["history"]
    assert [(entry["attempt"], entry["outcome"]) for entry in history][:1] == [(1, "Evicted")]
    assert status_of(after).get("failures", 0) == 0


def test_a_trainer_that_crashes_is_retried_and_counted_until_the_limit(thread: Platform) -> None:
    running = apply_and_wait(thread, endless("crashes", backoffLimit=0), stepping, "training")
    for pid in trainers_of(status_of(running)["assignment"]["id"]):
        os.kill(pid, signal.SIGSEGV)
    job = thread.wait_for("trainingjob", "crashes", finished, what="a final phase", within_s=TRAINS_WITHIN_S)
    status = status_of(job)
    assert (status["phase"], status["reason"]) == ("Failed", "BackoffLimitExceeded")
    assert "SIGSEGV" in status["summary"]


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
