"""The finished model as files that can be used where nothing of CyxWiz is installed.

model.safetensors  float32 weights, with the config in the header as well
config.json        what they are weights of, what goes in, what comes out
metrics.jsonl      what was reported while they were trained
network.py         the network's own code, which imports torch alone
predict.py         answers samples with the three above
SHA256SUMS         for `sha256sum --check`

and what `conversions` adds to them.
"""

from __future__ import annotations

import inspect
import json
import os
import shutil
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cyxwiz_protocol.job_folder import JobFolder, write_json, write_whole

from . import files
from .data import Dataset
from .models import Options
from .weights import CONFIG_KEY

WEIGHTS = "model.safetensors"
SUMS = "SHA256SUMS"
_PREDICT = Path(__file__).with_name("predict.py")


def write(
    folder: JobFolder,
    model: nn.Module,
    name: str,
    options: Options,
    data: Dataset,
    moments: tuple[Tensor, Tensor] | None,
) -> tuple[str, int]:
    """`model/` is complete. Returns the weights' SHA-256 and size. Sync: copies the weights.

    `moments` are the mean and deviation that samples are brought to before they reach the model; None for text.
    """
    network, arguments = options.network(data.input_shape, data.outputs)
    source = inspect.getsourcefile(network)
    assert source is not None, "a network's class stands in a file"
    config = _config(name, options, data, moments) | {"network": {"class": network.__name__, "arguments": arguments}}
    with files.whole_folder(folder.model) as temporary:
        tensors = {key: _plain(value) for key, value in model.state_dict().items()}
        digest = files.write_tensors(temporary / WEIGHTS, tensors, {CONFIG_KEY: json.dumps(config)})
        write_json(temporary / "config.json", config)
        if folder.metrics.exists():
            shutil.copyfile(folder.metrics, temporary / folder.metrics.name)
        shutil.copyfile(source, temporary / "network.py")
        shutil.copyfile(_PREDICT, temporary / "predict.py")
        sums = [f"{files.sha256(path)}  {path.name}\n" for path in sorted(temporary.iterdir())]
        write_whole(temporary / SUMS, "".join(sums).encode())
    return digest, (folder.model / WEIGHTS).stat().st_size


def add(folder: JobFolder, path: Path) -> str:
    """The file `path` lies beside the weights, and in their sums. Returns its SHA-256. Raises OSError."""
    digest, sums = files.sha256(path), folder.model / SUMS
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    path.replace(folder.model / path.name)
    others = [line for line in sums.read_text().splitlines(keepends=True) if line.split()[1] != path.name]
    write_whole(sums, "".join([*others, f"{digest}  {path.name}\n"]).encode())
    return digest


def _config(name: str, options: Options, data: Dataset, moments: tuple[Tensor, Tensor] | None) -> dict[str, Any]:
    mean, std = (None, None) if moments is None else (moment.tolist() for moment in moments)
    scale = data.target_scale
    return {
        "model": {"name": name, "options": options.model_dump(mode="json")},
        "task": data.task,
        "input": {
            "shape": list(data.input_shape),
            "dtype": str(data.train.inputs.dtype).removeprefix("torch."),
            "mean": mean,
            "std": std,
        },
        "features": None if data.columns is None else list(data.columns.names),
        "categories": {} if data.columns is None else {k: list(v) for k, v in data.columns.categories.items()},
        "outputs": data.outputs,
        "labels": None if data.label_names is None else list(data.label_names),
        "targets": None if scale is None else {"mean": list(scale.mean), "std": list(scale.std)},
        "synthetic": data.synthetic,
        "dataSha256": data.sha256,
    }


def _plain(value: Tensor) -> Tensor:
    """On the CPU, in float32 unless it counts something."""
    return value.detach().cpu().float().contiguous() if value.is_floating_point() else value.detach().cpu()
