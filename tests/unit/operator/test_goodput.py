"""What became of a job's time, and how a stalled one is told of and ended."""

from __future__ import annotations

from typing import Any

from cyxwiz_crds import Goodput, RestoreFrom
from cyxwiz_operator.lifecycle import bound, review
from cyxwiz_operator.scheduling.planning import Placement
from cyxwiz_operator.views import JobView, Liveness

from .builders import NOW, ago, later, make_bound_job, make_job, truth, written

CHECKPOINT = {"step": 60, "epoch": 1, "digest": "sha256:ab", "uri": "node://node-a/u-1/checkpoints/step-60"}


def ended(state: str, *, first_step_s_ago: float = 90, status: dict[str, Any] | None = None, **more: Any) -> JobView:
    """Made 100 s ago, bound at once, its attempt over now: 80 of 200 steps told of, 40 s after the first."""
    execution = {
        "state": state,
        "firstStepAt": ago(first_step_s_ago),
        "endedAt": ago(0),
        "progress": {"step": 80, "totalSteps": 200, "elapsedSeconds": 40},
        **more,
    }
    return make_bound_job(age_s=100, bound_s_ago=100, execution=execution, status=status)


def account(job: JobView, node: Liveness = Liveness.ONLINE) -> tuple[int, int, int]:
    """Useful, lost and waiting seconds after the next review."""
    change = review(job, node, NOW)
    assert change is not None
    told = change.status.goodput
    assert told is not None
    return told.useful_seconds, told.lost_seconds, told.waiting_seconds


def test_all_training_of_a_job_that_succeeded_counts() -> None:
    assert account(ended("Succeeded")) == (90, 0, 10)


def test_what_no_checkpoint_holds_is_lost_and_so_is_what_came_after_the_last_step() -> None:
    assert account(ended("Failed", reason="Crashed")) == (0, 90, 10)
    # 60 of 80 steps in 40 s are saved; 50 s passed without a step.
    assert account(ended("Failed", reason="Stalled", checkpoint=CHECKPOINT)) == (30, 60, 10)


def test_steps_of_earlier_attempts_are_counted_once() -> None:
    went_on = {"attempt": 1, "step": 40, "digest": "d", "uri": CHECKPOINT["uri"]}
    before = {"usefulSeconds": 500, "lostSeconds": 7, "waitingSeconds": 1}
    job = ended("Failed", reason="Crashed", checkpoint=CHECKPOINT, status={"goodput": before})
    assignment = job.status.assignment
    assert assignment is not None
    assignment = assignment.model_copy(update={"restore_from": RestoreFrom.model_validate(went_on)})
    job = job.with_status(job.status.model_copy(update={"assignment": assignment}))
    # Half of the 40 steps that are its own are saved.
    assert account(job)[:2] == (520, 77)


def test_frozen_time_is_waiting() -> None:
    assert account(ended("Succeeded", frozenSeconds=30)) == (60, 0, 40)


def test_of_an_attempt_on_a_lost_node_counts_what_was_told() -> None:
    job = ended("Running", endedAt=None, checkpoint=CHECKPOINT)
    assert account(job, Liveness.FENCED) == (30, 10, 60)


def test_a_job_has_not_trained_longer_than_it_had_its_place_whatever_its_records_say() -> None:
    assert account(ended("Succeeded", first_step_s_ago=10_000)) == (100, 0, 0)
    assert account(ended("Succeeded", first_step_s_ago=-10_000)) == (0, 0, 100)


def test_what_had_counted_is_lost_when_the_next_attempt_begins_anew() -> None:
    released = {"usefulSeconds": 50, "lostSeconds": 5, "waitingSeconds": 9}
    source = {"attempt": 1, "step": 60, "digest": "d", "uri": "node://node-a/u-1/checkpoints/step-60"}
    job = make_job(status={"goodput": released, "restoreFrom": source, "attempt": 1})
    elsewhere, home = (Placement(job, node, (), (), "") for node in ("node-b", "node-a"))
    assert bound(job, elsewhere, NOW).status.goodput == Goodput(useful_seconds=0, lost_seconds=55, waiting_seconds=9)
    assert bound(job, home, NOW).status.goodput == Goodput(useful_seconds=50, lost_seconds=5, waiting_seconds=9)


def test_a_job_that_was_never_given_a_place_has_waited() -> None:
    assert account(make_job(cancel=True, age_s=30)) == (0, 0, 30)


def test_a_dry_run_has_no_account() -> None:
    change = review(make_job(cancel=True, age_s=30, dryRun=True), Liveness.UNSURE, NOW)
    assert change is not None
    assert change.status.goodput is None


def stalled(**more: Any) -> JobView:
    execution = {"state": "Running", "stalledSince": ago(90), "progress": {"step": 80, "epochs": "2/5"}, **more}
    return make_bound_job(execution=execution, status={"conditions": CONDITIONS})


CONDITIONS = [{"type": "Running", "status": "True"}, {"type": "Scheduled", "status": "True"}]


def test_a_stall_is_a_condition_until_the_job_goes_on() -> None:
    change = review(stalled(), Liveness.ONLINE, NOW)
    assert change is not None
    assert truth(change.after) == {"Running": "True", "Scheduled": "True", "Stalled": "True"}
    assert (change.status.summary or "").startswith(f"No step since {ago(90)}. Epoch 2/5, step 80.")
    assert [note.reason for note in change.notes] == ["Stalled"]
    told = written(change)
    execution = told.status.execution
    assert execution is not None
    execution = execution.model_copy(update={"stalled_since": None})
    went_on = review(told.with_status(told.status.model_copy(update={"execution": execution})), Liveness.ONLINE, NOW)
    assert went_on is not None
    assert truth(went_on.after) == {"Running": "True", "Scheduled": "True", "Stalled": "False"}


def test_a_stall_that_lasts_ends_the_attempt_as_a_failure_that_counts() -> None:
    job = written(told) if (told := review(stalled(), Liveness.ONLINE, NOW)) else stalled()
    change = review(job, Liveness.ONLINE, later(600))
    assert change is not None
    assignment = change.status.assignment
    assert assignment is not None
    assert (assignment.intent, assignment.reason) == ("Stop", "Stalled")
    assert truth(change.after)["Stalled"] == "True"
    stopped = written(change)
    execution = stopped.status.execution
    assert execution is not None
    execution = execution.model_copy(update={"state": "Failed", "reason": "Stalled", "message": "stopped"})
    after = review(
        stopped.with_status(stopped.status.model_copy(update={"execution": execution})), Liveness.ONLINE, later(605)
    )
    assert after is not None
    assert (after.status.phase, after.status.failures) == ("Pending", 1)
    assert truth(after.after)["Stalled"] == "False"
