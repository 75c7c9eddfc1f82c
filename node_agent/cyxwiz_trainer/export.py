"""The finished model as files: weights that any framework reads, and the description one needs to use them."""

from __future__ import annotations

from torch import Tensor, nn

from cyxwiz_protocol.job_folder import JobFolder, write_json

from . import files
from .data import Dataset
from .models import Options

WEIGHTS = "model.safetensors"


def write(
    folder: JobFolder, model: nn.Module, name: str, options: Options, data: Dataset, moments: tuple[Tensor, Tensor]
) -> tuple[str, int]:
    """`model/` is complete: float32 weights and config.json. Returns the weights' SHA-256 and size. Sync: copies them.

    `moments` are the mean and deviation that samples are brought to before they reach the model.
    """
    mean, std = moments
    config = {
        "model": {"name": name, "options": options.model_dump(mode="json")},
        "input": {
            "shape": list(data.input_shape),
            "dtype": str(data.train.inputs.dtype).removeprefix("torch."),
            "mean": mean.tolist(),
            "std": std.tolist(),
        },
        "classes": data.num_classes,
        "labels": None if data.label_names is None else list(data.label_names),
        "synthetic": data.synthetic,
        "dataSha256": data.sha256,
    }
    with files.whole_folder(folder.model) as temporary:
        digest = files.write_tensors(temporary / WEIGHTS, {key: _plain(v) for key, v in model.state_dict().items()})
        write_json(temporary / "config.json", config)
    return digest, (folder.model / WEIGHTS).stat().st_size


def _plain(value: Tensor) -> Tensor:
    """On the CPU, in float32 unless it counts something."""
    return value.detach().cpu().float().contiguous() if value.is_floating_point() else value.detach().cpu()
