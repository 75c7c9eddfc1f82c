"""The training loop, from top to bottom. Whatever it works on is made ready in `job.py`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from torch import nn
from torch.nn import functional

from cyxwiz_crds import TrainingJobSpec
from cyxwiz_protocol.records import CheckpointedRecord, StartedRecord

from .batches import epoch_order
from .checkpoint import Checkpoints, LoopState
from .data import Dataset
from .device import Device
from .evaluate import evaluate
from .fence import Fence, Stop
from .optimizer import Optimizer
from .reporter import Reporter
from .reports import Reports
from .schedule import Plan, learning_rate
from .totals import Totals


@dataclass(frozen=True)
class Training:
    """Everything the loop works on."""

    spec: TrainingJobSpec
    plan: Plan
    device: Device
    data: Dataset
    """On the device."""
    standardize: nn.Module
    model: nn.Module
    optimizer: Optimizer
    checkpoints: Checkpoints
    reporter: Reporter
    fence: Fence
    stop: Stop


def train(run: Training, state: LoopState, restore_from: Path | None) -> bool:
    """True when every step is done; False when told to stop, with the state saved. `state` follows along.

    Raises Diverged when the loss is no number. Sums are read about once a second, so up to that much is computed
    after it; no checkpoint is written from it.
    """
    hyper, plan, device, train_part = run.spec.hyperparameters, run.plan, run.device, run.data.train
    network = nn.Sequential(run.standardize, run.model)

    note = None
    if restore_from is not None:
        note = run.checkpoints.restore(restore_from, state, run.model, run.optimizer)
    restored_step = state.step
    totals = Totals(device.torch_device, state.epoch_sums)
    order = None
    network.train()
    report = Reports(run.reporter, plan, device, hyper.learning_rate, restored_step)

    while state.step < plan.total_steps:
        epoch, position = divmod(state.step, plan.steps_per_epoch)
        if order is None or position == 0:
            order = epoch_order(hyper.seed, epoch, len(train_part)).to(device.torch_device)

        run.fence.wait()
        if run.stop.requested:
            _save(run, state, totals, report)
            return False

        batch = order[position * plan.batch_size : (position + 1) * plan.batch_size]
        samples, labels = train_part.inputs[batch], train_part.labels[batch]
        rate = learning_rate(state.step, plan, hyper.learning_rate, hyper.schedule, hyper.warmup_epochs)

        run.optimizer.zero_grad()
        with device.autocast():
            logits = network(samples)
            loss = functional.cross_entropy(logits, labels, label_smoothing=hyper.label_smoothing)
        loss.backward()
        if hyper.gradient_clip is not None:
            nn.utils.clip_grad_norm_(run.model.parameters(), hyper.gradient_clip)
        run.optimizer.step(rate)
        totals.add(loss.detach(), logits.detach(), labels)
        state.step += 1

        if state.step == restored_step + 1:
            totals.read()  # sync: once, because "started" means that the first step is done
            _tell_started(run, restored_step, note)

        if report.is_due():
            totals.request()
        if (sums := totals.poll()) is not None:
            report.progress(epoch, sums, rate)

        if position + 1 == plan.steps_per_epoch:
            sums = totals.read()  # sync: once per epoch
            report.progress(epoch, sums, rate)
            held_out_loss, held_out_accuracy = evaluate(
                network, run.data.validation, 2 * plan.batch_size, device, run.fence
            )
            report.epoch(epoch, sums, held_out_loss, held_out_accuracy)
            totals.reset()
            if (epoch + 1) % run.spec.checkpoint.every_epochs == 0 or epoch + 1 == plan.epochs:
                _save(run, state, totals, report)

    if state.step == restored_step:
        _tell_started(run, restored_step, note)  # the earlier attempt had done every step and not yet written the model
    return True


def _tell_started(run: Training, restored_step: int, note: str | None) -> None:
    run.reporter.write(
        StartedRecord(
            t=time.time(),
            device=run.device.words,
            parameters=sum(value.numel() for value in run.model.parameters() if value.requires_grad),
            train_samples=len(run.data.train),
            validation_samples=len(run.data.validation),
            synthetic=run.data.synthetic,
            data_sha256=run.data.sha256,
            restored_step=restored_step,
            note=note,
        )
    )


def _save(run: Training, state: LoopState, totals: Totals, report: Reports) -> None:
    """The state is on disk, unless nothing is done yet or this very step is there already."""
    newest = run.checkpoints.newest
    if state.step == 0 or (newest is not None and newest.step == state.step):
        return
    state.epoch_sums = totals.read()  # sync: the copy of the weights that follows waits for the device anyway
    report.check(state.step // run.plan.steps_per_epoch, state.epoch_sums)
    saved = run.checkpoints.save(state, run.model, run.optimizer)
    run.reporter.write(
        CheckpointedRecord(
            t=time.time(),
            step=saved.step,
            epoch=saved.step // run.plan.steps_per_epoch,
            folder=f"checkpoints/{saved.path.name}",
            digest=f"sha256:{saved.sha256[:16]}",
        )
    )
