"""Processes killed in the middle of a job, one at a time."""

from __future__ import annotations

import os
import signal

from cyxwiz_platform import Platform
from tests.thread import (
    TRAINS_WITHIN_S,
    apply_and_wait,
    digits,
    endless,
    finished,
    status_of,
    stepping,
    trainers_of,
    wait_gone,
)


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
    assert set(status["goodput"]) == {"usefulSeconds", "lostSeconds", "waitingSeconds"}


def test_a_job_that_succeeded_says_what_it_was_made_with_and_what_became_of_its_time(thread: Platform) -> None:
    status = status_of(apply_and_wait(thread, digits("accounted"), finished, "a final phase"))
    assert status["phase"] == "Succeeded"
    execution = status["execution"]
    assert execution["bottleneck"].startswith("CPU: computes ")
    receipt = execution["receipt"]
    assert receipt["data"] == f"sha256:{execution['data']['sha256']}"
    assert receipt["model"] == f"sha256:{execution['model']['sha256']}"
    assert {"seed", "cyxwiz", "python", "torch", "code"} < receipt.keys()
    assert status["goodput"]["lostSeconds"] == 0
