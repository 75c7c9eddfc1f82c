"""The life of one attempt as a table: what it becomes, given what was asked and what was seen.

Pure: no process, file or clock. `jobs.py` looks, asks this module, and does what the state demands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from cyxwiz_protocol.runner_api import Answer, JobState, RunRequest

Cause = Literal["Exited", "Stopped", "Fenced", "StartFailed", "RunnerRestarted", "OutOfHostMemory", "SharingLost"]

STOPPED_WITHIN_S = 10.0
"""K of the fence: what does not show itself stopped by then is killed."""
FROZEN_AT_MOST_S = 300.0
"""A frozen job keeps its device memory from others; after this it is killed."""
SUPERSEDED_GRACE_S = 2.0
"""For an attempt whose successor is here: the operator has already given it up."""


@dataclass(frozen=True)
class Attempt:
    """One attempt as far as decisions need it. Times are boot times in seconds."""

    request: RunRequest
    deadline: float
    state: JobState = "Waiting"
    cause: Cause | None = None
    """Why it ends; set with state Ending or Reaped, or by a stop that has not been acted upon."""
    kill_at: float | None = None
    """When the grace of a stop is over."""
    frozen_at: float | None = None
    killing: bool = False
    """In state Ending: nothing more is waited for, SIGKILL until the tree is gone."""


@dataclass(frozen=True)
class Seen:
    """What is true of an attempt's processes now."""

    lower_gone: bool = True
    """No lower attempt of the same job has processes."""
    started: bool = False
    start_failed: bool = False
    exited: bool = False
    """Of the main process."""
    all_stopped: bool = False
    """No process of the tree can compute."""
    tree_gone: bool = False
    to_store: bool = False
    """It ended well, and its model is to be put elsewhere."""
    stored: bool = False
    """What came of that is known."""


# What an agent may ask.


def refusal(request: RunRequest, others: Iterable[Attempt], now: float) -> Answer | None:
    """Why an attempt that is not known yet may not begin; None when it may."""
    for other in others:
        if other.request.job_uid == request.job_uid and other.request.attempt >= request.attempt:
            return Answer(
                ok=False,
                reason="LowerAttempt",
                message=f"attempt {other.request.attempt} of {request.key} is here already",
            )
    if now >= request.deadline:
        late = now - request.deadline
        return Answer(ok=False, reason="DeadlinePassed", message=f"its deadline passed {late:.1f} s ago")
    return None


def stopped(attempt: Attempt, grace_s: float, now: float, cause: Cause = "Stopped") -> Attempt:
    """The attempt is to end after that grace. A second stop can only shorten it, and the first cause stays."""
    if attempt.state == "Reaped":
        return attempt
    kill_at = now + max(0.0, grace_s)
    return replace(attempt, cause=attempt.cause or cause, kill_at=min(kill_at, attempt.kill_at or kill_at))


def renewed(attempt: Attempt, deadline: float) -> Attempt:
    """The attempt may compute until the later of both deadlines."""
    return replace(attempt, deadline=max(attempt.deadline, deadline))


# What becomes of it.


def advance(attempt: Attempt, seen: Seen, now: float) -> Attempt:
    """The attempt as it must be now. Repeating it changes nothing until something else is seen."""
    while change := _next_change(attempt, seen, now):
        attempt = change(attempt, now)
    return attempt


def look_again_after(attempt: Attempt, now: float) -> float:
    """Seconds until time alone may change the attempt.

    Never more than one: timers stand still while the machine is suspended, deadlines do not.
    """
    moments = (attempt.deadline, attempt.kill_at)
    return min([moment - now for moment in moments if moment is not None and moment > now] + [1.0])


When = Callable[[Attempt, Seen, float], bool]
Change = Callable[[Attempt, float], Attempt]


def _next_change(attempt: Attempt, seen: Seen, now: float) -> Change | None:
    for state, when, change in TRANSITIONS:
        if attempt.state == state and when(attempt, seen, now):
            return change
    return None


def _is_stopped(attempt: Attempt, seen: Seen, now: float) -> bool:
    return attempt.cause is not None


def _is_late(attempt: Attempt, seen: Seen, now: float) -> bool:
    return now >= attempt.deadline


def _in_time(attempt: Attempt, seen: Seen, now: float) -> bool:
    return now < attempt.deadline


def _moves_while_frozen(attempt: Attempt, seen: Seen, now: float) -> bool:
    return not seen.all_stopped and now >= (attempt.frozen_at or now) + STOPPED_WITHIN_S


def _frozen_too_long(attempt: Attempt, seen: Seen, now: float) -> bool:
    return now >= (attempt.frozen_at or now) + FROZEN_AT_MOST_S


def _grace_is_over(attempt: Attempt, seen: Seen, now: float) -> bool:
    over = seen.exited or now >= attempt.deadline or (attempt.kill_at is not None and now >= attempt.kill_at)
    return over and not attempt.killing


def _start(attempt: Attempt, now: float) -> Attempt:
    return replace(attempt, state="Starting")


def _run(attempt: Attempt, now: float) -> Attempt:
    return replace(attempt, state="Running", frozen_at=None)


def _freeze(attempt: Attempt, now: float) -> Attempt:
    return replace(attempt, state="Frozen", frozen_at=now)


def _terminate(attempt: Attempt, now: float) -> Attempt:
    return replace(attempt, state="Ending")


def _kill(cause: Cause) -> Change:
    """Ends it without grace; a cause that stands already is kept."""
    return lambda attempt, now: replace(attempt, state="Ending", killing=True, cause=attempt.cause or cause)


def _store(attempt: Attempt, now: float) -> Attempt:
    return replace(attempt, state="Storing", killing=False, cause=attempt.cause or "Exited")


def _reap(cause: Cause) -> Change:
    return lambda attempt, now: replace(attempt, state="Reaped", cause=attempt.cause or cause)


TRANSITIONS: tuple[tuple[JobState, When, Change], ...] = (
    # Nothing runs yet, so there is nothing to end.
    ("Waiting", _is_stopped, _reap("Stopped")),
    ("Waiting", _is_late, _reap("Fenced")),
    ("Waiting", lambda attempt, seen, now: seen.lower_gone, _start),
    # Before the trainer has answered there is nothing to save: no grace.
    ("Starting", _is_stopped, _kill("Stopped")),
    ("Starting", _is_late, _kill("Fenced")),
    ("Starting", lambda attempt, seen, now: seen.start_failed, _kill("StartFailed")),
    ("Starting", lambda attempt, seen, now: seen.started, _run),
    # What its main process leaves behind is killed.
    ("Running", lambda attempt, seen, now: seen.exited, _kill("Exited")),
    ("Running", lambda attempt, seen, now: attempt.cause is not None and now < attempt.deadline, _terminate),
    ("Running", _is_stopped, _kill("Stopped")),
    ("Running", _is_late, _freeze),
    # A stopped process cannot handle SIGTERM, so a frozen one is only ever killed or thawed.
    ("Frozen", lambda attempt, seen, now: seen.exited, _kill("Exited")),
    ("Frozen", _is_stopped, _kill("Stopped")),
    ("Frozen", _in_time, _run),
    ("Frozen", _moves_while_frozen, _kill("Fenced")),
    ("Frozen", _frozen_too_long, _kill("Fenced")),
    # In its grace a trainer computes, so the deadline ends the grace too.
    # Not after the deadline: a later attempt may be storing its own there.
    ("Ending", lambda attempt, seen, now: seen.tree_gone and seen.to_store and now < attempt.deadline, _store),
    ("Ending", lambda attempt, seen, now: seen.tree_gone, _reap("Exited")),
    ("Ending", _grace_is_over, _kill("Stopped")),
    ("Storing", lambda attempt, seen, now: seen.stored, _reap("Exited")),
    ("Storing", _is_late, _reap("Exited")),
    ("Storing", lambda attempt, seen, now: attempt.kill_at is not None and now >= attempt.kill_at, _reap("Exited")),
)
"""Per state, the first row whose condition holds."""
