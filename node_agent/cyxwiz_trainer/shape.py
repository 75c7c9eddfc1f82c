"""What a job's steps were like, told for the rehearsals of later trainers."""

from __future__ import annotations

import contextlib

from pydantic import ValidationError

from cyxwiz_crds import TrainingJobSpec
from cyxwiz_crds.training_job import Hyperparameters
from cyxwiz_protocol.job_folder import JobFolder, write_whole
from cyxwiz_protocol.shape import LONGEST_SHAPE_BYTES, Shape

from .data import Dataset

PLACEHOLDER = "builtin://digits"
"""A shape has no data of its own."""


def write_shape(folder: JobFolder, spec: TrainingJobSpec, data: Dataset) -> None:
    """The folder tells the shape of the job's steps, where it is one that can be rehearsed."""
    with contextlib.suppress(ValidationError):
        text = shape_of(spec, data).model_dump_json(by_alias=True, exclude_none=True).encode()
        if len(text) <= LONGEST_SHAPE_BYTES:
            write_whole(folder.shape, text)


def shape_of(spec: TrainingJobSpec, data: Dataset) -> Shape:
    """The shape of the job's steps. Raises ValidationError for one that nobody can rehearse."""
    hyper = spec.hyperparameters
    step = Hyperparameters(
        optimizer=hyper.optimizer,
        momentum=hyper.momentum,
        nesterov=hyper.nesterov,
        label_smoothing=hyper.label_smoothing,
        gradient_clip=hyper.gradient_clip,
        accumulate_steps=hyper.accumulate_steps,
        ema=hyper.ema,
        augment=hyper.augment,
    )
    return Shape.model_validate(
        {
            "spec": {
                "model": spec.model.wire(),
                "dataset": {"uri": PLACEHOLDER},
                "task": data.task,
                "batchSize": min(spec.batch_size, len(data.train)),
                "hyperparameters": step.wire(),
                "precision": spec.precision,
                "deterministic": spec.deterministic,
                "resources": {"gpus": min(spec.resources.gpus, 1)},
            },
            "inputShape": list(data.input_shape),
            "inputType": str(data.train.inputs.dtype).removeprefix("torch."),
            "outputs": data.outputs,
        }
    )
