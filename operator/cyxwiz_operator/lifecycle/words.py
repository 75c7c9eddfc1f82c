"""The sentences of `status.summary` about a job's run: what happened, in numbers, and what to do next."""

from __future__ import annotations

from cyxwiz_operator.views import JobView

from .change import newest_checkpoint


def success(job: JobView) -> str:
    """Trained 5 epochs in 4 s on node-a (Warm): validation accuracy 0.9722. Model 93 KB, sha256 1f2e…"""
    if job.job.spec.job_type == "Evaluation":
        return _evaluated(job)
    status = job.status
    execution, assignment = status.execution, status.assignment
    epochs = _epochs(job)
    text = f"Trained {epochs} epoch{'s' if epochs != 1 else ''}"
    if execution is None or assignment is None:
        return f"{text}."
    progress = execution.progress
    if progress and progress.elapsed_seconds is not None:
        text += f" in {duration(progress.elapsed_seconds)}"
    text += f" on {assignment.node}"
    if execution.start:
        text += f" ({execution.start.partition(' ')[0]})"
    if progress and progress.validation_accuracy:
        text += f": validation accuracy {progress.validation_accuracy}"
    elif progress and progress.loss:
        text += f": loss {progress.loss}"
    text += "."
    if execution.model:
        text += f" Model {_size(execution.model.bytes)}, sha256 {execution.model.sha256[:16]}…"
        for missing in (export for export in execution.model.exports if export.sha256 is None):
            text += f" {missing.format}: {missing.message}."
    if assignment.restore_from is None and _had_checkpoint_elsewhere(job):
        text += " It started anew: the checkpoint of an earlier attempt was on another node."
    if execution.data and execution.data.synthetic:
        text += " The data is synthetic."
    return text


def _evaluated(job: JobView) -> str:
    """Evaluated 10000 samples on node-a: accuracy 0.9312, loss 0.2101."""
    execution, assignment = job.status.execution, job.status.assignment
    progress = execution.progress if execution else None
    if execution is None or assignment is None or progress is None:
        return "Evaluated."
    text = f"Evaluated {progress.samples_processed} samples on {assignment.node}: "
    if progress.validation_accuracy:
        text += f"accuracy {progress.validation_accuracy}, "
    text += f"loss {progress.validation_loss}."
    if execution.data and execution.data.synthetic:
        text += " The data is synthetic."
    return text


def running(job: JobView) -> str:
    """Training on node-a (attempt 2), Warm (0.09 s)."""
    assignment, execution = job.status.assignment, job.status.execution
    doing = "Evaluating" if job.job.spec.job_type == "Evaluation" else "Training"
    text = f"{doing} on {assignment.node}" if assignment else doing
    if job.attempt > 1:
        text += f" (attempt {job.attempt})"
    if execution and execution.start:
        text += f", {execution.start}"
    text += "."
    if assignment and assignment.restore_from:
        text += f" Goes on from step {assignment.restore_from.step} of attempt {assignment.restore_from.attempt}."
    elif _had_checkpoint_elsewhere(job):
        text += " It started anew: the checkpoint of an earlier attempt is on another node."
    return text


def cancelled(job: JobView) -> str:
    """Cancelled by the user in epoch 3/5. Last checkpoint: step 400."""
    return f"Cancelled by the user. {how_far(job)}"


def how_far(job: JobView) -> str:
    """Epoch 3/5, step 412. Last checkpoint: step 400."""
    execution = job.status.execution
    progress = execution.progress if execution else None
    parts: list[str] = []
    if progress and progress.epochs:
        # A checkpoint can be newer than the newest progress.
        saved = execution.checkpoint.step if execution and execution.checkpoint else 0
        step = max(progress.step or 0, saved)
        parts.append(f"Epoch {progress.epochs}, step {step}.")
    checkpoint = newest_checkpoint(job)
    parts.append(f"Last checkpoint: step {checkpoint.step}." if checkpoint else "Last checkpoint: none.")
    return " ".join(parts)


def waiting(job: JobView, position: int, why: str, start: str | None) -> str:
    """Position 2. 0/3 nodes have room: … Expected to start about 2026-01-01T00:14:00Z. Attempt 1 on node-a ended as
    Crashed: The trainer was killed by SIGKILL. Goes on from step 57. 1 of 3 retries used."""
    parts = [f"Position {position}. {why}"]
    if start:
        parts.append(f"Expected to start about {start}.")
    status = job.status
    if status.history:
        last = status.history[-1]
        said = last.message.rstrip(".")
        how = f": {said}" if said.startswith(last.outcome) else f" as {last.outcome}{said and f': {said}'}"
        parts.append(f"Attempt {last.attempt} on {last.node} ended{how}.")
        if status.restore_from is not None:
            parts.append(f"Goes on from step {status.restore_from.step}.")
    if status.failures:
        parts.append(f"{status.failures} of {job.job.spec.backoff_limit} retries used.")
    return " ".join(parts)


def retry(failure: str, message: str, retry_at: str | None) -> str:
    """Crashed: exit status 1. Will be tried again after 2026-01-01T00:00:10Z."""
    text = f"{failure}: {message}".rstrip()
    if not text.endswith((".", "!", "?", "…")):
        text += "."
    return f"{text} Will be tried again {f'after {retry_at}' if retry_at else 'as soon as there is a place'}."


def _epochs(job: JobView) -> int:
    """Epochs that were trained: by order or early stopping others than were asked for."""
    execution = job.status.execution
    progress = execution.progress if execution else None
    return (progress and progress.epoch) or job.job.spec.epochs


def _had_checkpoint_elsewhere(job: JobView) -> bool:
    assignment = job.status.assignment
    return assignment is not None and job.status.restore_from is not None and assignment.restore_from is None


def duration(seconds: int) -> str:
    """45 s, 1 min 40 s, 2 h 5 min."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _size(size: int) -> str:
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f}".rstrip("0").rstrip(".") + f" {unit}"
    return f"{size} bytes"
