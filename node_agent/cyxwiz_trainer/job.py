"""One job folder, from its order to its model: everything around the loop."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from cyxwiz_crds import TrainingJobSpec
from cyxwiz_protocol.fetching import read_inputs
from cyxwiz_protocol.job_folder import JobFolder
from cyxwiz_protocol.location import BadLocation, parse_location
from cyxwiz_protocol.order import JobOrder
from cyxwiz_protocol.records import ExitCode, FailureRecord, ModelRecord

from . import conversions, data, device, evaluation, export, models, supervisor, weights
from .average import Average
from .checkpoint import Checkpoints, Identity, LoopState
from .compilation import Compilation
from .data import Dataset
from .data.file import below
from .data.standardize import Standardize, moments
from .distributed import ALONE, PeerLost, Ranks
from .failures import JobFailure, UserError, out_of_gpu_memory
from .fence import Fence, Fenced, Stop
from .loop import Training, leave, train
from .models import Options
from .optimizer import Optimizer
from .reporter import Reporter, Silent
from .schedule import Plan
from .shape import write_shape
from .steering import Steering
from .tasks import task_named
from .weights import Weights

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


def run_ranks(folder: JobFolder, stop: Stop, prepared_for: int | None = None) -> int:
    """As `run`, in as many processes as the order says. Returns the exit code that one process would have."""
    size = JobOrder.model_validate_json(folder.order.read_bytes()).ranks
    if prepared_for is not None and size != prepared_for:
        raise ValueError(f"the order is for {size} ranks, this process was prepared for {prepared_for}")
    if size == 1:
        return run(folder, stop)
    return supervisor.leave_as(supervisor.run_ranks(size, lambda seat: run(folder, stop, Ranks(seat))))


def run(folder: JobFolder, stop: Stop, ranks: Ranks = ALONE) -> ExitCode:
    """The job is trained, stopped or failed as its records say. Returns the process's exit code."""
    order = JobOrder.model_validate_json(folder.order.read_bytes())
    reporter = Reporter(folder.metrics)
    try:
        return _run(order, folder, reporter if ranks.is_first else Silent(), stop, ranks)
    except Fenced:
        return ExitCode.STOPPED
    except PeerLost:
        ranks.wait_for_the_end()
        raise
    except JobFailure as failure:
        if not ranks.is_first_to_fail():
            ranks.wait_for_the_end()
        message = str(failure)[:_LONGEST_MESSAGE]
        reporter.write(FailureRecord(t=time.time(), failure=failure.failure, message=message))
        print(f"{failure.failure}: {message}", file=sys.stderr, flush=True)
        return ExitCode.FAILED


def _run(order: JobOrder, folder: JobFolder, reporter: Reporter, stop: Stop, ranks: Ranks) -> ExitCode:
    spec = order.spec
    state = LoopState()
    fence = Fence.of(folder, stop)
    where = device.prepare(order, ranks)
    initial = _initial_weights(order)
    if spec.job_type == "Evaluation":
        if ranks.size > 1:
            raise UserError("an Evaluation runs on one GPU: set resources.gpus: 1")
        return _evaluate(order, folder, initial, where, reporter, fence, stop)
    parts: Parts | None = None
    training: Training | None = None
    try:
        with ranks.first_goes_ahead():
            dataset = _data(order, folder, initial)
        parts = Parts.of(spec, dataset, where, ranks, initial)
        ranks.reseed(spec.hyperparameters.seed)
        fence.wait()
        ranks.join(where.torch_device)
        training = parts.on_device(spec, folder, where, reporter, fence, stop, ranks)
        finished = train(training, state, Path(order.restore_from) if order.restore_from else None)
    except torch.OutOfMemoryError as error:
        raise out_of_gpu_memory(
            epoch=state.step // parts.plan.steps_per_epoch + 1 if parts else 1,
            step=state.step + 1,
            held_bytes=where.memory_peak() or 0,
            allowed_bytes=where.memory_allowed or 0,
            limited=spec.resources.gpu_memory is not None,
            batch_size=parts.plan.batch_size if parts else spec.batch_size,
            parts=ranks.size * spec.hyperparameters.accumulate_steps,
        ) from error
    finally:
        if training is not None:
            leave(training)
    if ranks.size == 1:  # only then does a warm trainer fit the next such job
        write_shape(folder, spec, parts.data)
    if not finished:
        return ExitCode.STOPPED
    if not ranks.is_first:
        return ExitCode.SUCCEEDED
    assert training is not None
    fence.wait()
    digest, size = export.write(folder, training.outcome, spec.model.name, parts.options, parts.data, parts.scale)
    path = f"{folder.model.name}/{export.WEIGHTS}"
    reporter.write(ModelRecord(t=time.time(), path=path, sha256=digest, bytes=size))
    conversions.convert(
        folder,
        spec.output.formats,
        parts.data.validation.inputs,
        spec.resources.cpus,
        fence,
        stop,
        reporter.write,
    )
    return ExitCode.SUCCEEDED


def _initial_weights(order: JobOrder) -> Weights | None:
    """What the job starts from; None when from fresh weights. Raises UserError."""
    path, named = order.init_from, order.spec.model.init_from
    if path is None and named is not None and named.uri is not None:
        try:
            location = parse_location(named.uri, "model.initFrom.uri")
        except BadLocation as error:
            raise UserError(str(error)) from error
        if location.scheme != "file":
            raise UserError(f"model.initFrom.uri {location}: weights are read from file:// only, so far")
        path = below(data.data_root(), location.path)
    return None if path is None else weights.read(Path(path), order.spec.resources.memory_bytes)


def _evaluate(
    order: JobOrder,
    folder: JobFolder,
    initial: Weights | None,
    where: device.Device,
    reporter: Reporter,
    fence: Fence,
    stop: Stop,
) -> ExitCode:
    if initial is None:
        raise UserError("an Evaluation needs the weights it evaluates: set model.initFrom")
    fence.wait()
    try:
        done = evaluation.run(order.spec, _data(order, folder, initial), initial, where, reporter, fence, stop)
    except torch.OutOfMemoryError as error:
        raise out_of_gpu_memory(
            epoch=1,
            step=1,
            held_bytes=where.memory_peak() or 0,
            allowed_bytes=where.memory_allowed or 0,
            limited=order.spec.resources.gpu_memory is not None,
            batch_size=order.spec.batch_size,
        ) from error
    return ExitCode.SUCCEEDED if done else ExitCode.STOPPED


@dataclass(frozen=True)
class Parts:
    """What a job trains, checked: everything that its author can get wrong has been looked at."""

    plan: Plan
    data: Dataset
    """Where the job computes if it fits there, else in host memory."""
    options: Options
    model: nn.Module
    scale: tuple[Tensor, Tensor] | None
    """Mean and deviation that samples are brought to; None for text."""

    @classmethod
    def of(
        cls,
        spec: TrainingJobSpec,
        dataset: Dataset,
        where: device.Device,
        ranks: Ranks = ALONE,
        initial: Weights | None = None,
    ) -> Parts:
        """The parts of `spec`, with fresh weights or the `initial` ones. Raises UserError, OutOfMemoryError."""
        name, given = spec.model.name, spec.model.options
        options = models.parse_options(name, given if initial is None else initial.options_of(name, given))
        plan = Plan.of(spec, len(dataset.train), ranks.size)
        _check_fit(spec, options, dataset)
        with where.torch_device:  # weights made on a GPU: drawing those of a ResNet-18 took a CPU core 0.14 s
            model = models.build(options, dataset.input_shape, dataset.outputs)
        if initial is not None:
            initial.into(model)
        part = plan.batch_size // ranks.size // spec.hyperparameters.accumulate_steps
        if part < 2 and any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
            raise UserError(
                f"{spec.model.name} has batch norm, which needs at least 2 samples a batch: set batchSize: 2"
            )
        if where.can_hold(dataset.size_bytes):
            dataset = dataset.to(where.torch_device)
        scale = None if dataset.task == "nextToken" else moments(dataset.train.inputs)
        return cls(plan, dataset, options, model, scale)

    def on_device(
        self,
        spec: TrainingJobSpec,
        folder: JobFolder,
        where: device.Device,
        reporter: Reporter,
        fence: Fence,
        stop: Stop,
        ranks: Ranks = ALONE,
    ) -> Training:
        """Model and optimizer are where the job computes."""
        hyper = spec.hyperparameters
        part = self.plan.batch_size // hyper.accumulate_steps
        layout = device.image_layout(self.model, where.torch_device)
        model = ranks.with_shared_norms(self.model, where.torch_device)
        model = model.to(where.torch_device).to(memory_format=layout)  # pyright: ignore[reportCallIssue]  # not in its stubs
        standardize: nn.Module = nn.Identity()
        if self.scale is not None:
            dimensions = len(self.data.input_shape)
            standardize = Standardize(*self.scale, dimensions=dimensions, image_layout=layout)
        return Training(
            spec=spec,
            plan=self.plan,
            device=where,
            data=self.data,
            standardize=standardize.to(where.torch_device),
            model=model,
            task=task_named(self.data.task, hyper.label_smoothing),
            optimizer=Optimizer(model, hyper),
            average=None if hyper.ema is None else Average(model, hyper.ema),
            checkpoints=Checkpoints(
                folder.checkpoints, spec.checkpoint.keep, Identity.of(spec, self.data.sha256), ranks
            ),
            reporter=reporter,
            steering=Steering(folder.control, spec.control),
            fence=fence,
            stop=stop,
            ranks=ranks,
            compilation=None if ranks.size > 1 else Compilation.of(spec, self.options, self.data, part, where, folder),
        )


def _data(order: JobOrder, folder: JobFolder, initial: Weights | None) -> Dataset:
    """The job's data. Raises UserError."""
    volumes = {name: Path(path) for name, path in order.volumes.items()}
    try:
        inputs = read_inputs(folder.inputs)
    except FileNotFoundError:
        inputs = {}
    columns = initial.origin.columns if initial is not None and initial.origin is not None else None
    return data.load(order.spec, data.data_root(), volumes, inputs, columns)


def _check_fit(spec: TrainingJobSpec, options: Options, dataset: Dataset) -> None:
    """Raises UserError when model, data and hyperparameters are each right and do not belong together."""
    is_text = dataset.task == "nextToken"
    if options.reads_text and not is_text:
        raise UserError(f"{spec.model.name} reads text, and this data is none: name a file://....txt, or another model")
    if is_text and not options.reads_text:
        raise UserError(f"{spec.model.name} cannot read text: set model.name: gpt")
    if spec.dataset.validation.uri is None and spec.dataset.validation.fraction == data.EVERYTHING:
        raise UserError("dataset.validation.fraction 1 leaves nothing to train on: it is for jobType: Evaluation")
    if dataset.task == "regression" and spec.hyperparameters.label_smoothing > 0:
        raise UserError("hyperparameters.labelSmoothing is for classes, and this is a regression: leave it out")
    if spec.hyperparameters.augment is not None and len(dataset.input_shape) != 3:
        raise UserError("hyperparameters.augment is for images, and a sample of this data is none: leave it out")
