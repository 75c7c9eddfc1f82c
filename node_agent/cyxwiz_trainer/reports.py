"""What the loop tells of its way, in the protocol's records. Epochs count from 0 here and from 1 in the records."""

from __future__ import annotations

import math
import time

from cyxwiz_protocol.records import ActivityRecord, EpochRecord, ProgressRecord, WaitsRecord

from .device import Device
from .distributed import ALONE, Ranks
from .evaluate import Result
from .failures import Diverged, diverged
from .rate import Rate
from .reporter import Reporter
from .schedule import Plan
from .tasks import Task
from .totals import Sums

BEAT_S = 1.0


class Reports:
    """Progress and epochs, each checked first: what is not a number is no progress."""

    def __init__(
        self,
        reporter: Reporter,
        task: Task,
        device: Device,
        peak_learning_rate: float,
        restored_step: int,
        ranks: Ranks = ALONE,
    ) -> None:
        self._reporter = reporter
        self._has_accuracy = task.has_accuracy
        self._device = device
        self._ranks = ranks
        self.peak_learning_rate = peak_learning_rate
        """Of the schedule in force."""
        self._begun = self._beat = time.monotonic()
        self._rate = Rate(self._begun, restored_step)

    def is_due(self) -> bool:
        """True once per beat."""
        now = time.monotonic()
        if now - self._beat < BEAT_S:
            return False
        self._beat = now
        return True

    def check(self, plan: Plan, epoch: int, sums: Sums) -> None:
        """Raises Diverged unless every loss was a number."""
        if not sums.is_finite:
            raise self._diverged(epoch, epoch * plan.steps_per_epoch + int(sums.finite_steps) + 1)

    def check_held_out(self, plan: Plan, epoch: int, held_out: Result) -> None:
        """Raises Diverged when the loss on held-out samples is no number."""
        if not math.isfinite(held_out.loss):
            raise self._diverged(epoch, min((epoch + 1) * plan.steps_per_epoch, plan.total_steps))

    def activity(self, activity: str) -> None:
        """No step is done from now on, for a good reason; or again, as "training"."""
        self._reporter.write(ActivityRecord(t=time.time(), activity=activity))

    def progress(
        self, plan: Plan, epoch: int, sums: Sums, learning_rate: float, waits: WaitsRecord | None = None
    ) -> None:
        """Where training is, after the last step of `sums`. Raises Diverged."""
        self.check(plan, epoch, sums)
        now = time.monotonic()
        step = epoch * plan.steps_per_epoch + sums.steps
        self._rate.seen(now, step)
        self._reporter.write(
            ProgressRecord(
                t=time.time(),
                epoch=epoch + 1,
                epochs=plan.epochs,
                step=step,
                total_steps=plan.total_steps,
                loss=sums.mean_loss,
                accuracy=self._accuracy(plan, sums),
                learning_rate=learning_rate,
                samples_processed=step * plan.batch_size,
                samples_per_second=self._rate.steps_per_second(now, step) * plan.batch_size,
                elapsed_seconds=now - self._begun,
                remaining_seconds=self._rate.remaining_s(plan.total_steps - step),
                gpu_memory_peak=self._memory_peak(),
                waits=waits,
            )
        )

    def ended_early(self, plan: Plan, best_epoch: int) -> None:
        """The log says why there are fewer epochs than were asked for."""
        if self._ranks.is_first:
            print(f"ended early after epoch {plan.epochs}: none since epoch {best_epoch} was better", flush=True)

    def epoch(self, plan: Plan, epoch: int, sums: Sums, held_out: Result) -> None:
        """The epoch is done and evaluated."""
        self._reporter.write(
            EpochRecord(
                t=time.time(),
                epoch=epoch + 1,
                loss=sums.mean_loss,
                accuracy=self._accuracy(plan, sums),
                validation_loss=held_out.loss,
                validation_accuracy=held_out.accuracy,
            )
        )

    def _memory_peak(self) -> int | None:
        """Of the rank that holds most."""
        peak = self._device.memory_peak()
        return None if peak is None else self._ranks.largest(peak)

    def _accuracy(self, plan: Plan, sums: Sums) -> float | None:
        return sums.accuracy(plan.batch_size) if self._has_accuracy else None

    def _diverged(self, epoch: int, step: int) -> Diverged:
        return diverged(epoch + 1, step, self.peak_learning_rate)
