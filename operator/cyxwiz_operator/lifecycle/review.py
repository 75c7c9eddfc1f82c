"""The state machine: an ordered tuple of rules, of which the first that has something to say decides.

Level-triggered: a rule asks what is true now, never what just happened, and once its change is written it has
nothing more to say.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from cyxwiz_crds import ENDED_STATES, ConditionType, Failure, Intent, Phase, Reason, State
from cyxwiz_crds.training_job import batch_problem
from cyxwiz_operator.clock import Now, parse, seconds_since
from cyxwiz_operator.views import JobView, Liveness

from . import words
from .change import StatusChange, changed, clip, finished, newest_checkpoint, suspended, waiting_again
from .leaving import OUTCOMES, left_as_told, told_to
from .retry import RULES, Rule, verdict_on
from .stalling import may_have_stalled, stalled

CLAIM_WITHIN_S = 15.0
SUSPENDED = "Suspended"
"""Outcome of an attempt that left on the user's wish."""
_NOT_QUIET = datetime.min.replace(tzinfo=UTC)
_QUIET = datetime.max.replace(tzinfo=UTC)


def review(job: JobView, node: Liveness, now: Now) -> StatusChange | None:
    """What the job's status should become, given what is known of the node it is assigned to; None: it is right."""
    if job.is_final or job.job.metadata.deletion_timestamp:
        return None
    if node is not Liveness.FENCED and now.wall < job.once("quiet", _quiet_until):
        return None
    for rule in _RULES:
        change = rule(job, node, now)
        if change is not None:
            return change
    return None


def _quiet_until(job: JobView) -> datetime:
    """Before that no rule has anything to say of this version of the job while its node is not lost.

    Thousands of jobs wait or run, and each pass reviews them all. A new rule that may speak of such a job has its
    condition in here too.
    """
    assignment, execution = job.status.assignment, job.status.execution
    if not job.is_wanted or job.job.spec.active_deadline_seconds is not None:
        return _NOT_QUIET
    if assignment is None:
        return _NOT_QUIET if execution or _split_problem(job) else _QUIET
    if assignment.intent != Intent.RUN:
        return _NOT_QUIET
    if execution is None:
        claimed = None if assignment.reservation else assignment.bound_at
        return parse(claimed) + timedelta(seconds=CLAIM_WITHIN_S) if claimed else _QUIET
    if execution.state in ENDED_STATES:
        return _NOT_QUIET
    as_told = job.status.phase == Phase.RUNNING and not may_have_stalled(job)
    return _QUIET if execution.state != State.RUNNING or as_told else _NOT_QUIET


def _ended_well(job: JobView, node: Liveness, now: Now) -> StatusChange | None:
    """An execution that ended well beats everything, a late cancel too."""
    execution = job.status.execution
    if execution is None or execution.state != State.SUCCEEDED:
        return None
    return finished(job, now, phase=Phase.SUCCEEDED, reason=Reason.SUCCEEDED, summary=words.success(job))


def _cancelled(job: JobView, node: Liveness, now: Now) -> StatusChange | None:
    """`spec.cancel`: at once where nothing runs, else by order to the agent."""
    if not job.job.spec.cancel:
        return None
    status = job.status
    if status.assignment is None:
        return finished(
            job, now, phase=Phase.CANCELLED, reason=Reason.CANCELLED, summary="Cancelled before it had a place."
        )
    if status.execution is None:
        # Without its assignment the agent's claim is refused by the fence: it never starts.
        return finished(
            job,
            now,
            phase=Phase.CANCELLED,
            reason=Reason.CANCELLED,
            summary=f"Cancelled before it started on {status.assignment.node}.",
            assignment=None,
        )
    if status.execution.state in ENDED_STATES or node is Liveness.FENCED:
        return finished(job, now, phase=Phase.CANCELLED, reason=Reason.CANCELLED, summary=words.cancelled(job))
    return told_to(job, now, Intent.STOP, Reason.CANCELLED, "Cancelled by the user, stopping.")


def _past_deadline(job: JobView, node: Liveness, now: Now) -> StatusChange | None:
    """`activeDeadlineSeconds` counts from the first start, over all attempts and the waits between them, but not the
    time it was suspended. One that is asked to suspend is left to it."""
    limit = job.job.spec.active_deadline_seconds
    active = job.active_s(now.wall)
    ordered = _order_is(job, Intent.STOP, Failure.DEADLINE_EXCEEDED)
    late = limit is not None and active is not None and active >= limit and not job.job.spec.suspend
    if not (late or ordered):
        return None
    execution = job.status.execution
    summary = f"Stopped after {limit} s, its activeDeadlineSeconds. {words.how_far(job)}"
    if job.status.assignment is None or execution is None:
        return finished(
            job, now, phase=Phase.FAILED, reason=Failure.DEADLINE_EXCEEDED, summary=summary, assignment=None
        )
    if execution.state in ENDED_STATES or node is Liveness.FENCED:
        return finished(job, now, phase=Phase.FAILED, reason=Failure.DEADLINE_EXCEEDED, summary=summary)
    return told_to(job, now, Intent.STOP, Failure.DEADLINE_EXCEEDED, f"Past its deadline of {limit} s, stopping.")


def _cannot_be_split(job: JobView, node: Liveness, now: Now) -> StatusChange | None:
    """No trainer could ever cut its batches as it asks: said before it waits for a GPU."""
    if job.status.assignment is not None:
        return None
    problem = _split_problem(job)
    return None if problem is None else _failed(job, Failure.USER_ERROR, problem, now)


def _split_problem(job: JobView) -> str | None:
    spec = job.job.spec
    return batch_problem(spec.batch_size, spec.resources.gpus, spec.hyperparameters.accumulate_steps)


def _ended(job: JobView, node: Liveness, now: Now) -> StatusChange | None:
    """The agent says the attempt is over, and not well."""
    execution = job.status.execution
    assignment = job.status.assignment
    if execution is None or assignment is None or execution.state not in ENDED_STATES:
        return None
    said = execution.message or ""
    match execution.state:
        case State.FAILED:
            return _failed(job, execution.reason or Failure.CRASHED, said, now)
        case State.REJECTED:
            why = execution.reason or "no reason given"
            message = f"{assignment.node} refused it ({why}). {said}".strip()
            return _failed(job, Failure.REJECTED, message, now)
        case State.YIELDED if _is_to_go_on(job):
            return left_as_told(job, now)
        case State.YIELDED if assignment.intent == Intent.YIELD or job.job.spec.suspend:
            return _left(job, now)
        case State.YIELDED:
            return _failed(job, Failure.EVICTED, said or f"{assignment.node} let it go.", now)
        case _:  # Cancelled: the agent obeyed a cancel that has been taken back since
            return finished(job, now, phase=Phase.CANCELLED, reason=Reason.CANCELLED, summary=words.cancelled(job))


def _node_lost(job: JobView, node: Liveness, now: Now) -> StatusChange | None:
    """Its node is fenced: whatever ran there computes no more."""
    assignment = job.status.assignment
    if assignment is None or node is not Liveness.FENCED:
        return None
    if job.status.execution is not None and _order_is(job, Intent.YIELD, Reason.SUSPENDED):
        return _left(job, now)
    if _is_to_go_on(job):
        return left_as_told(job, now)
    return _failed(
        job, Failure.NODE_LOST, f"{assignment.node} was lost: its agent fell silent. {words.how_far(job)}", now
    )


def _unclaimed(job: JobView, node: Liveness, now: Now) -> StatusChange | None:
    """Bound, and the agent has said nothing yet."""
    assignment = job.status.assignment
    if assignment is None or job.status.execution is not None:
        return None
    if job.job.spec.suspend:
        message = f"Suspended before it started on {assignment.node}."
        return suspended(job, now, outcome=SUSPENDED, message=message)
    # The agent waits for a reservation; `reserved` knows since when it has it.
    return None if assignment.reservation else unclaimed(job, node, assignment.bound_at, now)


def unclaimed(job: JobView, node: Liveness, since: str | None, now: Now) -> StatusChange | None:
    """Its agent could have taken it since then, and lives."""
    assignment = job.status.assignment
    waited_s = seconds_since(since, now.wall) or 0.0
    if assignment is None or node is not Liveness.ONLINE or waited_s < CLAIM_WITHIN_S:
        return None
    message = f"{assignment.node} is alive but did not take it within {CLAIM_WITHIN_S:.0f} s."
    return _failed(job, Failure.NEVER_CLAIMED, message, now)


def _to_suspend(job: JobView, node: Liveness, now: Now) -> StatusChange | None:
    """`spec.suspend`: the agent is asked for a checkpoint and the place."""
    if not job.job.spec.suspend:
        return None
    if job.status.assignment is None:
        if job.status.phase == Phase.SUSPENDED:
            return None
        return suspended(job, now, outcome=SUSPENDED, message="Suspended while it waited.")
    return told_to(job, now, Intent.YIELD, Reason.SUSPENDED, "Suspending: saving a checkpoint.")


def _running(job: JobView, node: Liveness, now: Now) -> StatusChange | None:
    """The agent has started it."""
    execution = job.status.execution
    if execution is None or execution.state != State.RUNNING or job.status.phase == Phase.RUNNING:
        return None
    status = changed(
        job,
        now,
        phase=Phase.RUNNING,
        reason=Reason.TRAINING,
        summary=words.running(job),
        true=(ConditionType.RUNNING,),
        kept=(ConditionType.SCHEDULED,),
        first_started_at=job.status.first_started_at or execution.started_at or now.timestamp,
    )
    return StatusChange(job, status, "running")


# Ends first, so that nothing is ordered of what is over; then orders; then what only has to be told.
_RULES: tuple[Callable[[JobView, Liveness, Now], StatusChange | None], ...] = (
    _ended_well,
    _cancelled,
    _past_deadline,
    _cannot_be_split,
    _ended,
    _node_lost,
    _unclaimed,
    _to_suspend,
    _running,
    stalled,
)


def _failed(job: JobView, failure: str, message: str, now: Now) -> StatusChange:
    """Another attempt or the end, as the failure's class demands."""
    verdict = verdict_on(job, failure, now.wall)
    counts = {"failures": verdict.failures or None, "node_faults": verdict.node_faults or None}
    if not verdict.gives_up:
        summary = words.retry(failure, message, verdict.retry_at)
        return waiting_again(
            job,
            now,
            outcome=failure,
            message=summary,
            record=message or failure,
            reason=Reason.RETRYING,
            retry_at=verdict.retry_at,
            **counts,
        )
    where = f" on {job.status.assignment.node}" if job.status.assignment else ""
    reason, summary = failure, f"{failure}{where}: {message}"
    if RULES.get(failure) is not Rule.FINAL:
        reason = Failure.BACKOFF_LIMIT
        limit = job.job.spec.backoff_limit
        summary = f"Failed {verdict.failures} times, backoffLimit is {limit}. Last: {summary}"
    change = finished(job, now, phase=Phase.FAILED, reason=reason, summary=summary, **counts)
    return StatusChange(job, change.status, change.what, notes=change.notes, outcome=clip(failure, 64))


def _left(job: JobView, now: Now) -> StatusChange:
    """The job has left its place on the user's wish; by now the user may want it back."""
    checkpoint = newest_checkpoint(job)
    saved = f" at step {checkpoint.step}" if checkpoint else " without a checkpoint"
    message = f"Suspended{saved}."
    if job.job.spec.suspend:
        return suspended(job, now, outcome=SUSPENDED, message=message)
    change = waiting_again(job, now, outcome=SUSPENDED, message=f"{message} Goes on.", reason=Reason.RETRYING)
    return StatusChange(job, change.status, change.what, outcome=SUSPENDED)


def _order_is(job: JobView, intent: str, reason: str) -> bool:
    assignment = job.status.assignment
    return assignment is not None and assignment.intent == intent and assignment.reason == reason


def _is_to_go_on(job: JobView) -> bool:
    """It was told to leave for a reason that is not the user's, who still wants it to run."""
    assignment = job.status.assignment
    told = assignment is not None and assignment.intent == Intent.YIELD and assignment.reason in OUTCOMES
    return told and not job.job.spec.suspend
