"""A finished model in more formats: what every network becomes, and what is said of one that becomes nothing."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from cyxwiz_protocol.job_folder import JobFolder
from cyxwiz_protocol.records import EpochRecord, ExportRecord, ProgressRecord, encode_record
from cyxwiz_trainer import export, models, to_onnx
from cyxwiz_trainer.conversions import convert
from cyxwiz_trainer.data.dataset import Dataset, Part, TargetScale
from cyxwiz_trainer.data.standardize import moments
from cyxwiz_trainer.fence import Fence, Stop
from cyxwiz_trainer.predict import Model

Options = dict[str, int | str]


def finished(
    folder: Path, name: str = "mlp", shape: tuple[int, ...] = (5,), task: str = "classification", **options: int | str
) -> tuple[JobFolder, Tensor]:
    """A job folder with an exported model of random weights, and samples for it."""
    job = JobFolder(folder)
    is_bytes = task == "nextToken" or len(shape) == 3
    samples = torch.randint(0, 256, (6, *shape), dtype=torch.uint8) if is_bytes else torch.randn(6, *shape) * 9 + 4
    scale = TargetScale((100.0, -3.0), (40.0, 0.5)) if task == "regression" else None
    outputs = {"classification": 4, "regression": 2, "nextToken": 256}[task]
    part = Part(samples, samples if task == "nextToken" else torch.zeros(6, dtype=torch.int64))
    names = ("a", "b", "c", "d") if task == "classification" else None
    data = Dataset(part, part, outputs, "0" * 64, task, label_names=names, target_scale=scale)
    parsed = models.parse_options(name, options)
    model = models.build(parsed, shape, outputs)
    export.write(job, model, name, parsed, data, None if task == "nextToken" else moments(samples))
    return job, samples


def converted(job: JobFolder, samples: Tensor, *formats: str, stop: Stop | None = None) -> list[ExportRecord]:
    records: list[ExportRecord] = []
    stop = stop or Stop()
    convert(job, formats, samples, 1, Fence(None, stop), stop, records.append)
    assert not list(job.path.glob(".conversion-*"))
    assert not (job.model / "__pycache__").exists()
    done = subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=job.model, check=False)
    assert done.returncode == 0
    return records


@pytest.mark.parametrize(
    ("name", "shape", "task", "options"),
    [
        ("mlp", (5,), "classification", {}),
        ("mlp", (5,), "regression", {}),
        ("cnn", (1, 8, 8), "classification", {"width": 4}),
        ("cnn", (3, 9, 5), "classification", {"width": 4}),
        ("resnet18", (3, 32, 32), "classification", {"width": 8}),
        ("resnet34", (3, 16, 16), "classification", {"width": 8}),
        ("resnet50", (3, 64, 64), "classification", {"width": 8, "stem": 7}),
        ("vit", (3, 8, 12), "classification", {"dim": 12, "depth": 1}),
        ("gpt", (12,), "nextToken", {"dim": 24, "depth": 2, "heads": 2}),
    ],
)
def test_every_model_answers_raw_samples_in_onnxruntime_as_in_torch(
    tmp_path: Path, name: str, shape: tuple[int, ...], task: str, options: Options
) -> None:
    job, samples = finished(tmp_path, name, shape, task, **options)
    model, path = Model(job.model), tmp_path / "x.onnx"
    to_onnx.write(model, path, samples)
    assert to_onnx.compared(model, path, samples).startswith("onnxruntime answers as torch: largest difference ")
    properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(properties["cyxwiz"]) == json.loads((job.model / "config.json").read_text())
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (answers,) = session.run(None, {"samples": samples[:3].numpy()})
    torch.testing.assert_close(torch.from_numpy(answers), model.outputs(samples[:3]), atol=1e-3, rtol=1e-4)


def test_a_file_that_answers_otherwise_is_found_out(tmp_path: Path) -> None:
    job, samples = finished(tmp_path)
    model, path = Model(job.model), tmp_path / "x.onnx"
    to_onnx.write(model, path, samples)
    with torch.no_grad():
        next(model.network.parameters()).mul_(1.5)
    with pytest.raises(to_onnx.Different, match=r"differ from torch's by .*, at most .* may be"):
        to_onnx.compared(model, path, samples)


def test_formats_are_written_beside_the_weights_and_each_is_told_once(tmp_path: Path) -> None:
    job, samples = finished(tmp_path)
    (record,) = converted(job, samples, "safetensors", "onnx", "onnx")
    assert record.message.startswith("onnxruntime answers as torch")
    assert record.path == "model/model.onnx"
    assert record.bytes == (job.path / record.path).stat().st_size
    assert f"{record.sha256}  model.onnx\n" in (job.model / "SHA256SUMS").read_text()
    assert converted(job, samples, "safetensors") == []


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ("import os\nos.abort()\n", "not written: the process that writes it ended with -6"),
        (
            "import torch\nclass Mlp(torch.nn.Module):\n"
            "    def __init__(self, **given): super().__init__()\n"
            "    def load_state_dict(self, given): pass\n"
            "    def forward(self, x): return torch.linalg.eigvals(x.T @ x).real.expand(len(x), 5)\n",
            "not written: this network cannot be exported: Exporting the operator 'aten::linalg_eigvals'",
        ),
    ],
)
def test_a_model_that_cannot_be_exported_keeps_its_weights_and_says_why(
    tmp_path: Path, network: str, words: str
) -> None:
    job, samples = finished(tmp_path)
    (job.model / "network.py").write_text(network)
    sums = job.model / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.read_text().splitlines(keepends=True) if "network.py" not in line))
    (record,) = converted(job, samples, "onnx")
    assert (record.path, record.sha256, record.bytes) == (None, None, None)
    assert words in record.message
    assert not (job.model / "model.onnx").exists()


def test_a_job_that_is_told_to_stop_waits_for_no_exporter(tmp_path: Path) -> None:
    job, samples = finished(tmp_path)
    stop = Stop()
    stop.request()
    (record,) = converted(job, samples, "onnx", stop=stop)
    assert record.message == "not written: the job was told to stop"


def test_tensorboard_itself_reads_the_curves(tmp_path: Path) -> None:
    finished(tmp_path)
    job = JobFolder(tmp_path)
    progress = ProgressRecord(
        t=1_800_000_000.5,
        epoch=1,
        epochs=2,
        step=30,
        total_steps=60,
        loss=0.75,
        learning_rate=0.1,
        samples_processed=960,
        samples_per_second=1000,
        elapsed_seconds=1,
    )
    epoch = EpochRecord(t=1_800_000_001.0, epoch=1, loss=0.7, validation_loss=0.5, validation_accuracy=0.875)
    job.metrics.write_bytes(encode_record(progress) + b"no record\n" + encode_record(epoch))
    _, samples = finished(tmp_path)
    (record,) = converted(job, samples, "tensorboard")
    assert record.path == "model/events.out.tfevents.cyxwiz"
    events = EventAccumulator(str(job.model))
    events.Reload()
    assert "train/accuracy" not in events.Tags()["scalars"], "it was not reported"
    (accuracy,) = events.Scalars("validation/accuracy")
    assert (accuracy.step, accuracy.value, accuracy.wall_time) == (30, 0.875, 1_800_000_001.0)
    (loss,) = events.Scalars("train/loss")
    assert (loss.step, loss.value, loss.wall_time) == (30, 0.75, 1_800_000_000.5)
