"""How an attempt that is over is to be reported: its exit, its records and the order it was under. Pure."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from cyxwiz_crds import Failure, Intent, State, size_text
from cyxwiz_protocol.records import ExitCode, ExitRecord

from .facts import Facts

LOG_LINES_SHOWN = 20
# What a trainer says of an error it cannot explain; on a failed GPU the GPU explains it.
_BLAMED_ON_A_GPU = frozenset({Failure.CRASHED, Failure.GPU_FAULT})
# Orders to stop that are no wish of the user's.
_FAILED_BECAUSE: dict[str, str] = {
    Failure.DEADLINE_EXCEEDED: "stopped: activeDeadlineSeconds is over",
    Failure.STALLED: "stopped: it did no step any more",
}


@dataclass(frozen=True)
class Wish:
    """Why a job is to leave."""

    state: str
    """How the execution ends when the job leaves because of it: Cancelled, Yielded or Failed."""
    reason: str
    message: str
    grace_s: float


@dataclass(frozen=True)
class Ending:
    """The final words of an execution."""

    state: str
    reason: str | None
    message: str | None


def wish_of(intent: str, reason: str | None, grace_s: float, *, cancelled: bool) -> Wish | None:
    """What the present order asks of a job that runs; None: go on."""
    failed = _FAILED_BECAUSE.get(reason or "")
    if intent == Intent.STOP and reason and failed and not cancelled:
        return Wish(State.FAILED, reason, failed, grace_s)
    if cancelled or intent == Intent.STOP:
        return Wish(State.CANCELLED, reason or "CancelledByUser", "stopped on request", grace_s)
    if intent == Intent.YIELD:
        return Wish(State.YIELDED, reason or "Yielded", "left at a checkpoint", grace_s)
    return None


def ending_of(
    exit_record: ExitRecord, facts: Facts, wish: Wish | None, log_tail: str, gpu_fault: str | None = None
) -> Ending:
    """How it ended. A job that ended well has succeeded, whatever was wished meanwhile.

    `gpu_fault` says what is wrong with a GPU it was given: then no program is blamed for crashing on it.
    """
    evaluated = facts.evaluation is not None and facts.evaluation.loss is not None
    if exit_record.exit_code == ExitCode.SUCCEEDED and (facts.model is not None or evaluated):
        missing = _not_stored(exit_record, facts)
        if missing is None:
            return Ending(State.SUCCEEDED, None, None)
        if wish is not None:
            return Ending(wish.state, wish.reason, f"{wish.message}: the model was trained and not stored")
        return Ending(State.FAILED, Failure.NOT_STORED, missing)
    told = facts.failure if exit_record.exit_code == ExitCode.FAILED else None
    if told is not None and not (gpu_fault and told.failure in _BLAMED_ON_A_GPU):
        return Ending(State.FAILED, told.failure, told.message)
    match exit_record.cause:
        case "Fenced":
            return Ending(State.FAILED, Failure.NODE_LOST, "killed: the node had lost touch with the cluster")
        case "RunnerRestarted":
            return Ending(State.FAILED, Failure.EVICTED, "the node's runner was restarted")
        case "SharingLost":
            return Ending(State.FAILED, Failure.EVICTED, "the server through which it shared its GPU ended")
        case "StartFailed":
            return Ending(
                State.FAILED, Failure.EVICTED, f"no trainer could be started on this node. {log_tail}".strip()
            )
        case "OutOfHostMemory":
            peak = exit_record.memory_peak_bytes
            held = f", {size_text(peak)} at its peak" if peak else ""
            message = f"killed: used more host memory than it asked for{held}. Set resources.memory higher"
            return Ending(State.FAILED, Failure.OUT_OF_HOST_MEMORY, message)
        case "Stopped" | "Exited":
            pass
    if wish is not None:
        return Ending(wish.state, wish.reason, wish.message)
    if exit_record.cause == "Stopped":
        return Ending(State.YIELDED, None, "stopped on an order that was taken back since")
    if gpu_fault:
        return Ending(State.FAILED, Failure.GPU_FAULT, f"{gpu_fault}. {_crash(exit_record, log_tail)}")
    return Ending(State.FAILED, Failure.CRASHED, _crash(exit_record, log_tail))


def _not_stored(exit_record: ExitRecord, facts: Facts) -> str | None:
    """Why the model is not where output.uri wants it; None when it is, or was to stay."""
    stored, model = exit_record.stored, facts.model
    if stored is None or model is None:
        return None
    name = model.path.rpartition("/")[2]
    file = stored.file(name)
    if stored.message is not None:
        why = stored.message
    elif file is None:
        why = f"{name} was gone when training had ended"
    elif file.sha256 != model.sha256:
        why = f"{name} is another file than training has told of"
    else:
        return None
    return f"The model is trained, and not stored: {why}. It lies on its node: model.downloadPath brings it."


def _crash(exit_record: ExitRecord, log_tail: str) -> str:
    if exit_record.signal is not None:
        how = f"was killed by {signal.Signals(exit_record.signal).name}"
    else:
        how = f"ended with exit code {exit_record.exit_code}"
    return f"The trainer {how}. Its last words: {log_tail}" if log_tail else f"The trainer {how}."
