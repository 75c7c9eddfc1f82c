"""What became of a job's time: training that counts, training that was lost, and waiting."""

from __future__ import annotations

from cyxwiz_crds import ENDED_STATES, Goodput, State
from cyxwiz_operator.clock import Now, parse, seconds_since
from cyxwiz_operator.scheduling.tenants import unsaved_share
from cyxwiz_operator.views import JobView


def with_this_attempt(job: JobView, now: Now) -> Goodput:
    """The account of the job as its present attempt, which is over, leaves it; of the time until `now`."""
    trained_s, useful_s = _trained(job, now)
    before = job.status.goodput or Goodput()
    return _account(job, now, before.useful_seconds + useful_s, before.lost_seconds + trained_s - useful_s)


def begun_anew(job: JobView) -> Goodput | None:
    """The account when the next attempt goes on from nothing: what had counted is lost. None: it stays as it is."""
    before = job.status.goodput
    if before is None or before.useful_seconds == 0:
        return None
    lost = before.lost_seconds + before.useful_seconds
    return before.model_copy(update={"useful_seconds": 0, "lost_seconds": lost})


def _trained(job: JobView, now: Now) -> tuple[float, float]:
    """Seconds that this attempt trained, and those of them that count."""
    execution = job.status.execution
    if execution is None or execution.first_step_at is None:
        return 0.0, 0.0
    progress = execution.progress
    told_s = float((progress and progress.elapsed_seconds) or 0)
    frozen_s = execution.frozen_seconds or 0
    trained_s = told_s
    if execution.state in ENDED_STATES and execution.ended_at is not None:
        try:
            trained_s = seconds_since(execution.first_step_at, parse(execution.ended_at)) or 0.0
        except ValueError:  # a job's own code may have had a hand in its records
            trained_s = told_s
    assignment = job.status.assignment
    held_s = seconds_since(assignment.bound_at, now.wall) if assignment else None
    # Clocks differ, and times in records are a job's own word: it has not trained longer than it had its place.
    trained_s = max(0.0, min(trained_s - frozen_s, trained_s if held_s is None else held_s))
    if execution.state == State.SUCCEEDED:
        return trained_s, trained_s
    # What came after the last step that was told, such as a stall, was for nothing too.
    return trained_s, min(trained_s, max(0.0, told_s - frozen_s) * (1 - unsaved_share(job)))


def _account(job: JobView, now: Now, useful_s: float, lost_s: float) -> Goodput:
    since_made_s = seconds_since(job.job.metadata.creation_timestamp, now.wall) or 0.0
    waiting_s = since_made_s - job.suspended_s(now.wall) - useful_s - lost_s
    return Goodput(
        useful_seconds=round(useful_s), lost_seconds=round(max(0.0, lost_s)), waiting_seconds=round(max(0.0, waiting_s))
    )
