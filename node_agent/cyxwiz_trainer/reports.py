"""What the loop tells of its way, in the protocol's records. Epochs count from 0 here and from 1 in the records."""

from __future__ import annotations

import math
import time

from cyxwiz_protocol.records import EpochRecord, ProgressRecord

from .device import Device
from .failures import Diverged, diverged
from .rate import Rate
from .reporter import Reporter
from .schedule import Plan
from .totals import Sums

BEAT_S = 1.0


class Reports:
    """Progress and epochs, each checked first: what is not a number is no progress."""

    def __init__(
        self, reporter: Reporter, plan: Plan, device: Device, peak_learning_rate: float, restored_step: int
    ) -> None:
        self._reporter = reporter
        self._plan = plan
        self._device = device
        self._peak_learning_rate = peak_learning_rate
        self._begun = self._beat = time.monotonic()
        self._rate = Rate(self._begun, restored_step)

    def is_due(self) -> bool:
        """True once per beat."""
        now = time.monotonic()
        if now - self._beat < BEAT_S:
            return False
        self._beat = now
        return True

    def check(self, epoch: int, sums: Sums) -> None:
        """Raises Diverged unless every loss was a number."""
        if not sums.is_finite:
            raise self._diverged(epoch, epoch * self._plan.steps_per_epoch + int(sums.finite_steps) + 1)

    def progress(self, epoch: int, sums: Sums, learning_rate: float) -> None:
        """Where training is, after the last step of `sums`. Raises Diverged."""
        self.check(epoch, sums)
        plan, now = self._plan, time.monotonic()
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
                accuracy=sums.accuracy(plan.batch_size),
                learning_rate=learning_rate,
                samples_processed=step * plan.batch_size,
                samples_per_second=self._rate.steps_per_second(now, step) * plan.batch_size,
                elapsed_seconds=now - self._begun,
                remaining_seconds=self._rate.remaining_s(plan.total_steps - step),
                gpu_memory_peak=self._device.memory_peak(),
            )
        )

    def epoch(self, epoch: int, sums: Sums, validation_loss: float, validation_accuracy: float) -> None:
        """The epoch is done and evaluated. Raises Diverged when the loss on held-out samples is no number."""
        if not math.isfinite(validation_loss):
            raise self._diverged(epoch, (epoch + 1) * self._plan.steps_per_epoch)
        self._reporter.write(
            EpochRecord(
                t=time.time(),
                epoch=epoch + 1,
                loss=sums.mean_loss,
                accuracy=sums.accuracy(self._plan.batch_size),
                validation_loss=validation_loss,
                validation_accuracy=validation_accuracy,
            )
        )

    def _diverged(self, epoch: int, step: int) -> Diverged:
        return diverged(epoch + 1, step, self._peak_learning_rate)
