"""What decides which kernels a training step runs: told by the trainer of a job, rehearsed by the trainers after it.

A shape is a file of the job's folder, so a job's own code can have written it: it is parsed here, within bounds, and
used for nothing but a dummy step.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationError

from cyxwiz_crds import Model, TrainingJobSpec

LONGEST_SHAPE_BYTES = 4096
_LARGEST_BATCH_NUMBERS = 2**26
"""What a rehearsal may feed a model at most: a quarter of a GiB in float32."""


class Shape(Model):
    """One kind of training step, apart from the data it learns from."""

    spec: TrainingJobSpec
    """Of the job only what its step depends on; everything else has its default."""
    input_shape: Annotated[list[Annotated[int, Field(ge=1, le=65_536)]], Field(min_length=1, max_length=3)]
    """Of one sample."""
    input_type: Literal["uint8", "float32"]
    outputs: Annotated[int, Field(ge=1, le=65_536)]
    """Numbers a model answers with."""

    @property
    def on_gpu(self) -> bool:
        return self.spec.resources.gpus > 0


def parse_shape(text: bytes) -> Shape | None:
    """The shape of a file that a job may have written; None for anything that is none, or too large to rehearse."""
    if len(text) > LONGEST_SHAPE_BYTES:
        return None
    try:
        shape = Shape.model_validate_json(text)
    except ValidationError:
        return None
    numbers = shape.spec.batch_size
    for side in shape.input_shape:
        numbers *= side
    return shape if numbers <= _LARGEST_BATCH_NUMBERS else None
