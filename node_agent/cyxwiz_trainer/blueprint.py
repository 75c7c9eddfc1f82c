"""What decides the kernels of a step: enough to compile it in another process, and to know it again."""

from __future__ import annotations

import hashlib
import json

import torch
from torch import Tensor, nn

from cyxwiz_crds import Model, TrainingJobSpec

from . import models
from .data import Dataset
from .data.standardize import Standardize
from .device import Device, image_layout
from .forward import Forward, forward_of
from .tasks import task_named


class Blueprint(Model):
    """A step's forward pass: its network, shapes and types."""

    model: str
    options: dict[str, int | str | float | bool | None]
    input_shape: list[int]
    input_dtype: str
    target_shape: list[int]
    """Of one sample."""
    target_dtype: str
    outputs: int
    task: str
    label_smoothing: float
    batch: int
    """Samples that are computed at once."""
    precision: str
    device: str
    """The GPU's name, or cpu."""
    autocast: str | None = None
    """The type it computes in, where that is another than its weights'."""
    threads: int
    torch_version: str

    @classmethod
    def of(cls, spec: TrainingJobSpec, options: models.Options, data: Dataset, batch: int, device: Device) -> Blueprint:
        part = data.train
        return cls(
            model=spec.model.name,
            options=options.model_dump(mode="json"),
            input_shape=list(part.inputs.shape[1:]),
            input_dtype=_name(part.inputs.dtype),
            target_shape=list(part.labels.shape[1:]),
            target_dtype=_name(part.labels.dtype),
            outputs=data.outputs,
            task=data.task,
            label_smoothing=spec.hyperparameters.label_smoothing,
            batch=batch,
            precision=spec.precision,
            device=torch.cuda.get_device_name(device.torch_device) if device.is_gpu else "cpu",
            autocast=None if device.autocast_dtype is None else _name(device.autocast_dtype),
            threads=spec.resources.cpus,
            torch_version=torch.__version__,
        )

    @property
    def key(self) -> str:
        """The same for steps that are compiled to the same, as a file's name."""
        return hashlib.sha256(json.dumps(self.wire(), sort_keys=True).encode()).hexdigest()[:24]

    def build(self, device: Device) -> tuple[Forward, Tensor, Tensor]:
        """The forward pass with fresh weights on `device`, and a batch for it. Raises UserError."""
        options = models.parse_options(self.model, {k: v for k, v in self.options.items() if v is not None})  # pyright: ignore[reportArgumentType]  # as the API gave them
        where = device.torch_device
        model = models.build(options, tuple(self.input_shape), self.outputs)
        layout = image_layout(model, where)
        model = model.to(where).to(memory_format=layout)  # pyright: ignore[reportCallIssue]  # not in its stubs
        standardize: nn.Module = nn.Identity()
        if self.task != "nextToken":
            moments = torch.zeros(self.input_shape[0]), torch.ones(self.input_shape[0])
            standardize = Standardize(*moments, dimensions=len(self.input_shape), image_layout=layout).to(where)
        inputs = torch.zeros((self.batch, *self.input_shape), dtype=_dtype(self.input_dtype), device=where)
        targets = torch.zeros((self.batch, *self.target_shape), dtype=_dtype(self.target_dtype), device=where)
        network = nn.Sequential(standardize, model).train()
        return forward_of(network, task_named(self.task, self.label_smoothing), device), inputs, targets


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{name!r} is no type of numbers")
    return dtype
