"""Jobs of which no rule has anything to say are not asked rule by rule: the answer must be the same."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cyxwiz_operator.lifecycle import review
from cyxwiz_operator.views import JobView, Liveness

from .builders import NOW, ago, later, make_job

STATES = ("Running", "Succeeded", "Failed", "Cancelled", "Rejected", "Yielded")
PHASES = ("Pending", "Queued", "Bound", "Running", "Suspended", "Succeeded")
STALLED = {"type": "Stalled", "status": "True", "lastTransitionTime": ago(30)}


def seldom(value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """None in most cases: each of these alone already makes a rule speak."""
    return st.one_of(st.none(), st.none(), value)


@st.composite
def jobs(draw: st.DrawFn) -> JobView:
    spec: dict[str, Any] = {"activeDeadlineSeconds": draw(seldom(st.just(60)))}
    spec |= {name: True for name in ("cancel", "suspend", "dryRun") if draw(seldom(st.just(True)))}
    if draw(seldom(st.just(True))):
        spec |= {"batchSize": 7, "hyperparameters": {"accumulateSteps": 2}}  # cannot be split
    status: dict[str, Any] = {"phase": draw(st.sampled_from(PHASES)), "firstStartedAt": ago(50)}
    status["conditions"] = [STALLED] if draw(seldom(st.just(True))) else []
    if draw(st.booleans()):
        assignment: dict[str, Any] = {
            "id": "uid-1",
            "node": "node-a",
            "boundAt": ago(draw(st.sampled_from([5, 14, 15, 40]))),
        }
        assignment["intent"] = draw(st.sampled_from(["Run", "Run", "Yield", "Stop"]))
        if assignment["intent"] != "Run":
            assignment["reason"] = draw(st.sampled_from(["SuspendedByUser", "Preempted", "DeadlineExceeded"]))
        if draw(seldom(st.just(True))):
            assignment["reservation"] = "a-pod"
        status |= {"assignment": assignment, "attempt": 1}
        if draw(st.booleans()):
            execution = {
                "assignmentID": "uid-1",
                "sequence": 1,
                "state": draw(st.sampled_from(STATES)),
                "startedAt": ago(50),
            }
            stalled = draw(seldom(st.sampled_from([ago(20), ago(700)])))
            status["execution"] = execution | ({"stalledSince": stalled} if stalled else {})
    return make_job(status=status, **{name: value for name, value in spec.items() if value is not None})


@settings(max_examples=1000)
@given(jobs(), st.sampled_from(Liveness), st.sampled_from([0.0, 1.0, 10.0, 60.0, 900.0]))
def test_a_quiet_job_gets_the_answer_of_all_rules(job: JobView, node: Liveness, seconds: float) -> None:
    asked_rule_by_rule = replace(job)
    asked_rule_by_rule.once("quiet", lambda _: datetime.min.replace(tzinfo=UTC))
    now = later(seconds)
    assert review(job, node, now) == review(asked_rule_by_rule, node, now)


def test_most_jobs_are_quiet() -> None:
    """Else the shortcut would be none."""

    def is_quiet(job: JobView) -> bool:
        review(job, Liveness.ONLINE, NOW)
        return job.once("quiet", lambda _: NOW.wall) > NOW.wall

    assignment = {"id": "uid-1", "node": "node-a", "boundAt": ago(5)}
    running = {"phase": "Running", "attempt": 1, "assignment": assignment}
    running["execution"] = {"assignmentID": "uid-1", "sequence": 1, "state": "Running"}
    assert is_quiet(make_job())
    assert is_quiet(make_job(status={"phase": "Queued", "reason": "NoNodeFree"}))
    assert is_quiet(make_job(status={"phase": "Bound", "attempt": 1, "assignment": assignment}))
    assert is_quiet(make_job(status=running))
