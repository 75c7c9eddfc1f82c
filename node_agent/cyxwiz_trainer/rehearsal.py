"""Steps that train nothing: each loads the libraries and kernels that a job of the same shape will ask for first."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path

import torch

from cyxwiz_protocol.job_folder import JobFolder
from cyxwiz_protocol.order import JobOrder
from cyxwiz_protocol.shape import Shape

from . import device, job
from .checkpoint import LoopState
from .data import Dataset, Part
from .failures import JobFailure
from .feed import feed_for
from .fence import Fence, Stop
from .loop import step_of
from .reporter import Reporter
from .shape import PLACEHOLDER
from .totals import Totals

_IMAGE, _PLACES = [3, 32, 32], [128]


def usual_shapes(*, on_gpu: bool) -> list[Shape]:
    """What a node rehearses that remembers nothing: the families of models, so that no library is left to load.

    On the CPU one small step: nothing is loaded there at the first use of a kernel.
    """
    if not on_gpu:
        return [_usual("cnn", {"width": 8}, "auto", on_gpu=False)]
    return [
        _usual(model, {}, precision, on_gpu=True)
        for precision in ("auto", "float32")
        for model in ("resnet18", "cnn", "mlp", "vit", "gpt")
    ]


def _usual(model: str, options: dict[str, int | str], precision: str, *, on_gpu: bool) -> Shape:
    text = model == "gpt"
    spec = {
        "model": {"name": model, "options": options},
        "dataset": {"uri": PLACEHOLDER},
        "task": "nextToken" if text else "classification",
        "precision": precision,
        "resources": {"gpus": int(on_gpu)},
    }
    sample = {"inputShape": _PLACES if text else _IMAGE, "inputType": "uint8", "outputs": 256 if text else 10}
    return Shape.model_validate({"spec": spec, **sample})


def rehearse(told: Sequence[Shape], usual: Sequence[Shape]) -> Generator[int]:
    """Does one step each time it is asked for the next: how many of the shapes `told` have been done by then.

    Those come first; a usual one is left out when one of its family was done.
    """
    known = 0
    families: set[tuple[str, str]] = set()
    with tempfile.TemporaryDirectory() as scratch:
        for shape, is_told in [*((shape, True) for shape in told), *((shape, False) for shape in usual)]:
            family = (shape.spec.model.name, shape.spec.precision)
            if family in families and not is_told:
                continue
            try:
                _step(shape, JobFolder(Path(scratch)))
            except (torch.OutOfMemoryError, JobFailure):  # a model that is not installed any more, a GPU in use
                continue
            finally:
                gc.collect()  # modules and their gradients are cycles
            known += is_told
            families.add(family)
            yield known


def _step(shape: Shape, scratch: JobFolder) -> None:
    """As `job.run` and `loop.train` do it, up to the end of the first step."""
    spec = shape.spec
    gpus = device.visible_gpus() if shape.on_gpu else []
    order = JobOrder(assignment_id="", namespace="", name="", attempt=1, spec=spec, gpus=gpus)
    where = device.prepare(order)
    parts = job.Parts.of(spec, _blank(shape), where)
    stop = Stop()
    run = parts.on_device(spec, scratch, where, Reporter(scratch.metrics), Fence(None, stop), stop)
    feed = feed_for(run.data.train, parts.plan.batch_size, spec.hyperparameters, where)
    totals = Totals(where.torch_device, LoopState().epoch_sums)
    step = step_of(run, feed, totals)
    feed.begin_epoch(0)
    run.optimizer.set_learning_rate(0.01)
    if run.average is not None:
        run.average.set_step(0)
    feed.fill(0)
    step()
    totals.read()  # sync: done means that the kernels are loaded


def _blank(shape: Shape) -> Dataset:
    """One batch of zeros."""
    samples, kind = shape.spec.batch_size, getattr(torch, shape.input_type)
    inputs = torch.zeros((samples, *shape.input_shape), dtype=kind)
    task = shape.spec.task
    if task == "regression":
        labels = torch.zeros((samples, shape.outputs))
    elif task == "nextToken":
        labels = torch.zeros((samples, *shape.input_shape), dtype=torch.uint8)
    else:
        labels = torch.zeros(samples, dtype=torch.int64)
    part = Part(inputs, labels)
    return Dataset(part, part, shape.outputs, sha256="", task=task)
