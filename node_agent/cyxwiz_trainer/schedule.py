"""How long training is, and the learning rate of each of its steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from cyxwiz_crds import TrainingJobSpec
from cyxwiz_crds.training_job import Hyperparameters, batch_problem

from .failures import UserError

# Of a one-cycle schedule, as torch.optim.lr_scheduler.OneCycleLR has them.
ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = 1 / 25 / 10_000
ONE_CYCLE_RISE = 0.3


@dataclass(frozen=True)
class Plan:
    """The steps of a job. Every batch is whole: the samples left over wait for the next epoch's order."""

    epochs: int
    batch_size: int
    steps_per_epoch: int
    total_steps: int
    """The last epoch is cut short where they are no multiple of `steps_per_epoch`."""

    @classmethod
    def of(cls, spec: TrainingJobSpec, samples: int, ranks: int = 1) -> Plan:
        """The plan for `samples` training samples. Fewer than one batch of them are one, as far as ranks divide it.

        Raises UserError when a batch cannot be computed in the parts that are asked for.
        """
        parts = spec.hyperparameters.accumulate_steps
        if problem := batch_problem(spec.batch_size, ranks, parts):
            raise UserError(problem)
        batch_size = min(spec.batch_size, samples // ranks * ranks)
        if batch_size == 0:
            raise UserError(f"there are {samples} training samples for {ranks} GPUs: set resources.gpus: 1")
        if batch_size // ranks % parts:
            raise UserError(
                f"a batch of {batch_size} samples has no {parts} equal parts: set hyperparameters.accumulateSteps to "
                "a divisor of batchSize"
            )
        steps_per_epoch = samples // batch_size
        total_steps = spec.max_steps or spec.epochs * steps_per_epoch
        return cls(-(-total_steps // steps_per_epoch), batch_size, steps_per_epoch, total_steps)

    def ending_at(self, step: int) -> Plan:
        """The same plan, over after `step` steps."""
        return replace(self, epochs=-(-step // self.steps_per_epoch), total_steps=step)

    def epochs_evaluated(self, step: int) -> int:
        """Epochs that were over, cut short or not, when `step` steps were done."""
        return self.epochs if step == self.total_steps else step // self.steps_per_epoch


def learning_rate(step: int, plan: Plan, hyper: Hyperparameters) -> float:
    """The rate for `step` (from 0): a linear rise from zero, then what the schedule says."""
    peak = hyper.learning_rate
    warmup = min(round(hyper.warmup_epochs * plan.steps_per_epoch), plan.total_steps)
    if hyper.schedule == "onecycle":
        return peak * _one_cycle(step, plan.total_steps, warmup or ONE_CYCLE_RISE * plan.total_steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    match hyper.schedule:
        case "constant":
            return peak
        case "step":
            return peak * hyper.step_factor ** (step // (hyper.step_epochs * plan.steps_per_epoch))
        case "cosine":
            return peak * _half_cosine(1.0, 0.0, (step - warmup) / max(plan.total_steps - warmup, 1))


def _one_cycle(step: int, total_steps: int, rise_steps: float) -> float:
    """Half a cosine up, half a cosine down to almost nothing (arXiv:1708.07120), as a share of the peak."""
    top, last = max(rise_steps - 1, 1e-9), total_steps - 1
    if step <= top:
        return _half_cosine(ONE_CYCLE_START, 1.0, step / top)
    return _half_cosine(1.0, ONE_CYCLE_END, min((step - top) / max(last - top, 1e-9), 1.0))


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))
