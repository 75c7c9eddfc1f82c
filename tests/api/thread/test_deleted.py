"""What is deleted is gone at once, whatever it was doing; what is deleted by mistake comes back."""

from __future__ import annotations

import signal

from cyxwiz_platform import Platform
from tests.thread import (
    TRAINS_WITHIN_S,
    apply_and_wait,
    digits,
    endless,
    finished,
    is_online,
    phase,
    status_of,
    stepping,
)


def test_a_job_can_be_deleted_in_every_phase_at_once(thread: Platform) -> None:
    def delete(name: str) -> None:
        thread.cluster.run_kubectl("delete", "trainingjob", name, "--timeout=5s")
        assert thread.get("trainingjob", name) == {}

    thread.apply(digits("new"))
    delete("new")
    apply_and_wait(thread, digits("queued", gpus=8), phase("Queued"), "Queued")
    delete("queued")
    apply_and_wait(thread, digits("suspended", suspend=True), phase("Suspended"), "Suspended")
    delete("suspended")
    apply_and_wait(thread, endless("running"), phase("Running"), "Running")
    delete("running")
    apply_and_wait(thread, digits("succeeded", epochs=1), finished, "a final phase")
    delete("succeeded")
    stuck = thread.machines["node-a"].agent
    stuck.signal(signal.SIGSTOP)
    try:
        on_a = {"kubernetes.io/hostname": "node-a"}
        apply_and_wait(thread, digits("bound", nodeSelector=on_a), phase("Bound"), "Bound")
        delete("bound")
    finally:
        stuck.signal(signal.SIGCONT)


def test_a_compute_node_deleted_by_mistake_comes_back_and_its_job_goes_on(thread: Platform) -> None:
    running = apply_and_wait(thread, endless("stays"), stepping, "training")
    node = status_of(running)["assignment"]["node"]
    before = thread.get("computenode", node)["metadata"]["uid"]
    thread.cluster.run_kubectl("delete", "computenode", node)
    thread.wait_for(
        "computenode",
        node,
        lambda seen: bool(seen) and seen["metadata"]["uid"] != before and is_online(seen),
        what="made again and Online",
        within_s=TRAINS_WITHIN_S,
    )
    step = status_of(thread.get("trainingjob", "stays"))["execution"]["progress"]["step"]
    after = thread.wait_for(
        "trainingjob", "stays", lambda job: status_of(job)["execution"]["progress"]["step"] > step, what="training on"
    )
    assert status_of(after)["attempt"] == 1
