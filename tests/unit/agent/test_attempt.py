"""What the agent does next, for every picture it can be shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cyxwiz_agent.admission import Refusal
from cyxwiz_agent.attempt import (
    Confirm,
    Leave,
    Picture,
    Reject,
    ReportEnd,
    ReportProgress,
    Start,
    Steer,
    Stop,
    Wait,
    decide,
)
from cyxwiz_agent.settings import STOP_GRACE_S
from cyxwiz_crds import Control, TrainingJob
from cyxwiz_protocol.runner_api import JobProcess

ID = "u1-1"


def make_job(
    execution: str | None = None,
    *,
    cancel: bool = False,
    phase: str = "Bound",
    control: Control | None = None,
    **assignment: Any,
) -> TrainingJob:
    status: dict[str, Any] = {"phase": phase, "attempt": 1, "assignment": {"id": ID, "node": "n1", **assignment}}
    if execution is not None:
        status["execution"] = {"assignmentID": ID, "sequence": 1, "state": execution}
    spec: dict[str, Any] = {"model": {"name": "cnn"}, "dataset": {"uri": "builtin://digits"}, "cancel": cancel}
    spec |= {"control": control.wire()} if control else {}
    return TrainingJob.model_validate({"metadata": {"name": "j", "uid": "u1"}, "spec": spec, "status": status})


def make_process(state: str) -> JobProcess:
    return JobProcess.model_validate(
        {"assignmentId": ID, "jobUid": "u1", "attempt": 1, "key": "default/j", "state": state}
    )


BASE = Picture(
    assignment_id=ID,
    job=make_job(),
    process=None,
    confirmed=True,
    lease_valid=True,
    runner_answers=True,
    stopping=False,
    refusal=None,
    room_is_coming=False,
    progress_due=False,
)
RUNNING = replace(BASE, job=make_job("Running"), process=make_process("Running"))
REFUSAL = Refusal("NoFreeCPU", "needs 4 CPUs, 1 of 2 free")
ELSEWHERE = make_job(id="u1-2", node="n2")
SLOWER = Control(generation=3, learning_rate=0.001)
STEERED = replace(RUNNING, job=make_job("Running", control=SLOWER))


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        pytest.param(BASE, Start(), id="a new assignment is started"),
        pytest.param(replace(BASE, job=make_job("Running")), Start(), id="accepted, agent restarted before the start"),
        pytest.param(replace(BASE, lease_valid=False), Wait(), id="no start without a valid lease"),
        pytest.param(replace(BASE, runner_answers=False), Wait(), id="no start without a runner"),
        pytest.param(replace(BASE, refusal=REFUSAL), Reject(REFUSAL), id="what does not fit is rejected"),
        pytest.param(replace(BASE, refusal=REFUSAL, room_is_coming=True), Wait(), id="not while something leaves"),
        pytest.param(replace(RUNNING, progress_due=True), ReportProgress(), id="progress when it is due"),
        pytest.param(RUNNING, Wait(), id="nothing between two reports"),
        pytest.param(replace(RUNNING, confirmed=False), Confirm(), id="a new epoch asks again"),
        pytest.param(replace(RUNNING, confirmed=False, lease_valid=False), Wait(), id="no epoch, nothing to ask for"),
        pytest.param(
            replace(RUNNING, process=make_process("Frozen"), confirmed=False), Confirm(), id="a thaw needs it too"
        ),
        pytest.param(replace(RUNNING, job=make_job("Running", intent="Yield", graceSeconds=7)), Stop(7), id="yield"),
        pytest.param(replace(RUNNING, job=make_job("Running", cancel=True)), Stop(STOP_GRACE_S), id="cancel"),
        pytest.param(
            replace(RUNNING, job=make_job("Running", cancel=True), stopping=True), Wait(), id="a stop is said once"
        ),
        pytest.param(STEERED, Steer(SLOWER), id="a new spec.control goes to the trainer"),
        pytest.param(replace(STEERED, handed_control=3), Wait(), id="once"),
        pytest.param(
            replace(RUNNING, job=make_job("Running", control=SLOWER, intent="Yield", graceSeconds=7)),
            Stop(7),
            id="not when it is to leave",
        ),
        pytest.param(replace(RUNNING, job=None), Stop(STOP_GRACE_S), id="deleted: stopped within its grace"),
        pytest.param(replace(RUNNING, job=ELSEWHERE), Stop(0.0), id="bound elsewhere: killed at once"),
        pytest.param(replace(RUNNING, job=None, process=make_process("Reaped")), Leave(), id="deleted and gone"),
        pytest.param(replace(BASE, job=ELSEWHERE), Leave(), id="bound elsewhere before it began"),
        pytest.param(replace(RUNNING, process=make_process("Reaped")), ReportEnd(None), id="an end is reported"),
        pytest.param(
            replace(RUNNING, process=make_process("Reaped"), memory_is_back=False),
            Wait(),
            id="not before its memory is back",
        ),
        pytest.param(
            replace(RUNNING, job=None, process=make_process("Reaped"), memory_is_back=False),
            Wait(),
            id="deleted, and its memory is not back",
        ),
        pytest.param(replace(RUNNING, job=make_job("Succeeded")), Wait(), id="an end is reported once"),
        pytest.param(
            replace(RUNNING, job=make_job("Succeeded", phase="Succeeded"), process=make_process("Reaped")),
            Leave(),
            id="final and told: forget it",
        ),
    ],
)
def test_the_next_thing_to_do(now: Picture, expected: object) -> None:
    assert decide(now) == expected


def test_a_cancel_before_the_start_ends_without_a_process() -> None:
    action = decide(replace(BASE, job=make_job(cancel=True)))
    assert isinstance(action, ReportEnd)
    assert action.wish is not None
    assert action.wish.state == "Cancelled"


@pytest.mark.parametrize("state", ["Waiting", "Starting", "Running", "Frozen", "Ending"])
def test_nothing_new_is_said_of_a_process_that_ends_for_a_wish(state: str) -> None:
    now = replace(RUNNING, job=make_job("Running", intent="Stop"), process=make_process(state), stopping=True)
    assert decide(now) == Wait()
