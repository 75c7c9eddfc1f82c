"""One attempt on this node, from the assignment to the last report: gather, decide, act.

`decide` is pure and level-triggered: it looks at what is true now (the job as the API server has it, the process as
the runner has it) and names the one thing to do next. A lost message, a restart of the agent or of the runner and a
late answer all come out as just another picture to look at.
"""

from __future__ import annotations

from dataclasses import dataclass

from cyxwiz_crds import ENDED_STATES, FINAL_PHASES, Control, TrainingJob
from cyxwiz_protocol.runner_api import JobProcess

from .admission import Refusal
from .ending import Wish, wish_of
from .settings import STOP_GRACE_S

_LEAVING = frozenset({"Ending", "Reaped"})


@dataclass(frozen=True)
class Picture:
    """Everything `decide` looks at."""

    assignment_id: str
    job: TrainingJob | None
    """As last seen; None when it is known to be deleted."""
    process: JobProcess | None
    confirmed: bool
    """The API server has shown this assignment in the present epoch of the Lease."""
    lease_valid: bool
    runner_answers: bool
    stopping: bool
    """The runner has been told to stop it."""
    refusal: Refusal | None
    """Why it could not start now."""
    room_is_coming: bool
    """Something is leaving, so that a refusal may lapse."""
    progress_due: bool
    memory_is_back: bool = True
    """What its ended process held of GPUs is free again, or was waited for long enough."""
    waits_for_gpus: bool = False
    """Kubernetes has not given its pod the GPUs yet."""
    lost_gpus: bool = False
    """Kubernetes has given a GPU it runs on to somebody else."""
    handed_control: int = 0
    """Generation of the newest `spec.control` that the trainer was given."""


@dataclass(frozen=True)
class Wait:
    """Nothing to do until something changes."""


@dataclass(frozen=True)
class Leave:
    """This attempt is over and told: forget it."""


@dataclass(frozen=True)
class Confirm:
    """Have the API server accept a report in the present epoch: the assignment still stands."""


@dataclass(frozen=True)
class Start:
    """Report Running, and let the runner start it when that was accepted."""


@dataclass(frozen=True)
class Reject:
    """Report that this node does not take it."""

    refusal: Refusal


@dataclass(frozen=True)
class Stop:
    """Tell the runner to end it."""

    grace_s: float


@dataclass(frozen=True)
class Steer:
    """Hand the trainer the present `spec.control`."""

    control: Control


@dataclass(frozen=True)
class ReportProgress:
    """Report how far it is."""


@dataclass(frozen=True)
class ReportEnd:
    """Report how it ended."""

    wish: Wish | None


Action = Wait | Leave | Confirm | Start | Reject | Stop | Steer | ReportProgress | ReportEnd


def decide(now: Picture) -> Action:
    """The one next thing to do."""
    process = now.process
    if process is not None and process.state == "Reaped" and not now.memory_is_back:
        return Wait()  # told of its end, the operator would give its GPUs away
    if not is_mine(now.job, now.assignment_id):
        if process is None or process.state == "Reaped":
            return Leave()
        if now.stopping:
            return Wait()
        # Deleted by its user: the job may save itself. Bound elsewhere: it must be gone before the other starts.
        return Stop(STOP_GRACE_S if now.job is None else 0.0)
    job = now.job
    assert job is not None
    execution = job.status.execution
    if execution is not None and execution.state in ENDED_STATES:
        return Wait()
    wish = wish_for(job)
    if process is None:
        return _without_process(now, wish)
    if process.state == "Reaped":
        return ReportEnd(wish)
    if now.lost_gpus and process.state not in _LEAVING and not now.stopping:
        return Stop(0.0)
    if wish is not None and process.state not in _LEAVING and not now.stopping:
        return Stop(wish.grace_s)
    if not now.confirmed and now.lease_valid:
        return Confirm()
    control = job.spec.control
    if wish is None and control is not None and control.generation > now.handed_control:
        return Steer(control)
    return ReportProgress() if now.progress_due else Wait()


def _without_process(now: Picture, wish: Wish | None) -> Action:
    if not now.runner_answers:
        return Wait()
    if wish is not None:
        return ReportEnd(wish)
    if now.waits_for_gpus:
        return Wait()
    if now.refusal is not None:
        return Wait() if now.room_is_coming else Reject(now.refusal)
    return Start() if now.lease_valid else Wait()


def is_mine(job: TrainingJob | None, assignment_id: str) -> bool:
    """True while `assignment_id` is the job's current assignment and the job is not final."""
    return (
        job is not None
        and job.status.assignment is not None
        and job.status.assignment.id == assignment_id
        and job.status.phase not in FINAL_PHASES
    )


def wish_for(job: TrainingJob) -> Wish | None:
    """Why the job is to leave, from its present order; None: go on."""
    assignment = job.status.assignment
    assert assignment is not None
    grace_s = STOP_GRACE_S if assignment.grace_seconds is None else float(assignment.grace_seconds)
    cancelled = job.spec.cancel or job.metadata.deletion_timestamp is not None
    return wish_of(assignment.intent, assignment.reason, grace_s, cancelled=cancelled)
