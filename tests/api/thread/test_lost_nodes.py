"""A node that loses touch: its job freezes before another may start it, and never runs twice."""

from __future__ import annotations

import signal
import time

from cyxwiz_platform import Platform
from tests.thread import apply_and_wait, endless, frozen, status_of, stepping, trainers_of, wait_frozen, wait_gone

LOST_WITHIN_S = 120.0


def test_a_job_freezes_while_its_agent_is_stuck_and_goes_on_when_it_is_not(thread: Platform) -> None:
    before = apply_and_wait(thread, endless("thaws"), stepping, "training")
    assignment = status_of(before)["assignment"]
    trainers = trainers_of(assignment["id"])
    agent = thread.machines[assignment["node"]].agent
    agent.signal(signal.SIGSTOP)
    try:
        wait_frozen(assignment["id"])
    finally:
        agent.signal(signal.SIGCONT)
    seen = status_of(thread.get("trainingjob", "thaws"))["execution"]["progress"]["step"]
    after = thread.wait_for(
        "trainingjob", "thaws", lambda j: status_of(j)["execution"]["progress"]["step"] > seen + 500, what="more steps"
    )
    assert status_of(after)["assignment"] == assignment
    assert trainers_of(assignment["id"]) == trainers


def test_a_lost_nodes_job_is_bound_elsewhere_only_when_it_computes_no_more(thread: Platform) -> None:
    before = apply_and_wait(thread, endless("moves"), stepping, "training")
    first = status_of(before)["assignment"]
    machine = thread.machines[first["node"]]
    machine.agent.kill()
    try:
        deadline = time.monotonic() + LOST_WITHIN_S
        while status_of(thread.get("trainingjob", "moves"))["attempt"] == 1:
            assert time.monotonic() < deadline, "never bound elsewhere"
            time.sleep(0.1)
        assert all(frozen(pid) for pid in trainers_of(first["id"]))
        after = thread.wait_for("trainingjob", "moves", stepping, what="training elsewhere")
        assert status_of(after)["assignment"]["node"] != first["node"]
        assert [record["outcome"] for record in status_of(after)["history"]] == ["NodeLost"]
        node = thread.get("computenode", first["node"])
        assert node["status"]["phase"] == "Offline"
    finally:
        thread.restart_agent(machine.name)
    wait_gone(first["id"])
    thread.wait_for("computenode", machine.name, lambda n: n["status"]["phase"] == "Online", what="back Online")


def test_a_job_whose_runner_is_gone_for_good_is_not_said_to_train_but_goes_on_elsewhere(thread: Platform) -> None:
    """It was shown as Running, "Training", on a node that was Online, for as long as nobody started the runner."""
    before = apply_and_wait(thread, endless("orphaned"), stepping, "training")
    first = status_of(before)["assignment"]
    machine = thread.machines[first["node"]]
    machine.runner.kill()
    try:
        thread.wait_for(
            "trainingjob",
            "orphaned",
            lambda j: status_of(j)["attempt"] == 2 and stepping(j),
            what="training elsewhere",
            within_s=2 * LOST_WITHIN_S,
        )
        assert thread.get("computenode", first["node"])["status"]["phase"] == "Offline"
    finally:
        thread.restart_runner(machine.name)
    thread.wait_for("computenode", machine.name, lambda n: n["status"]["phase"] == "Online", what="back Online")
