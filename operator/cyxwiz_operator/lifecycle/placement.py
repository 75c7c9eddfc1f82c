"""What the scheduler's answer does to a job's status: it is bound, or it waits and is told why."""

from __future__ import annotations

from cyxwiz_crds import Assignment, ConditionType, Failure, Intent, Phase, Reason, RestoreFrom, Scheduling
from cyxwiz_crds.artifacts import InitialWeights
from cyxwiz_operator.clock import Now, after, parse, seconds_since
from cyxwiz_operator.reservation_pods import pod_name
from cyxwiz_operator.scheduling.planning import Placement, Waiting
from cyxwiz_operator.views import JobView

from . import words
from .change import LINE, Note, StatusChange, changed, clip, finished
from .goodput import begun_anew

ESTIMATE_SLACK_S = 30.0
ESTIMATE_SLACK = 0.1
"""An estimate that moved by less than this is not worth a write."""


def bound(job: JobView, placement: Placement, now: Now, *, reserves: bool = False) -> StatusChange:
    """The job has a place: a new attempt, which drops whatever an earlier one reported, in the same write.

    With `reserves` its GPUs are asked of Kubernetes before it starts.
    """
    attempt = job.attempt + 1
    identity = f"{job.uid}-{attempt}"
    restore_from = _readable_checkpoint(job, placement.node)
    summary = f"Bound to {placement.node}" + (f" (attempt {attempt})." if attempt > 1 else ".")
    if restore_from:
        summary += f" Goes on from step {restore_from.step} of attempt {restore_from.attempt}."
    elif job.status.restore_from:
        summary += f" Starts anew: its checkpoint is on {job.checkpoint_node}."
    weights = placement.weights
    if weights:
        summary += f" Starts from the weights of job {_base(job)}, sha256 {weights.sha256[:16]}…"
    status = changed(
        job,
        now,
        phase=Phase.BOUND,
        reason=Reason.BOUND,
        summary=summary,
        true=(ConditionType.SCHEDULED,),
        attempt=attempt,
        assignment=Assignment(
            id=identity,
            node=placement.node,
            gpus=list(placement.gpus),
            reservation=pod_name(identity) if reserves and placement.gpus else None,
            intent=Intent.RUN,
            bound_at=now.micro_time,
            restore_from=restore_from,
            init_from=InitialWeights(uri=weights.uri, sha256=weights.sha256) if weights else None,
        ),
        execution=None,
        goodput=(None if restore_from else begun_anew(job)) or job.status.goodput,
        retry_at=None,
        scheduling=Scheduling(
            candidates=[clip(line, LINE) for line in placement.candidates],
            rejected=clip(placement.rejected) if placement.rejected else None,
        ),
    )
    return StatusChange(job, status, "bound", notes=(Note("Bound", summary),))


def queued(job: JobView, waiting: Waiting, now: Now) -> StatusChange | None:
    """The job waits and says why; None when that is what its status says already."""
    start = _estimated_start(job, waiting, now)
    summary = words.waiting(job, waiting.position, waiting.message, start)
    # While it backs off no node was asked.
    rejected = None if waiting.reason == Reason.BACKING_OFF else waiting.why or waiting.message
    status = changed(
        job,
        now,
        phase=Phase.QUEUED,
        reason=waiting.reason,
        summary=summary,
        false=(ConditionType.SCHEDULED,),
        scheduling=Scheduling(
            position=waiting.position,
            holds=waiting.holds,
            estimated_start=start,
            confidence=waiting.estimate.confidence if waiting.estimate else None,
            rejected=clip(rejected) if rejected else None,
        ),
    )
    return None if status == job.status else StatusChange(job, status, "queued")


def without_weights(job: JobView, message: str, now: Now) -> StatusChange:
    """The job starts from weights that will never be: it ends before it holds anything."""
    return finished(job, now, phase=Phase.FAILED, reason=Failure.USER_ERROR, summary=f"UserError: {message}")


def _base(job: JobView) -> str | None:
    init_from = job.job.spec.model.init_from
    return init_from.job if init_from else None


def _estimated_start(job: JobView, waiting: Waiting, now: Now) -> str | None:
    """The time told last, unless the new one differs by more than half a minute and a tenth of the wait."""
    if waiting.estimate is None:
        return None
    fresh = after(now.wall, waiting.estimate.in_s)
    told = job.status.scheduling.estimated_start if job.status.scheduling else None
    moved_s = abs(seconds_since(told, parse(fresh)) or 0.0)
    is_right = told is not None and moved_s <= max(ESTIMATE_SLACK_S, ESTIMATE_SLACK * waiting.estimate.in_s)
    return told if is_right else fresh


def _readable_checkpoint(job: JobView, node: str) -> RestoreFrom | None:
    """The newest checkpoint where `node` can read it: on its own disk, or somewhere that is no node's."""
    home = job.checkpoint_node
    return job.status.restore_from if home is None or home == node else None
