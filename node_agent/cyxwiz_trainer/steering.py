"""What `spec.control` asks of a running job: looked at now and then, taken up between two steps, acknowledged."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from cyxwiz_crds import Control
from cyxwiz_crds.training_job import Hyperparameters
from cyxwiz_protocol.records import ControlRecord

from .reporter import Reporter
from .schedule import Plan

LOOK_EVERY_S = 0.5


class Steering:
    """The orders to one job, newest first heard. What cannot be read is no order."""

    def __init__(self, path: Path, first: Control | None, clock: Callable[[], float] = time.monotonic) -> None:
        """`first` is the order the attempt begins with; later ones appear at `path`."""
        self._path = path
        self._clock = clock
        self._looked_at = float("-inf")
        self._file: tuple[int, int] | None = None
        self.control = first
        """The order in force."""

    def news(self) -> Control | None:
        """An order that is newer than the one in force, which it then is. At most one look each LOOK_EVERY_S."""
        if self._clock() - self._looked_at < LOOK_EVERY_S:
            return None
        self._looked_at = self._clock()
        try:
            seen = self._path.stat()
            if self._file == (seen.st_ino, seen.st_mtime_ns):
                return None
            self._file = (seen.st_ino, seen.st_mtime_ns)
            control = Control.model_validate_json(self._path.read_bytes())
        except (OSError, ValidationError):
            return None
        if self.control is not None and control.generation <= self.control.generation:
            return None
        self.control = control
        return control


def steered(plan: Plan, control: Control | None, step: int) -> Plan:
    """The job's own `plan` with its end as ordered, when `step` steps are done: never before the epoch in progress is.

    At the end of an epoch that epoch still counts as in progress.
    """
    if control is None:
        return plan
    epoch_ends = (max(step - 1, 0) // plan.steps_per_epoch + 1) * plan.steps_per_epoch
    end = plan.total_steps if control.epochs is None else control.epochs * plan.steps_per_epoch
    if control.stop_after_epoch:
        end = min(end, epoch_ends)
    return plan.ending_at(end if end >= step else epoch_ends)


def steered_hyper(hyper: Hyperparameters, control: Control | None) -> Hyperparameters:
    """The job's own hyperparameters with the learning rate as ordered."""
    if control is None or control.learning_rate is None:
        return hyper
    return hyper.model_copy(update={"learning_rate": control.learning_rate})


def acknowledge(reporter: Reporter, control: Control, plan: Plan, step: int, *, saved: bool) -> None:
    """The record says that training goes by `control` after `step` steps; `plan` is the one that follows from it."""
    parts = [f"ends after epoch {plan.epochs}"] if control.epochs is not None or control.stop_after_epoch else []
    if control.learning_rate is not None:
        parts.append(f"learning rate {control.learning_rate:g}")
    if saved:
        parts.append("checkpoint saved")
    message = f"After step {step}: {', '.join(parts) or 'as in spec'}."
    reporter.write(ControlRecord(t=time.time(), generation=control.generation, message=message))
