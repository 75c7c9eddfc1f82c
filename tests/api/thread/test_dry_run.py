"""Dry runs on a real API server: an answer in the object, and nothing has run."""

from __future__ import annotations

from cyxwiz_platform import Platform
from tests.thread import Object, apply_and_wait, condition, digits, finished, status_of


def answer_of(thread: Platform, job: Object) -> Object:
    """Its status, by way of the command that scripts use."""
    thread.apply(job)
    name = job["metadata"]["name"]
    thread.cluster.run_kubectl("wait", "--for=condition=Finished", "--timeout=60s", f"trainingjob/{name}", timeout=70)
    seen = thread.get("trainingjob", name)
    status = status_of(seen)
    assert status["phase"] == "Succeeded"
    assert condition(seen, "Complete")["status"] == "True"
    assert [field for field in ("assignment", "execution", "attempt") if status.get(field)] == []
    folders = [folder for machine in thread.machines.values() for folder in (machine.state / "jobs").iterdir()]
    assert [folder for folder in folders if folder.name.startswith(seen["metadata"]["uid"])] == []
    return status


def test_a_dry_run_says_where_it_would_start_and_after_one_job_like_it_how_long_it_takes(thread: Platform) -> None:
    before = answer_of(thread, digits("asks-first", epochs=50, batchSize=31, dryRun=True))
    assert before["reason"] == "WouldStart"
    assert before["dryRun"]["node"] in thread.machines
    assert before["dryRun"]["duration"] == "unknown"
    assert "One with epochs: 1 makes it known" in before["summary"]
    assert len(before["scheduling"]["candidates"]) == 2

    shows = apply_and_wait(thread, digits("shows-it", epochs=2, batchSize=31), finished, "a final phase")
    shown_by = status_of(shows)["assignment"]

    def knows(node: Object) -> bool:
        outcomes = (status_of(node).get("reputation") or {}).get("outcomes", [])
        return any(outcome["job"] == shown_by["id"] and outcome.get("measured") for outcome in outcomes)

    thread.wait_for("computenode", shown_by["node"], knows, what="its measured speed", within_s=60)
    # Asked until it knows: the operator reads what it has written of a node by its own watch.
    asks = (digits(f"asks-again-{again}", epochs=50, batchSize=31, dryRun=True) for again in range(30))
    answers = (answer_of(thread, ask) for ask in asks)
    after = next(answer for answer in answers if answer["dryRun"]["measuredOn"] >= 1)
    assert after["dryRun"]["durationSeconds"] > 0
    assert "by 1 earlier job like it on CPU" in after["summary"]


def test_a_dry_run_of_what_no_node_can_run_counts_the_nodes_by_reason(thread: Platform) -> None:
    status = answer_of(thread, digits("asks-too-much", gpus=8, dryRun=True))
    assert status["reason"] == "NoNodeFits"
    assert "0/2 nodes fit" in status["summary"]
    assert "8 GPUs" in status["scheduling"]["rejected"]
