"""A job that runs and does no step: told as a condition, and ended when it lasts."""

from __future__ import annotations

from cyxwiz_crds import ConditionType, Failure, Intent, Phase, Reason, State
from cyxwiz_operator.clock import Now, after, parse, seconds_since
from cyxwiz_operator.views import JobView, Liveness

from . import words
from .change import Note, StatusChange, changed, clip
from .leaving import told_to

STALLED_AT_MOST_S = 600.0
"""A stalled job that does not go on within this time is stopped, and tried again from its last checkpoint."""


def stalled(job: JobView, node: Liveness, now: Now) -> StatusChange | None:
    """What its agent says of its steps, as the condition Stalled; in the end an order to stop."""
    assignment, execution = job.status.assignment, job.status.execution
    if assignment is None or execution is None or job.status.phase != Phase.RUNNING:
        return None
    if execution.state != State.RUNNING or assignment.intent != Intent.RUN or node is not Liveness.ONLINE:
        return None
    since, is_told = execution.stalled_since, _is_told(job)
    if since is None:
        return _goes_on(job, now) if is_told else None
    if (seconds_since(since, now.wall) or 0.0) >= STALLED_AT_MOST_S:
        summary = f"No step since {since}, stopping. {words.how_far(job)}"
        return told_to(job, now, Intent.STOP, Failure.STALLED, summary)
    return None if is_told else _has_stalled(job, since, now)


def may_have_stalled(job: JobView) -> bool:
    """Its agent says so, or its status does."""
    execution = job.status.execution
    return (execution is not None and execution.stalled_since is not None) or _is_told(job)


def _has_stalled(job: JobView, since: str, now: Now) -> StatusChange:
    ends = after(parse(since), STALLED_AT_MOST_S)
    summary = f"No step since {since}. {words.how_far(job)} If that lasts until {ends}, it is stopped and tried again."
    status = changed(
        job,
        now,
        phase=Phase.RUNNING,
        reason=Failure.STALLED,
        summary=summary,
        true=(ConditionType.RUNNING, ConditionType.STALLED),
        kept=(ConditionType.SCHEDULED,),
    )
    return StatusChange(job, status, "stalled", notes=(Note(Failure.STALLED, clip(summary), warning=True),))


def _goes_on(job: JobView, now: Now) -> StatusChange:
    status = changed(
        job,
        now,
        phase=Phase.RUNNING,
        reason=Reason.TRAINING,
        summary=words.running(job),
        true=(ConditionType.RUNNING,),
        false=(ConditionType.STALLED,),
        kept=(ConditionType.SCHEDULED,),
    )
    return StatusChange(job, status, "goes on")


def _is_told(job: JobView) -> bool:
    return any(each.type == ConditionType.STALLED and each.status == "True" for each in job.status.conditions)
