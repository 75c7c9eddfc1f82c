"""An Evaluation job: how well given weights answer data, and nothing is trained."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cyxwiz_crds import TrainingJobSpec
from cyxwiz_protocol.records import EvaluationRecord, StartedRecord

from . import device, models
from .data import EVERYTHING, Dataset, Part
from .data.standardize import Standardize, moments
from .evaluate import Result, evaluate
from .failures import UserError
from .fence import Fence, Stop
from .reporter import Reporter
from .software import software_of
from .tasks import task_named
from .weights import Origin, Weights

SAMPLES_AT_ONCE = 16_384
"""Evaluated between two reports; told to stop, it ends between them."""


@dataclass(frozen=True)
class Subject:
    """What is evaluated, checked and in host memory."""

    data: Dataset
    parts: tuple[Part, ...]
    model: nn.Module
    scale: tuple[Tensor, Tensor] | None
    note: str | None

    @classmethod
    def of(cls, spec: TrainingJobSpec, dataset: Dataset, weights: Weights) -> Subject:
        """The weights in their model, and the samples as the model was taught to see them. Raises UserError."""
        origin = weights.origin
        options = models.parse_options(spec.model.name, weights.options_of(spec.model.name, spec.model.options))
        parts = (dataset.validation,)
        if spec.dataset.validation.fraction == EVERYTHING:
            parts = tuple(part for part in (dataset.train, dataset.validation) if len(part))
        note = dataset.note
        scale = None if dataset.task == "nextToken" else moments(dataset.train.inputs)
        if origin is not None:
            parts = tuple(_as_taught(part, dataset, origin) for part in parts)
            scale = origin.scale
        elif scale is not None:
            unscaled = "the weights do not say how samples were scaled: those of this data are scaled by their own mean"
            note = "; ".join(filter(None, (unscaled, note)))
        model = models.build(options, dataset.input_shape, dataset.outputs if origin is None else origin.outputs)
        weights.into(model)
        return cls(dataset, parts, model, scale, note)


def run(
    spec: TrainingJobSpec,
    dataset: Dataset,
    weights: Weights,
    where: device.Device,
    reporter: Reporter,
    fence: Fence,
    stop: Stop,
) -> bool:
    """True when every sample was answered and the result is written; False when told to stop. Raises UserError."""
    subject = Subject.of(spec, dataset, weights)
    begun = time.monotonic()
    task = task_named(subject.data.task, 0.0)
    model = _on_device(subject, where)
    total = sum(map(len, subject.parts))
    reporter.write(
        StartedRecord(
            t=time.time(),
            device=where.words,
            parameters=sum(value.numel() for value in subject.model.parameters() if value.requires_grad),
            train_samples=0,
            validation_samples=total,
            synthetic=subject.data.synthetic,
            data_sha256=subject.data.sha256,
            note=subject.note,
            seed=spec.hyperparameters.seed,
            software=software_of(spec),
        )
    )
    done, loss, right = 0, 0.0, 0.0
    for part in _pieces(subject.parts):
        if stop.requested:
            return False
        result = evaluate(model, part, spec.batch_size, task, where, fence)
        done, loss = done + len(part), loss + result.loss * len(part)
        right += (result.accuracy or 0.0) * len(part)
        if done < total:
            reporter.write(_record(done, total, begun))
    mean = Result(loss / total, right / total if task.has_accuracy else None)
    if not math.isfinite(mean.loss):
        raise UserError("the loss of these weights on this data is not finite: they are no trained weights")
    reporter.write(_record(total, total, begun, mean))
    return True


def _record(done: int, total: int, begun: float, result: Result | None = None) -> EvaluationRecord:
    return EvaluationRecord(
        t=time.time(),
        samples=done,
        total_samples=total,
        loss=result.loss if result else None,
        accuracy=result.accuracy if result else None,
        elapsed_seconds=time.monotonic() - begun,
    )


def _pieces(parts: tuple[Part, ...]) -> Iterator[Part]:
    for part in parts:
        for inputs, labels in zip(part.inputs.split(SAMPLES_AT_ONCE), part.labels.split(SAMPLES_AT_ONCE), strict=True):
            yield Part(inputs, labels)


def _on_device(subject: Subject, where: device.Device) -> nn.Module:
    layout = device.image_layout(subject.model, where.torch_device)
    model = subject.model.to(where.torch_device).to(memory_format=layout)  # pyright: ignore[reportCallIssue]  # not in its stubs
    if subject.scale is None:
        return model
    standardize = Standardize(*subject.scale, dimensions=len(subject.data.input_shape), image_layout=layout)
    return nn.Sequential(standardize.to(where.torch_device), model)


def _as_taught(part: Part, dataset: Dataset, origin: Origin) -> Part:
    """The part with its labels or targets as the weights know them. Raises UserError when they cannot be."""
    if dataset.task != origin.task:
        raise UserError(f"the weights were trained for {origin.task[:64]}, and this data is for {dataset.task}")
    if dataset.input_shape != origin.input.shape:
        raise UserError(
            f"the weights take samples of shape {list(origin.input.shape)}, and this data has "
            f"{list(dataset.input_shape)}"
        )
    if dataset.task == "regression":
        return Part(part.inputs, _rescaled(part.labels, dataset, origin))
    if dataset.task == "nextToken":
        return part
    if dataset.label_names is not None and origin.labels is not None and dataset.label_names != origin.labels:
        return Part(part.inputs, _renumbered(part.labels, dataset.label_names, origin.labels))
    if (largest := int(part.labels.max())) >= origin.outputs:
        raise UserError(f"the weights know classes 0 to {origin.outputs - 1}, and this data has {largest}")
    return part


def _renumbered(labels: Tensor, names: tuple[str, ...], known: tuple[str, ...]) -> Tensor:
    """Classes by the numbers the weights gave to their names."""
    numbers = {name: number for number, name in enumerate(known)}
    if strange := [name for name in names if name not in numbers]:
        raise UserError(f"the weights do not know the class {strange[0][:64]!r} of this data")
    return torch.tensor([numbers[name] for name in names])[labels]


def _rescaled(targets: Tensor, dataset: Dataset, origin: Origin) -> Tensor:
    """Targets standardized as the weights' were, so that the loss is comparable with that of their training."""
    own, taught = dataset.target_scale, origin.targets
    if own is None or taught is None:
        return targets
    if len(own.mean) != len(taught.mean):
        raise UserError(f"the weights answer {len(taught.mean)} quantities, and this data has {len(own.mean)}")
    values = targets.double() * torch.tensor(own.std) + torch.tensor(own.mean)
    return ((values - torch.tensor(taught.mean)) / torch.tensor(taught.std)).float()
