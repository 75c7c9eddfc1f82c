"""Every row of the state machine: what is true, and what the status becomes."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from cyxwiz_crds import FINAL_PHASES, TrainingJobStatus
from cyxwiz_operator.lifecycle import StatusChange, queued, review
from cyxwiz_operator.scheduling.planning import Waiting
from cyxwiz_operator.views import JobView, Liveness

from .builders import NOW, ago, later, make_bound_job, make_job, reported, truth, written


class Row(NamedTuple):
    """A job, its node, and the phase and reason its status gets; None where nothing is to be done."""

    sentence: str
    job: JobView
    node: Liveness
    phase: str | None
    reason: str | None = None
    assigned: bool = False
    intent: str | None = None


def failed(reason: str, **fields: Any) -> dict[str, Any]:
    return {"state": "Failed", "reason": reason, "message": "what happened", **fields}


ONLINE, UNSURE, EXPIRED, FENCED = Liveness.ONLINE, Liveness.UNSURE, Liveness.EXPIRED, Liveness.FENCED
RUNNING = {"state": "Running"}
STOP = {"intent": "Stop", "reason": "CancelledByUser"}
LATE = {"intent": "Stop", "reason": "DeadlineExceeded"}
YIELD = {"intent": "Yield", "reason": "SuspendedByUser"}
STALLED = {"state": "Running", "stalledSince": ago(90)}
STALLED_LONG = {"state": "Running", "stalledSince": ago(601)}
TOLD = {"conditions": [{"type": "Stalled", "status": "True", "lastTransitionTime": ago(30)}]}

ROWS = [
    Row("a new job is the scheduler's", make_job(), UNSURE, None),
    Row("a final phase is final", make_job(status={"phase": "Failed"}, cancel=True), UNSURE, None),
    Row("a bound job is given time", make_bound_job(bound_s_ago=5), ONLINE, None),
    Row("a report of Running makes it Running", make_bound_job(execution=RUNNING, status={"phase": "Bound"}),
        ONLINE, "Running", "Training", True, "Run"),
    Row("a running job is left alone", make_bound_job(execution=RUNNING), ONLINE, None),
    Row("a running job on a silent node is left alone", make_bound_job(execution=RUNNING), EXPIRED, None),
    Row("a good end", make_bound_job(execution={"state": "Succeeded"}), ONLINE, "Succeeded", "Succeeded", True),
    Row("a good end beats a late cancel", make_bound_job(execution={"state": "Succeeded"}, cancel=True),
        ONLINE, "Succeeded", "Succeeded", True),
    Row("a good end beats the loss of its node", make_bound_job(execution={"state": "Succeeded"}),
        FENCED, "Succeeded", "Succeeded", True),
    # cancel
    Row("cancelled while it waits", make_job(cancel=True), UNSURE, "Cancelled", "CancelledByUser"),
    Row("cancelled while suspended", make_job(cancel=True, suspend=True, status={"phase": "Suspended"}),
        UNSURE, "Cancelled", "CancelledByUser"),
    Row("cancelled before it was claimed", make_bound_job(cancel=True), ONLINE, "Cancelled", "CancelledByUser"),
    Row("cancelled while it runs", make_bound_job(cancel=True, execution=RUNNING),
        ONLINE, "Running", "Stopping", True, "Stop"),
    Row("told to stop already", make_bound_job(cancel=True, execution=RUNNING, assignment=STOP), ONLINE, None),
    Row("stopped as told", make_bound_job(cancel=True, execution={"state": "Cancelled"}, assignment=STOP),
        ONLINE, "Cancelled", "CancelledByUser", True),
    Row("cancelled on a fenced node", make_bound_job(cancel=True, execution=RUNNING, assignment=STOP),
        FENCED, "Cancelled", "CancelledByUser", True),
    Row("cancel while yielding becomes a stop", make_bound_job(cancel=True, execution=RUNNING, assignment=YIELD),
        ONLINE, "Running", "Stopping", True, "Stop"),
    Row("a cancel taken back too late", make_bound_job(execution={"state": "Cancelled"}, assignment=STOP),
        ONLINE, "Cancelled", "CancelledByUser", True),
    # suspend
    Row("suspended while it waits", make_job(suspend=True), UNSURE, "Suspended", "SuspendedByUser"),
    Row("suspended already", make_job(suspend=True, status={"phase": "Suspended"}), UNSURE, None),
    Row("suspended before it was claimed", make_bound_job(suspend=True), ONLINE, "Suspended", "SuspendedByUser"),
    Row("suspended while it runs", make_bound_job(suspend=True, execution=RUNNING),
        ONLINE, "Running", "Stopping", True, "Yield"),
    Row("told to yield already", make_bound_job(suspend=True, execution=RUNNING, assignment=YIELD), ONLINE, None),
    Row("yielded as told", make_bound_job(suspend=True, execution={"state": "Yielded"}, assignment=YIELD),
        ONLINE, "Suspended", "SuspendedByUser"),
    Row("wanted back while it yielded", make_bound_job(execution={"state": "Yielded"}, assignment=YIELD),
        ONLINE, "Pending", "Retrying"),
    Row("suspended, and its node was lost meanwhile", make_bound_job(suspend=True, execution=RUNNING, assignment=YIELD),
        FENCED, "Suspended", "SuspendedByUser"),
    Row("crashed while it was to be suspended",
        make_bound_job(suspend=True, execution=failed("Crashed"), assignment=YIELD),
        ONLINE, "Suspended", "SuspendedByUser"),
    # the node's side
    Row("its node is fenced", make_bound_job(execution=RUNNING), FENCED, "Pending", "Retrying"),
    Row("its node is fenced before it was claimed", make_bound_job(), FENCED, "Pending", "Retrying"),
    Row("nobody claims it on a live node", make_bound_job(bound_s_ago=15), ONLINE, "Pending", "Retrying"),
    Row("nobody claims it on a silent node", make_bound_job(bound_s_ago=15), UNSURE, None),
    Row("refused", make_bound_job(execution={"state": "Rejected", "reason": "NoFreeGPU"}),
        ONLINE, "Pending", "Retrying"),
    Row("let go by a draining node", make_bound_job(execution={"state": "Yielded"}), ONLINE, "Pending", "Retrying"),
    # failure classes
    *[Row(f"{reason} is never retried", make_bound_job(execution=failed(reason)), ONLINE, "Failed", reason, True)
      for reason in ("UserError", "Diverged", "DeadlineExceeded", "OutOfGPUMemory")],
    *[Row(f"{reason} is retried", make_bound_job(execution=failed(reason)), ONLINE, "Pending", "Retrying")
      for reason in ("Crashed", "Stalled", "OutOfHostMemory", "NodeLost", "Evicted", "SomethingNew")],
    Row("the last counted failure", make_bound_job(execution=failed("Crashed"), status={"failures": 3}),
        ONLINE, "Failed", "BackoffLimitExceeded", True),
    Row("no retries wanted", make_bound_job(execution=failed("Crashed"), backoffLimit=0),
        ONLINE, "Failed", "BackoffLimitExceeded", True),
    Row("a node's failure does not count", make_bound_job(execution=failed("NodeLost"), status={"failures": 3}),
        ONLINE, "Pending", "Retrying"),
    Row("the third one blamed on nodes does",
        make_bound_job(execution=failed("NodeLost"), status={"failures": 3, "nodeFaults": 2}),
        ONLINE, "Failed", "BackoffLimitExceeded", True),
    # no step any more
    Row("it does no step", make_bound_job(execution=STALLED), ONLINE, "Running", "Stalled", True, "Run"),
    Row("that was told already", make_bound_job(execution=STALLED, status=TOLD), ONLINE, None),
    Row("it goes on", make_bound_job(execution=RUNNING, status=TOLD), ONLINE, "Running", "Training", True, "Run"),
    Row("it does no step for very long", make_bound_job(execution=STALLED_LONG, status=TOLD),
        ONLINE, "Running", "Stopping", True, "Stop"),
    Row("it does no step on a silent node", make_bound_job(execution=STALLED_LONG), UNSURE, None),
    Row("it was to leave anyway", make_bound_job(suspend=True, execution=STALLED_LONG, assignment=YIELD), ONLINE, None),
    Row("stopped because it did no step",
        make_bound_job(execution=failed("Stalled"), assignment={"intent": "Stop", "reason": "Stalled"}, status=TOLD),
        ONLINE, "Pending", "Retrying"),
    # deadline
    Row("past its deadline", make_bound_job(execution=RUNNING, bound_s_ago=60, activeDeadlineSeconds=60),
        ONLINE, "Running", "Stopping", True, "Stop"),
    Row("not past its deadline", make_bound_job(execution=RUNNING, bound_s_ago=59, activeDeadlineSeconds=60),
        ONLINE, None),
    Row("stopped past its deadline",
        make_bound_job(execution={"state": "Cancelled"}, assignment=LATE, bound_s_ago=61, activeDeadlineSeconds=60),
        ONLINE, "Failed", "DeadlineExceeded", True),
    Row("past its deadline on a fenced node",
        make_bound_job(execution=RUNNING, assignment=LATE, bound_s_ago=61, activeDeadlineSeconds=60),
        FENCED, "Failed", "DeadlineExceeded", True),
    Row("past its deadline while it waits for another attempt",
        make_job(status={"firstStartedAt": ago(61)}, activeDeadlineSeconds=60), UNSURE, "Failed", "DeadlineExceeded"),
    Row("no deadline runs while it is suspended",
        make_job(status={"phase": "Suspended", "firstStartedAt": ago(61)}, suspend=True, activeDeadlineSeconds=60),
        UNSURE, None),
]  # fmt: skip  # a table


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.sentence)
def test_the_state_machine(row: Row) -> None:
    change = review(row.job, row.node, NOW)
    if row.phase is None:
        assert change is None
        return
    assert change is not None
    status = change.status
    assert (status.phase, status.reason) == (row.phase, row.reason)
    assert (status.assignment is not None) is row.assigned
    if row.intent:
        assert status.assignment is not None
        assert status.assignment.intent == row.intent
    assert status.summary


@pytest.mark.parametrize("row", [row for row in ROWS if row.phase], ids=lambda row: row.sentence)
def test_a_second_review_changes_nothing(row: Row) -> None:
    change = review(row.job, row.node, NOW)
    assert change is not None
    assert review(written(change), row.node, NOW) is None


@pytest.mark.parametrize("row", [row for row in ROWS if row.phase], ids=lambda row: row.sentence)
def test_conditions_agree_with_the_phase(row: Row) -> None:
    change = review(row.job, row.node, NOW)
    assert change is not None
    held = truth(change.after)
    final = change.status.phase in FINAL_PHASES
    assert (held.get("Finished") == "True") is final
    assert (held.get("Complete") == "True") is (change.status.phase == "Succeeded")
    assert (held.get("Failed") == "True") is (change.status.phase == "Failed")
    assert (held.get("Running") == "True") is (change.status.phase == "Running")
    assert (held.get("Suspended") == "True") is (change.status.phase == "Suspended")
    assert (change.status.finished_at is not None) is final


@pytest.mark.parametrize("row", [row for row in ROWS if row.phase], ids=lambda row: row.sentence)
def test_the_operator_never_writes_an_execution(row: Row) -> None:
    change = review(row.job, row.node, NOW)
    assert change is not None
    assert change.status.execution in (None, row.job.status.execution)


def test_the_status_stays_within_its_bounds_whatever_an_agent_says() -> None:
    job = make_bound_job(execution={"state": "Failed", "reason": "R" * 64, "message": "m" * 1024})
    for backoff_limit in (0, 3):
        spec = job.job.spec.model_copy(update={"backoff_limit": backoff_limit})
        change = review(JobView(job.job.model_copy(update={"spec": spec})), ONLINE, NOW)
        assert change is not None
        TrainingJobStatus.model_validate(change.status.wire())


def test_a_release_keeps_the_newest_checkpoint_and_a_record() -> None:
    checkpoint = {"step": 400, "epoch": 2, "digest": "sha256:1f2e", "uri": "node://node-a/x/step-400"}
    job = make_bound_job(attempt=2, execution={"state": "Running", "checkpoint": checkpoint})
    change = review(job, FENCED, NOW)
    assert change is not None
    source, record = change.status.restore_from, change.status.history[-1]
    assert source is not None
    assert (source.attempt, source.step, source.uri) == (2, 400, "node://node-a/x/step-400")
    assert (record.attempt, record.node, record.outcome) == (2, "node-a", "NodeLost")


def test_a_later_attempt_without_a_checkpoint_does_not_lose_an_earlier_one() -> None:
    source = {"attempt": 1, "step": 400, "digest": "sha256:1f2e", "uri": "node://node-a/x/step-400"}
    change = review(make_bound_job(attempt=2, execution=RUNNING, status={"restoreFrom": source}), FENCED, NOW)
    assert change is not None
    assert change.status.restore_from is not None
    assert change.status.restore_from.step == 400


@pytest.mark.parametrize(
    ("execution", "assignment", "spec", "words"),
    [
        ({"state": "Yielded"}, YIELD, {"suspend": True}, "Suspended at step 400."),
        (
            {"state": "Yielded"},
            {"intent": "Yield", "reason": "Preempted", "message": "Preempted by a/b"},
            {},
            "Preempted by a/b: left node-a with a checkpoint at step 400.",
        ),
        ({"state": "Cancelled"}, STOP, {"cancel": True}, "Cancelled by the user. Last checkpoint: step 400."),
    ],
)
def test_an_attempt_that_ended_before_its_first_checkpoint_is_not_said_to_have_lost_the_earlier_ones(
    execution: dict[str, Any], assignment: dict[str, Any], spec: dict[str, Any], words: str
) -> None:
    """A job suspended while it was being resumed said "without a checkpoint", and went on from step 400 later."""
    source = {"attempt": 1, "step": 400, "digest": "sha256:1f2e", "uri": "node://node-a/x/step-400"}
    job = make_bound_job(attempt=2, execution=execution, assignment=assignment, status={"restoreFrom": source}, **spec)
    change = review(job, ONLINE, NOW)
    assert change is not None
    assert words in (change.status.summary or "")


def test_history_keeps_the_newest_ten_records() -> None:
    records = [{"attempt": n, "node": "node-a", "outcome": "Crashed", "endedAt": ago(0)} for n in range(1, 11)]
    change = review(make_bound_job(attempt=11, execution=RUNNING, status={"history": records}), FENCED, NOW)
    assert change is not None
    assert [record.attempt for record in change.status.history] == list(range(2, 12))


def test_counted_failures_wait_longer_each_time() -> None:
    waits = []
    for failures in range(8):
        job = make_bound_job(execution=failed("Crashed"), status={"failures": failures}, backoffLimit=100)
        change = review(job, ONLINE, NOW)
        assert change is not None
        waits.append(change.status.retry_at)
    expected = [10, 20, 40, 80, 160, 300, 300, 300]
    assert waits == [later(seconds).timestamp for seconds in expected]


def test_the_summary_of_a_good_end_says_what_it_gave() -> None:
    execution = {
        "state": "Succeeded",
        "start": "Warm (0.09 s)",
        "progress": {"elapsedSeconds": 4, "validationAccuracy": "0.9722"},
        "model": {"sha256": "1f2e" * 16, "bytes": 93_000, "uri": "node://node-a/x"},
    }
    change = review(make_bound_job(execution=execution), ONLINE, NOW)
    assert change is not None
    assert change.status.summary == (
        "Trained 5 epochs in 4 s on node-a (Warm): validation accuracy 0.9722. Model 93 KB, sha256 1f2e1f2e1f2e1f2e…"
    )


def test_executions_resumes_and_restarts_are_counted_apart_and_each_attempt_once() -> None:
    source = {"attempt": 1, "step": 400, "digest": "d", "uri": "node://node-a/x/step-400"}
    first = review(make_bound_job(execution=RUNNING, status={"phase": "Bound"}), ONLINE, NOW)
    assert first is not None
    assert counts(first) == (1, None, None)
    ended = review(reported(first.after, state="Failed", reason="Crashed"), ONLINE, NOW)
    assert ended is not None
    assert counts(ended) == (1, None, None), "counted when it began to run"

    anew = make_bound_job(attempt=2, execution=RUNNING, status={"phase": "Bound", "executions": 1})
    again = review(anew, ONLINE, NOW)
    assert again is not None
    assert counts(again) == (2, None, 1)
    status = {"phase": "Bound", "executions": 1}
    resumed = make_bound_job(attempt=2, execution=RUNNING, assignment={"restoreFrom": source}, status=status)
    on = review(resumed, ONLINE, NOW)
    assert on is not None
    assert counts(on) == (2, 1, None)


def test_an_attempt_that_is_over_before_it_was_seen_running_is_counted_and_a_refused_one_is_not() -> None:
    quick = review(make_bound_job(execution={"state": "Succeeded"}, status={"phase": "Bound"}), ONLINE, NOW)
    refused = review(make_bound_job(execution={"state": "Rejected"}, status={"phase": "Bound"}), ONLINE, NOW)
    lost = review(make_bound_job(), FENCED, NOW)
    assert quick is not None
    assert refused is not None
    assert lost is not None
    assert [counts(change) for change in (quick, refused, lost)] == [(1, None, None), (None,) * 3, (None,) * 3]


def counts(change: StatusChange) -> tuple[int | None, int | None, int | None]:
    return (change.status.executions, change.status.resumes, change.status.restarts)


def test_the_time_it_was_suspended_does_not_bring_its_deadline_nearer() -> None:
    suspended = {"type": "Suspended", "status": "True", "lastTransitionTime": ago(500)}
    status = {"phase": "Suspended", "firstStartedAt": ago(540), "conditions": [suspended]}
    resumed = make_job(status=status, activeDeadlineSeconds=60)
    assert resumed.active_s(NOW.wall) == 40
    assert review(resumed, UNSURE, NOW) is None, "it ran 40 s, and may run 20 more"
    waiting = queued(resumed, Waiting(resumed, 1, "NoNodeFree", "full"), NOW)
    assert waiting is not None
    assert waiting.status.suspended_seconds == 500
    assert waiting.after.active_s(later(19).wall) == 59
    assert review(written(waiting), UNSURE, later(19)) is None
    late = review(written(waiting), UNSURE, later(20))
    assert late is not None
    assert late.status.reason == "DeadlineExceeded"


@pytest.mark.parametrize("wish", [{"suspend": True}, {"cancel": True}])
def test_who_leaves_the_queue_has_no_place_in_it_any_more(wish: dict[str, Any]) -> None:
    scheduling = {"position": 3, "holds": "node-a", "estimatedStart": ago(-60)}
    status = {"phase": "Queued", "reason": "NoNodeFree", "scheduling": scheduling}
    change = review(make_job(status=status, **wish), UNSURE, NOW)
    assert change is not None
    assert change.status.scheduling is None


@pytest.mark.parametrize(
    ("outcome", "message", "words"),
    [
        ("Crashed", "The trainer was killed by SIGKILL.",
         "Attempt 1 on node-a ended as Crashed: The trainer was killed by SIGKILL. Goes on from step 57."),
        ("Preempted", "Preempted by team-b/gpt (priority 10): left node-a with a checkpoint at step 57.",
         "Attempt 1 on node-a ended: Preempted by team-b/gpt (priority 10): left node-a with a checkpoint at step 57."),
        ("Suspended", "", "Attempt 1 on node-a ended as Suspended."),
    ],
)  # fmt: skip  # a table
def test_one_that_waits_again_says_why_its_last_attempt_ended(outcome: str, message: str, words: str) -> None:
    record = {"attempt": 1, "node": "node-a", "outcome": outcome, "message": message, "endedAt": ago(0)}
    source = {"attempt": 1, "step": 57, "digest": "d", "uri": "node://node-a/x"}
    job = make_job(status={"attempt": 1, "history": [record], "restoreFrom": source, "failures": 2})
    change = queued(job, Waiting(job, 4, "NoNodeFree", "0/2 nodes have room: 2 are offline."), NOW)
    assert change is not None
    assert change.status.summary is not None
    assert change.status.summary.startswith("Position 4. 0/2 nodes have room: 2 are offline. ")
    assert words in change.status.summary
    assert change.status.summary.endswith("Goes on from step 57. 2 of 3 retries used.")
