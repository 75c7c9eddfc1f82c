"""The answer to `spec.dryRun`: where the job would start or why not, and what it would need."""

from __future__ import annotations

from cyxwiz_crds import DryRunAnswer, Phase, Reason, Scheduling
from cyxwiz_operator.clock import Now, after
from cyxwiz_operator.scheduling.planning import Placement, Waiting
from cyxwiz_operator.views import JobView
from cyxwiz_operator.workload import Requirements

from .change import LINE, StatusChange, clip, finished
from .words import duration


def answered(job: JobView, found: Placement | Waiting, needs: Requirements | None, now: Now) -> StatusChange:
    """The dry run is over and has its answer; nothing was run, reserved or charged."""
    match found:
        case Placement():
            node, reason = found.node, Reason.WOULD_START
            what = f"would start at once on {node}."
            scheduling = Scheduling(
                candidates=[clip(line, LINE) for line in found.candidates],
                rejected=clip(found.rejected) if found.rejected else None,
            )
        case Waiting():
            node, why = None, found.why or found.message
            never = found.reason in (Reason.NO_NODE_FITS, Reason.NO_NODES)
            reason = found.reason if never else Reason.WOULD_WAIT
            what = f"{'could not start' if never else f'would wait at position {found.position}'}. {why}"
            estimate = found.estimate
            scheduling = Scheduling(
                position=None if never else found.position,
                estimated_start=after(now.wall, estimate.in_s) if estimate else None,
                confidence=estimate.confidence if estimate else None,
                rejected=clip(why),
            )
    answer = DryRunAnswer(node=node)
    if needs is not None:
        answer = DryRunAnswer(
            node=node,
            gpu_memory=needs.gpu_memory or "none",
            duration=duration(round(needs.duration_s)),
            duration_seconds=round(needs.duration_s),
            measured_on=needs.jobs,
        )
    summary = f"Dry run: {what} {_needs(needs)} Nothing was run."
    return finished(
        job, now, phase=Phase.SUCCEEDED, reason=reason, summary=summary, dry_run=answer, scheduling=scheduling
    )


def _needs(needs: Requirements | None) -> str:
    if needs is None:
        return (
            "What it needs is not known: no job of the same model, data, batch size and resources has succeeded there."
            " One with epochs: 1 makes it known."
        )
    memory = f" and holds up to {needs.gpu_memory} of each GPU" if needs.gpu_memory else ""
    jobs = f"{needs.jobs} earlier job{'s' if needs.jobs != 1 else ''}"
    return f"It trains for about {duration(round(needs.duration_s))}{memory}, by {jobs} like it on {needs.device}."
