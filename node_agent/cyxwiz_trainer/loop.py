"""The training loop, from top to bottom. Whatever it works on is made ready in `job.py`."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from cyxwiz_crds import TrainingJobSpec
from cyxwiz_protocol.records import CheckpointedRecord, ReplayRecord, StartedRecord

from .average import Average
from .checkpoint import Checkpoints, LoopState, Restored, Saved
from .compilation import Compilation
from .data import Dataset
from .device import Device
from .distributed import ALONE, Orders, Ranks
from .evaluate import evaluate
from .fastest import Fastest
from .feed import Feed, feed_for
from .fence import Fence, Stop
from .forward import forward_of
from .graph import Repeated
from .optimizer import Optimizer
from .replay import agrees, replayed_loss
from .reporter import Reporter
from .reports import Reports
from .run_ahead import RunAhead
from .schedule import Plan, learning_rate
from .software import software_of
from .steering import Steering, acknowledge, steered, steered_hyper
from .step import Step
from .step_times import marks_of
from .tasks import Task
from .totals import Totals
from .waits import Waits


@dataclass(frozen=True)
class Training:
    """Everything the loop works on."""

    spec: TrainingJobSpec
    plan: Plan
    device: Device
    data: Dataset
    """On the device where it fits there, else in host memory."""
    standardize: nn.Module
    model: nn.Module
    task: Task
    optimizer: Optimizer
    average: Average | None
    checkpoints: Checkpoints
    reporter: Reporter
    steering: Steering
    fence: Fence
    stop: Stop
    compilation: Compilation | None = None
    """None never compiles."""
    ranks: Ranks = ALONE

    def orders(self) -> Orders:
        """What this process has heard since it was last asked."""
        return Orders(self.stop.requested, self.steering.news())

    @property
    def outcome(self) -> nn.Module:
        """The model that is evaluated and exported."""
        return self.model if self.average is None else self.average.ready()


def train(run: Training, state: LoopState, restore_from: Path | None) -> bool:
    """True when every step is done; False when told to stop, with the state saved. `state` follows along.

    Raises Diverged when the loss is no number. Sums are read about once a second, so up to that much is computed
    after it; no checkpoint is written from it.
    """
    device = run.device

    restored, replay = Restored(), None
    if restore_from is not None:  # before anything is captured
        restored = run.checkpoints.restore(restore_from, state, run.model, run.optimizer, run.average)
        replay = _replayed(run, restored)  # sync: once, of what was just copied
    run.ranks.share(run.model.parameters())
    restored_step = state.step

    control = run.steering.control
    plan = steered(run.plan, control, state.step)
    hyper = steered_hyper(run.spec.hyperparameters, control)
    if control is not None:
        acknowledge(run.reporter, control, plan, state.step, saved=False)
    if state.is_exhausted(hyper.early_stopping, plan):
        plan = plan.ending_at(state.step)

    feed = feed_for(run.data.train, plan.batch_size, hyper, device, run.ranks)
    totals = Totals(device.torch_device, state.epoch_sums)
    step = _fastest(run, feed, totals, plan.total_steps - state.step)
    ahead = RunAhead.of(device.torch_device)
    report = Reports(run.reporter, run.task, device, hyper.learning_rate, restored_step, run.ranks)
    waits = Waits(device_is_cpu=not device.is_gpu, data_on_device=feed.on_device)
    told, was_adopting = None, False

    while state.step < plan.total_steps:
        epoch, position = divmod(state.step, plan.steps_per_epoch)
        if position == 0 or not feed.begun:
            feed.begin_epoch(epoch)  # sync: once per epoch

        run.fence.wait()
        orders = run.ranks.agree(state.step, run.orders)
        if orders.stop:
            _save(run, plan, state, totals, report)
            _tell_saved(run, plan, run.checkpoints.wait())
            return False

        rate = learning_rate(state.step, plan, hyper)
        run.optimizer.set_learning_rate(rate)
        if run.average is not None:
            run.average.set_step(state.step)
        if step.is_adopting != was_adopting:
            was_adopting = step.is_adopting
            report.activity("compiling" if was_adopting else "training")

        waits.step_begins()
        feed.fill(position)
        waits.batch_filled()
        step()  # forward, backward, update
        waits.step_queued()
        totals.step_queued()
        state.step += 1
        ahead.step_queued()  # sync: with an old step, where the host is too far ahead
        waits.device_awaited()

        if state.step == restored_step + 1 or step.words != told:
            totals.read()  # sync: a few times at most, because "started" means that the first step is done
            _tell_started(run, restored_step, restored.note, replay, step.words)
            told = step.words

        if report.is_due():
            totals.request()
        if (sums := totals.poll()) is not None:
            report.progress(plan, epoch, sums, rate, waits.of_late(feed.take_waited_s()))

        if (control := orders.control) is not None:
            plan = steered(run.plan, control, state.step)
            hyper = steered_hyper(run.spec.hyperparameters, control)
            report.peak_learning_rate = hyper.learning_rate

        to_save = control is not None and control.checkpoint_now
        if position + 1 == plan.steps_per_epoch or state.step == plan.total_steps:
            sums = totals.read()  # sync: once per epoch
            report.progress(plan, epoch, sums, rate, waits.of_late(feed.take_waited_s()))
            report.activity("evaluating")
            evaluated = nn.Sequential(run.standardize, run.outcome)
            held_out = evaluate(evaluated, run.data.validation, 2 * feed.rows, run.task, device, run.fence, run.ranks)
            report.check_held_out(plan, epoch, held_out)
            state.judge(epoch + 1, held_out.score)
            if state.is_exhausted(hyper.early_stopping, plan):
                plan = plan.ending_at(state.step)
                report.ended_early(plan, state.best_epoch)
                report.progress(plan, epoch, sums, rate, waits.of_late())
            report.epoch(plan, epoch, sums, held_out)
            totals.reset()
            to_save |= (epoch + 1) % run.spec.checkpoint.every_epochs == 0 or state.step == plan.total_steps
        if to_save:
            _save(run, plan, state, totals, report)
        if control is not None:
            report.activity("saving")  # until the order is acknowledged
        _tell_saved(run, plan, run.checkpoints.completed() if control is None else run.checkpoints.wait())
        if control is not None:
            acknowledge(run.reporter, control, plan, state.step, saved=control.checkpoint_now)

    _tell_saved(run, plan, run.checkpoints.wait())
    if state.step == restored_step:  # the earlier attempt had done every step and not yet written the model
        _tell_started(run, restored_step, restored.note, replay, None)
    return True


def leave(run: Training) -> None:
    """Nothing of training is left beside it. Also of a job that failed, the last checkpoint is whole and told."""
    if run.compilation is not None:
        run.compilation.end()
    with contextlib.suppress(Exception):  # `train` raises what a checkpoint fails of, or something that failed before
        _tell_saved(run, run.plan, run.checkpoints.wait())


def step_of(run: Training, feed: Feed, totals: Totals) -> Step:
    """One step of this job, not compiled."""
    network = nn.Sequential(run.standardize, run.model).train()
    forward = forward_of(network, run.task, run.device)
    parameters = list(run.model.parameters())
    hyper = run.spec.hyperparameters
    return Step(feed, forward, parameters, run.optimizer, run.average, totals, hyper, run.ranks)


def _fastest(run: Training, feed: Feed, totals: Totals, steps: int) -> Fastest:
    """The step of this job, over and over."""
    step = step_of(run, feed, totals)

    def compiled(compilation: Compilation) -> Repeated:
        return Repeated(replace(step, forward=compilation.compiled(step.forward)), run.device, steps)

    plain = Repeated(step, run.device, steps, rehearse=not run.ranks.norms_wait(run.model))
    return Fastest(plain, compiled, run.compilation, marks_of(run.device.torch_device), steps)


def _replay(run: Training) -> Tensor:
    """() the loss of the recorded batch with the weights as they are. Every rank has the same."""
    rows = run.plan.batch_size // run.ranks.size // run.spec.hyperparameters.accumulate_steps
    network = nn.Sequential(run.standardize, run.model)
    return replayed_loss(network, run.data.validation, run.task, run.device, rows)


def _replayed(run: Training, restored: Restored) -> ReplayRecord | None:
    """How the recorded batch of the checkpoint is answered now; None where none was, or not with a number."""
    if restored.replayed_loss is None:
        return None
    now = _replay(run).item()
    if not (math.isfinite(now) and math.isfinite(restored.replayed_loss)):  # JSON has no such numbers
        return None
    verified = agrees(restored.replayed_loss, now, run.device)
    return ReplayRecord(saved_loss=restored.replayed_loss, replayed_loss=now, verified=verified)


def _tell_started(
    run: Training, restored_step: int, note: str | None, replay: ReplayRecord | None, how: str | None
) -> None:
    run.reporter.write(
        StartedRecord(
            t=time.time(),
            device=", ".join(filter(None, (run.device.words, how))),
            parameters=sum(value.numel() for value in run.model.parameters() if value.requires_grad),
            train_samples=len(run.data.train),
            validation_samples=len(run.data.validation),
            synthetic=run.data.synthetic,
            data_sha256=run.data.sha256,
            restored_step=restored_step,
            replay=replay,
            note="; ".join(filter(None, (note, run.data.note))) or None,
            seed=run.spec.hyperparameters.seed,
            software=software_of(run.spec),
        )
    )


def _save(run: Training, plan: Plan, state: LoopState, totals: Totals, report: Reports) -> None:
    """The state will be on disk, unless nothing is done yet or this very step was saved already."""
    if state.step == 0 or run.checkpoints.begun_step == state.step:
        return
    state.epoch_sums = totals.read()  # sync: nothing is saved after a loss that was no number
    report.check(plan, state.step // plan.steps_per_epoch, state.epoch_sums)
    is_best = state.epoch_sums.steps == 0 and state.best_epoch == plan.epochs_evaluated(state.step)
    loss = _replay(run)
    must_wait = run.checkpoints.is_writing
    if must_wait:
        report.activity("saving")
    completed = run.checkpoints.save(
        state, run.model, run.optimizer, run.average, replayed_loss=loss, is_best=is_best
    )  # sync: with the checkpoint before, where that is still being written
    if must_wait:
        report.activity("training")
    _tell_saved(run, plan, completed)


def _tell_saved(run: Training, plan: Plan, completed: list[Saved]) -> None:
    """Records of checkpoints that are whole on disk."""
    for saved in completed:
        run.reporter.write(
            CheckpointedRecord(
                t=time.time(),
                step=saved.step,
                epoch=saved.step // plan.steps_per_epoch,
                folder=f"checkpoints/{saved.path.name}",
                digest=f"sha256:{saved.sha256[:16]}",
                best=saved.is_best,
            )
        )
