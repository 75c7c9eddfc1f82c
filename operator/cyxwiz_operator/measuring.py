"""What a change of a job says about the operator's service: counted once, when the change is written or seen."""

from __future__ import annotations

from prometheus_client import Histogram

from cyxwiz_crds import ConditionType, Phase, Reason

from .clock import Now, parse, seconds_since
from .lifecycle import StatusChange
from .metrics import Metrics
from .scheduling.tenants import unsaved_training_s
from .views import JobView


def count_change(metrics: Metrics, change: StatusChange, now: Now) -> None:
    """A change has been written."""
    if change.outcome:
        metrics.attempts.labels(change.outcome).inc()
        if change.outcome != Reason.SUCCEEDED:
            metrics.lost_training.labels(change.outcome).inc(unsaved_training_s(change.job))
    if _is_preempted(change):
        metrics.preemptions.inc()
    if change.status.phase == Phase.BOUND and change.status.attempt != change.job.status.attempt:
        _count_binding(metrics, change, now)


def count_first_step(metrics: Metrics, before: JobView | None, seen: JobView) -> None:
    """The watch has shown `seen` after `before`. What had happened before this operator looked is not counted."""
    execution, assignment = seen.status.execution, seen.status.assignment
    if before is None or execution is None or assignment is None or execution.first_step_at is None:
        return
    earlier = before.status.execution
    if earlier and earlier.assignment_id == execution.assignment_id and earlier.first_step_at:
        return
    try:
        at = parse(execution.first_step_at)
    except ValueError:  # a job's own code may have had a hand in it
        return
    _observe(metrics.start_time, seconds_since(assignment.bound_at, at))
    if seen.attempt == 1:
        _observe(metrics.time_to_first_step, seconds_since(seen.job.metadata.creation_timestamp, at))


def _count_binding(metrics: Metrics, change: StatusChange, now: Now) -> None:
    job = change.job
    status, created = job.status, job.job.metadata.creation_timestamp
    if change.status.attempt == 1:
        _observe(metrics.bind_latency, seconds_since(created, now.wall))
    reason = status.reason if status.phase == Phase.QUEUED and status.reason else "None"
    _observe(metrics.wait.labels(reason), seconds_since(_waits_since(job), now.wall))
    scheduling = status.scheduling
    if scheduling and scheduling.estimated_start:
        late_s = seconds_since(scheduling.estimated_start, now.wall) or 0.0
        came = "later" if late_s > 0 else "earlier"
        metrics.estimate_error.labels(scheduling.confidence or "None", came).observe(abs(late_s))


def _waits_since(job: JobView) -> str | None:
    """When its newest wait began; None for one that is given another place as it loses one."""
    if job.attempt == 0:
        return job.job.metadata.creation_timestamp
    scheduled = (condition for condition in job.status.conditions if condition.type == ConditionType.SCHEDULED)
    return next((condition.last_transition_time for condition in scheduled if condition.status == "False"), None)


def _is_preempted(change: StatusChange) -> bool:
    """By this change the job was told to leave for another, or lost a place it had not taken yet."""
    before, then = change.job.status.assignment, change.status.assignment
    if before is None or before.reason == Reason.PREEMPTED:
        return False
    return then.reason == Reason.PREEMPTED if then is not None else change.outcome == Reason.PREEMPTED


def _observe(histogram: Histogram, seconds: float | None) -> None:
    if seconds is not None:
        histogram.observe(max(0.0, seconds))
