"""A change of status as a value, and the two ways every change is built: conditions and release."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cyxwiz_crds import (
    AttemptRecord,
    Condition,
    ConditionType,
    Goodput,
    Phase,
    RestoreFrom,
    State,
    TrainingJobStatus,
    upsert,
)
from cyxwiz_operator.clock import Now
from cyxwiz_operator.views import JobView

from .goodput import with_this_attempt

HISTORY_KEPT = 10
SENTENCE = 1024
LINE = 256
WORD = 64


@dataclass(frozen=True)
class Note:
    """A Kubernetes Event about a job. One per attempt and reason."""

    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True)
class StatusChange:
    """The status a job should have, and what there is to tell once it is written."""

    job: JobView
    """As seen: the write is refused when it has changed since."""
    status: TrainingJobStatus
    what: str
    """For the log: the change in a word or two."""
    notes: tuple[Note, ...] = ()
    outcome: str | None = None
    """How the attempt ended, when it did."""

    @property
    def after(self) -> JobView:
        """The job with the new status."""
        return self.job.with_status(self.status)


def clip(text: str, length: int = SENTENCE) -> str:
    """At most `length` characters, with an ellipsis where something is missing."""
    return text if len(text) <= length else text[: length - 1] + "…"


def changed(
    job: JobView,
    now: Now,
    *,
    phase: str,
    reason: str,
    summary: str,
    true: tuple[str, ...] = (),
    false: tuple[str, ...] = (),
    kept: tuple[str, ...] = (),
    **fields: Any,
) -> TrainingJobStatus:
    """The status with these conditions true and these false, for `reason`, with `summary` as their message.

    Conditions named in `kept` stay; any other that was true is no longer.
    """
    summary = clip(summary)
    reason = clip(reason, WORD)
    was_true = {condition.type for condition in job.status.conditions if condition.status == "True"}
    wanted = dict.fromkeys(true, "True") | dict.fromkeys(false, "False")
    wanted |= dict.fromkeys(was_true - wanted.keys() - set(kept), "False")
    said = [
        Condition(type=type_, status=value, reason=reason, message=summary, observed_generation=_generation(job))
        for type_, value in wanted.items()
    ]
    fields |= _ran(job) | _was_suspended(job, phase, now)
    fields |= {
        "phase": phase,
        "reason": reason,
        "summary": summary,
        "observed_generation": _generation(job),
        "conditions": list(upsert(job.status.conditions, said, now.timestamp)),
    }
    return job.status.model_copy(update=fields)


def released(job: JobView, now: Now, outcome: str, message: str, **fields: Any) -> Mapping[str, Any]:
    """The fields of a status that gives its place back: no assignment, no execution, one more record of history.

    Only to be used once the job's processes are gone, were never started, or cannot compute (`Liveness.FENCED`).
    """
    assignment = job.status.assignment
    if assignment is None:
        return {"scheduling": None, **fields}  # a place in the queue that it has no more
    record = AttemptRecord(
        attempt=max(1, job.attempt),
        node=assignment.node,
        outcome=clip(outcome, WORD),
        message=clip(message, LINE),
        ended_at=now.timestamp,
    )
    return {
        "assignment": None,
        "execution": None,
        "scheduling": None,
        "restore_from": newest_checkpoint(job),
        "goodput": with_this_attempt(job, now),
        "history": [*job.status.history, record][-HISTORY_KEPT:],
        **fields,
    }


def newest_checkpoint(job: JobView) -> RestoreFrom | None:
    """The checkpoint with the most steps of this and earlier attempts."""
    status = job.status
    earlier = status.restore_from
    execution = status.execution
    checkpoint = execution.checkpoint if execution else None
    if checkpoint is None or (earlier and earlier.step > checkpoint.step):
        return earlier
    return RestoreFrom(attempt=max(1, job.attempt), step=checkpoint.step, digest=checkpoint.digest, uri=checkpoint.uri)


def waiting_again(
    job: JobView, now: Now, *, outcome: str, message: str, reason: str, record: str | None = None, **fields: Any
) -> StatusChange:
    """The attempt is over and the job waits for another, or stays away while it is suspended.

    `record` is what its history says, where that is not all of `message`.
    """
    if job.job.spec.suspend:
        return suspended(job, now, outcome=outcome, message=message, **fields)
    status = changed(
        job,
        now,
        phase=Phase.PENDING,
        reason=reason,
        summary=message,
        false=(ConditionType.SCHEDULED,),
        **released(job, now, outcome, record or message, **fields),
    )
    note = Note("Retrying", clip(message), warning=True)
    return StatusChange(job, status, "released", notes=(note,), outcome=outcome)


def suspended(job: JobView, now: Now, *, outcome: str, message: str, **fields: Any) -> StatusChange:
    """The job has given its place back and asks for no other until `spec.suspend` is false."""
    status = changed(
        job,
        now,
        phase=Phase.SUSPENDED,
        reason="SuspendedByUser",
        summary=f"{message} Set spec.suspend: false to go on.",
        true=(ConditionType.SUSPENDED,),
        false=(ConditionType.SCHEDULED,),
        **released(job, now, outcome, message, **fields),
    )
    return StatusChange(job, status, "suspended", outcome=outcome if job.status.assignment else None)


def finished(job: JobView, now: Now, *, phase: str, reason: str, summary: str, **fields: Any) -> StatusChange:
    """The job has reached its final phase; assignment and execution stay as its record."""
    true = {
        Phase.SUCCEEDED: (ConditionType.COMPLETE, ConditionType.FINISHED),
        Phase.FAILED: (ConditionType.FAILED, ConditionType.FINISHED),
        Phase.CANCELLED: (ConditionType.FINISHED,),
    }[phase]
    bound_now = job.status.assignment is not None and "assignment" not in fields
    status = changed(
        job,
        now,
        phase=phase,
        reason=reason,
        summary=summary,
        true=true,
        false=() if bound_now else (ConditionType.SCHEDULED,),
        kept=(ConditionType.SCHEDULED,) if bound_now else (),
        finished_at=now.timestamp,
        retry_at=None,
        **_last_words(job, now) | ({} if bound_now else {"scheduling": None}) | fields,
    )
    note = Note(phase, status.summary or "", warning=phase == Phase.FAILED)
    return StatusChange(job, status, phase.lower(), notes=(note,), outcome=reason if job.status.assignment else None)


def _last_words(job: JobView, now: Now) -> dict[str, Goodput]:
    """The account of its time; none of one that never asked for a place."""
    return {} if job.job.spec.dry_run else {"goodput": with_this_attempt(job, now)}


def _ran(job: JobView) -> dict[str, int]:
    """The counts with the attempt that ran, said by the first change after its agent's first report."""
    status, execution = job.status, job.status.execution
    if status.phase != Phase.BOUND or execution is None or execution.state == State.REJECTED:
        return {}
    executions = status.executions or 0
    if status.assignment is not None and status.assignment.restore_from is not None:
        return {"executions": executions + 1, "resumes": (status.resumes or 0) + 1}
    if executions:
        return {"executions": executions + 1, "restarts": (status.restarts or 0) + 1}
    return {"executions": 1}


def _was_suspended(job: JobView, phase: str, now: Now) -> dict[str, int]:
    """The time it was suspended, said by the change that ends it."""
    if job.status.phase != Phase.SUSPENDED or phase == Phase.SUSPENDED:
        return {}
    return {"suspended_seconds": round(job.suspended_s(now.wall))}


def _generation(job: JobView) -> int | None:
    return job.job.metadata.generation or None
