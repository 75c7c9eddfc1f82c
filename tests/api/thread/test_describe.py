"""What a person reads at `kubectl describe tj`: who waits, was preempted, is tried again, was cancelled.

`pytest -s tests/api/thread/test_describe.py` prints all of it.
"""

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
    has_checkpoint,
    phase,
    status_of,
    stepping,
    trainers_of,
)


def described(thread: Platform, name: str) -> str:
    text = thread.cluster.run_kubectl("describe", "tj", name)
    print(f"\n$ kubectl describe tj {name}\n{text}")
    return " ".join(text.split())


def test_a_waiting_job_says_for_what_and_for_how_long(thread: Platform) -> None:
    apply_and_wait(thread, endless("fills-it", cpus=2, activeDeadlineSeconds=3600), stepping, "training")
    apply_and_wait(thread, digits("waits", cpus=2), phase("Queued"), "Queued")
    thread.wait_for(
        "trainingjob", "waits", lambda job: bool(status_of(job)["scheduling"].get("estimatedStart")), what="an estimate"
    )
    text = described(thread, "waits")
    assert "Phase: Queued Reason: NoNodeFree" in text
    assert (
        "Position 1. 0/2 nodes have room: node-b has fewer than 2 CPUs, node-a full (2 of 2 CPUs used by 1 job)."
        in text
    )
    assert "The next place on node-a is kept for it" in text
    assert "Expected to start about 20" in text
    assert "Confidence: Low" in text, "it rests on the other's deadline"


def test_a_preempted_job_says_for_whom_it_left_and_that_it_goes_on(hasty: Platform) -> None:
    apply_and_wait(hasty, endless("patient", cpus=2), has_checkpoint, "saved")
    hasty.apply(endless("urgent", cpus=2, priority=10))
    hasty.wait_for(
        "trainingjob", "patient", lambda job: status_of(job).get("phase") == "Queued", what="Queued again",
        within_s=TRAINS_WITHIN_S,
    )  # fmt: skip
    text = described(hasty, "patient")
    assert "Outcome: Preempted" in text
    assert "ended: Preempted by default/urgent (priority 10): left node-a with a checkpoint at step" in text
    assert "Position 1." in text
    assert "Restore From:" in text


def test_a_job_that_crashed_says_how_and_when_it_is_tried_again(thread: Platform) -> None:
    running = apply_and_wait(thread, endless("crashes"), stepping, "training")
    for trainer in trainers_of(status_of(running)["assignment"]["id"]):
        os.kill(trainer, signal.SIGKILL)
    thread.wait_for("trainingjob", "crashes", lambda job: bool(status_of(job).get("retryAt")), what="to be tried again")
    text = described(thread, "crashes")
    assert "ended as Crashed: The trainer was killed by SIGKILL" in text
    assert "was killed by SIGKILL" in text
    assert "Will be tried again after 20" in text
    assert "1 of 3 retries used" in text
    assert "Failures: 1" in text


def test_a_cancelled_job_says_how_far_it_came_and_where_its_checkpoint_is(thread: Platform) -> None:
    apply_and_wait(thread, endless("ended"), has_checkpoint, "a checkpoint")
    thread.cluster.run_kubectl("patch", "tj", "ended", "--type=merge", "-p", '{"spec":{"cancel":true}}')
    thread.wait_for("trainingjob", "ended", finished, what="a final phase")
    text = described(thread, "ended")
    assert "Phase: Cancelled Reason: CancelledByUser" in text
    assert "Cancelled by the user. Epoch" in text
    assert "Last checkpoint: step" in text
