"""What a job's reservation does to its status: it waits for it in words, gives up, or leaves with it."""

from __future__ import annotations

from cyxwiz_crds import ConditionType, Failure, Phase, Reason
from cyxwiz_operator.clock import Now, after, seconds_since
from cyxwiz_operator.reservation_pods import Reservation
from cyxwiz_operator.views import JobView, Liveness

from .change import StatusChange, changed, finished, waiting_again
from .leaving import told_to_yield
from .review import unclaimed

REFUSED_AGAIN_S = 30.0
"""After a refusal, such as for a quota, it is not asked again before."""
TOLD_AFTER_S = 2.0
"""What Kubernetes reserves sooner is worth no word and no write."""


def review_reservation(
    job: JobView, pod: Reservation | None, node: Liveness, now: Now, wait_s: float
) -> StatusChange | None:
    """What follows for a job with a reservation; None when nothing does, and for one without."""
    assignment = job.status.assignment
    if assignment is None or assignment.reservation is None or not job.holds_capacity:
        return None
    if pod is not None and pod.refused:
        message = f"Kubernetes refuses the pod that reserves its GPUs: {pod.message}"
        retry_at = after(now.wall, REFUSED_AGAIN_S)
        return waiting_again(
            job, now, outcome=Failure.NOT_RESERVED, message=message, reason=Reason.NOT_RESERVED, retry_at=retry_at
        )
    if pod is not None and pod.leaves:
        because = pod.message.replace(":", ",")  # what stands before a colon is kept as the reason
        words = f"Kubernetes takes its GPUs back ({because}): saving a checkpoint."
        return told_to_yield(job, now, pod.leaves, words)
    if job.status.execution is not None:
        if pod is not None:
            return None
        return told_to_yield(job, now, Reason.EVICTED, "The pod that reserves its GPUs is gone: saving a checkpoint.")
    if pod is not None and pod.running_since:
        return unclaimed(job, node, pod.running_since, now)
    why = (pod and pod.message) or "its pod is on its way"
    waited_s = seconds_since(assignment.bound_at, now.wall) or 0.0
    if waited_s < TOLD_AFTER_S:
        return None
    if waited_s >= wait_s:
        message = f"Kubernetes has not reserved its GPUs on {assignment.node} within {wait_s:.0f} s: {why}"
        return waiting_again(job, now, outcome=Failure.NOT_RESERVED, message=message, reason=Reason.NOT_RESERVED)
    summary = f"Waits for Kubernetes to reserve its GPUs on {assignment.node}: {why}"
    status = changed(
        job,
        now,
        phase=Phase.BOUND,
        reason=Reason.WAITING_FOR_RESERVATION,
        summary=summary,
        kept=(ConditionType.SCHEDULED,),
    )
    return None if status == job.status else StatusChange(job, status, "waits for its reservation")


def cannot_reserve(job: JobView, now: Now) -> StatusChange | None:
    """A job that shares GPUs never runs where Kubernetes gives out whole ones: it ends before it waits for one."""
    if not job.is_pending or job.job.spec.resources.gpu_memory is None:
        return None
    message = (
        "resources.gpuMemory shares a GPU with other jobs, and this cluster reserves whole GPUs through Kubernetes."
        " Leave gpuMemory out"
    )
    return finished(
        job, now, phase=Phase.FAILED, reason=Failure.USER_ERROR, summary=f"UserError: {message}.", assignment=None
    )
