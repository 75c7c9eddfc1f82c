"""One job folder, from its order to its model: everything around the loop."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch
from torch import nn

from cyxwiz_protocol.job_folder import JobFolder
from cyxwiz_protocol.order import JobOrder
from cyxwiz_protocol.records import ExitCode, FailureRecord, ModelRecord

from . import data, device, export, models
from .checkpoint import Checkpoints, Identity, LoopState
from .data.standardize import Standardize, moments
from .failures import JobFailure, UserError, out_of_gpu_memory
from .fence import Fence, Fenced, Stop
from .loop import Training, train
from .optimizer import Optimizer
from .reporter import Reporter
from .schedule import Plan

_LONGEST_MESSAGE = 1000


def absolute(path: str) -> Path:
    """The path as one. Raises ValueError for a relative one: it would depend on where the trainer was started."""
    if not Path(path).is_absolute():
        raise ValueError(f"{path!r} is no absolute path")
    return Path(path)


def enter(folder: JobFolder) -> Stop:
    """This process works in `folder`: all it prints goes to the folder's log, and SIGTERM sets what is returned."""
    stop = Stop()
    stop.listen()
    os.chdir(folder.path)
    log = os.open(folder.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    return stop


def run(folder: JobFolder, stop: Stop) -> ExitCode:
    """The job is trained, stopped or failed as its records say. Returns the process's exit code."""
    order = JobOrder.model_validate_json(folder.order.read_bytes())
    reporter = Reporter(folder.metrics)
    try:
        return _run(order, folder, reporter, stop)
    except Fenced:
        return ExitCode.STOPPED
    except JobFailure as failure:
        message = str(failure)[:_LONGEST_MESSAGE]
        reporter.write(FailureRecord(t=time.time(), failure=failure.failure, message=message))
        print(f"{failure.failure}: {message}", file=sys.stderr, flush=True)
        return ExitCode.FAILED


def _run(order: JobOrder, folder: JobFolder, reporter: Reporter, stop: Stop) -> ExitCode:
    spec = order.spec
    where = device.prepare(order)
    options = models.parse_options(spec.model.name, spec.model.options)
    dataset = data.load(spec, data.data_root())
    plan = Plan.of(spec, len(dataset.train))
    model = models.build(options, dataset.input_shape, dataset.num_classes)
    if plan.batch_size < 2 and any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        raise UserError(f"{spec.model.name} has batch norm, which needs at least 2 samples a batch: set batchSize: 2")
    scale = moments(dataset.train.inputs)
    standardize = Standardize(*scale, dimensions=len(dataset.input_shape), image_layout=device.IMAGE_LAYOUT)

    state = LoopState()
    fence = Fence.of(folder, stop)
    try:
        fence.wait()
        model = model.to(where.torch_device).to(memory_format=device.IMAGE_LAYOUT)  # pyright: ignore[reportCallIssue]  # not in its stubs
        training = Training(
            spec=spec,
            plan=plan,
            device=where,
            data=dataset.to(where.torch_device),
            standardize=standardize.to(where.torch_device),
            model=model,
            optimizer=Optimizer(model, spec.hyperparameters),
            checkpoints=Checkpoints(folder.checkpoints, spec.checkpoint.keep, Identity.of(spec, dataset.sha256)),
            reporter=reporter,
            fence=fence,
            stop=stop,
        )
        finished = train(training, state, Path(order.restore_from) if order.restore_from else None)
    except torch.OutOfMemoryError as error:
        raise out_of_gpu_memory(
            epoch=state.step // plan.steps_per_epoch + 1,
            step=state.step + 1,
            held_bytes=where.memory_peak() or 0,
            allowed_bytes=where.memory_allowed or 0,
            limited=spec.resources.gpu_memory is not None,
            batch_size=plan.batch_size,
        ) from error
    if not finished:
        return ExitCode.STOPPED
    fence.wait()
    digest, size = export.write(folder, model, spec.model.name, options, dataset, scale)
    path = f"{folder.model.name}/{export.WEIGHTS}"
    reporter.write(ModelRecord(t=time.time(), path=path, sha256=digest, bytes=size))
    return ExitCode.SUCCEEDED
