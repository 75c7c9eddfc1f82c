"""Orders to leave, and what follows from them: a checkpoint, the place given back, the queue again."""

from __future__ import annotations

from cyxwiz_crds import ConditionType, Failure, Intent, Phase, Reason
from cyxwiz_operator.clock import Now
from cyxwiz_operator.views import JobView

from .change import LINE, Note, StatusChange, changed, clip, newest_checkpoint, waiting_again

GRACE_S = 30
OUTCOMES = {Reason.PREEMPTED: Failure.PREEMPTED, Reason.DRAINING: Failure.EVICTED, Reason.EVICTED: Failure.EVICTED}
"""Reason of an order to yield to the outcome of an attempt that obeyed; neither counts against the job."""


def told_to(job: JobView, now: Now, intent: str, reason: str, summary: str) -> StatusChange | None:
    """The agent is told to stop or to yield; a stop is never softened to a yield."""
    assignment = job.status.assignment
    if assignment is None or assignment.intent == intent or assignment.intent == Intent.STOP:
        return None
    update = {"intent": intent, "reason": reason, "grace_seconds": GRACE_S, "ordered_at": now.timestamp}
    update |= {"message": clip(summary.partition(":")[0], LINE)}
    started = job.status.first_started_at or (job.status.execution and job.status.execution.started_at)
    status = changed(
        job,
        now,
        phase=Phase.RUNNING,
        reason=Reason.STOPPING,
        summary=summary,
        true=(ConditionType.RUNNING,),
        kept=(ConditionType.SCHEDULED, ConditionType.STALLED),
        assignment=assignment.model_copy(update=update),
        first_started_at=started or now.timestamp,
    )
    return StatusChange(job, status, f"told to {intent.lower()}")


def told_to_yield(job: JobView, now: Now, reason: str, summary: str) -> StatusChange | None:
    """The job is asked for a checkpoint and its place; None when it was told something already."""
    assignment = job.status.assignment
    if assignment is None or assignment.intent != Intent.RUN:
        return None
    if job.status.execution is None:
        # Without its assignment the agent's claim is refused by the fence: it never starts.
        return waiting_again(job, now, outcome=OUTCOMES[reason], message=summary, reason=reason)
    change = told_to(job, now, Intent.YIELD, reason, summary)
    if change is None:
        return None
    return StatusChange(job, change.status, change.what, notes=(Note(reason, clip(summary), warning=True),))


def left_as_told(job: JobView, now: Now) -> StatusChange:
    """The job has obeyed and waits again, where its age puts it."""
    assignment, checkpoint = job.status.assignment, newest_checkpoint(job)
    reason = (assignment and assignment.reason) or Reason.PREEMPTED
    saved = f"with a checkpoint at step {checkpoint.step}" if checkpoint else "without a checkpoint"
    node = assignment.node if assignment else "its node"
    why = (assignment and assignment.message) or reason
    left = f"{why}: left {node} {saved}."
    message = f"{left} Goes on as soon as there is a place."
    change = waiting_again(job, now, outcome=OUTCOMES[reason], message=message, record=left, reason=reason)
    return StatusChange(job, change.status, change.what, outcome=change.outcome)
