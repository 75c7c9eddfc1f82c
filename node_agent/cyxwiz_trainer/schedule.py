"""How long training is, and the learning rate of each of its steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cyxwiz_crds import TrainingJobSpec


@dataclass(frozen=True)
class Plan:
    """The steps of a job. Every batch is whole: the samples left over wait for the next epoch's order."""

    epochs: int
    batch_size: int
    steps_per_epoch: int

    @classmethod
    def of(cls, spec: TrainingJobSpec, samples: int) -> Plan:
        """The plan for `samples` training samples. Fewer than one batch of them are one batch."""
        batch_size = min(spec.batch_size, samples)
        return cls(spec.epochs, batch_size, samples // batch_size)

    @property
    def total_steps(self) -> int:
        return self.epochs * self.steps_per_epoch


def learning_rate(step: int, plan: Plan, peak: float, schedule: str, warmup_epochs: float) -> float:
    """The rate for `step` (from 0): a linear rise from zero, then `peak` or half a cosine from it down to zero."""
    warmup = min(round(warmup_epochs * plan.steps_per_epoch), plan.total_steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "constant":
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(plan.total_steps - warmup, 1)))
