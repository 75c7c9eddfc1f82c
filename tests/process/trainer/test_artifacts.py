"""What a job leaves behind, used without CyxWiz; and what an installed package adds to it."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from onnxruntime import InferenceSession
from packaging.requirements import Requirement
from safetensors.torch import load_file

from cyxwiz_protocol.records import EpochRecord, EvaluationRecord, ExitCode, ExportRecord, StartedRecord
from cyxwiz_trainer.data.builtin import load as load_builtin
from cyxwiz_trainer.data.request import Request
from cyxwiz_trainer.predict import read_safetensors

PLUGIN = Path(__file__).parents[3] / "examples" / "plugin"
TABLE = PLUGIN.with_name("table")
# Without site-packages, environment and user folder: what can be imported is Python's own library and this one folder.
ALONE = """\
import sys
sys.path.append(sys.argv.pop(1))
sys.argv.pop(0)
import runpy
runpy.run_path(sys.argv[0], run_name="__main__")
"""


Predict = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def predict(tmp_path_factory: pytest.TempPathFactory) -> Predict:
    """Runs predict.py of a model's folder where torch and what it requires is installed, and nothing else."""
    folder = Path(tmp_path_factory.mktemp("torch-alone"))
    for name in sorted(with_requirements("torch")):
        for top in {Path(file).parts[0] for file in distribution(name).files or ()} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(str(distribution(name).locate_file(top))))
    assert not any((folder / name).exists() for name in ("safetensors", "pydantic", "cyxwiz_trainer", "cyxwiz.pth"))

    def run(model: Path, *arguments: str) -> list[dict[str, Any]]:
        command = [sys.executable, "-I", "-S", "-B", "-c", ALONE, str(folder), str(model / "predict.py"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


def with_requirements(name: str) -> set[str]:
    """The distribution and all that it requires here, without extras."""
    found: set[str] = set()
    open_ = [name]
    while open_:
        current = open_.pop()
        if current not in found:
            found.add(current)
            wanted = [Requirement(text) for text in distribution(current).requires or ()]
            open_ += [each.name for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def digits(trainers: Any) -> Any:
    """A finished job on real digits, in every format."""
    output = {"formats": ["safetensors", "onnx", "tensorboard"]}
    job = trainers.run(trainers.folder("digits", epochs=4, hyperparameters={"ema": 0.9}, output=output))
    assert job.wait() == ExitCode.SUCCEEDED, job.log()
    return job


@pytest.fixture(scope="module")
def base(trainers: Any) -> Any:
    """A finished job on the table of examples/table, to start from."""
    spec = yaml.safe_load((TABLE / "job.yaml").read_text())["spec"] | {"epochs": 20, "output": {}}
    shutil.copy(TABLE / "homes.csv", trainers.root)
    job = trainers.run(trainers.folder_of("base", spec))
    assert job.wait() == ExitCode.SUCCEEDED, job.log()
    return job


def test_an_exported_model_answers_with_torch_alone_as_it_was_evaluated(
    digits: Any, tmp_path: Path, predict: Predict
) -> None:
    held_out = load_builtin(Request("digits", None, fraction=0.1, seed=0, limit_bytes=2**30)).validation
    np.save(tmp_path / "samples.npy", held_out.inputs.numpy()[:, 0])
    answers = predict(digits.folder.model, str(tmp_path / "samples.npy"))
    right = [answer["label"] == str(int(label)) for answer, label in zip(answers, held_out.labels, strict=True)]
    assert np.mean(right) == pytest.approx(digits.of(EpochRecord)[-1].validation_accuracy)


def test_the_sums_beside_a_model_are_those_of_its_files(digits: Any) -> None:
    done = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=digits.folder.model, check=False)
    assert done.returncode == 0
    listed = {line.split()[1] for line in (digits.folder.model / "SHA256SUMS").read_text().splitlines()}
    assert listed | {"SHA256SUMS"} == {path.name for path in digits.folder.model.iterdir()}


def test_its_onnx_file_answers_in_onnxruntime_as_it_was_evaluated(digits: Any) -> None:
    onnx, tensorboard = digits.of(ExportRecord)
    assert onnx.message.startswith("onnxruntime answers as torch"), onnx
    held_out = load_builtin(Request("digits", None, fraction=0.1, seed=0, limit_bytes=2**30)).validation
    session = InferenceSession(digits.folder.path / onnx.path, providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"samples": held_out.inputs.numpy()})
    right = np.argmax(np.asarray(scores), axis=1) == held_out.labels.numpy()
    assert np.mean(right) == pytest.approx(digits.of(EpochRecord)[-1].validation_accuracy)
    assert (digits.folder.path / tensorboard.path).stat().st_size == tensorboard.bytes


def test_predict_reads_weights_as_safetensors_does(digits: Any) -> None:
    path = digits.folder.model / "model.safetensors"
    expected = load_file(path)
    read = read_safetensors(path)
    assert read.keys() == expected.keys()
    assert all(torch.equal(read[name], value) and read[name].dtype == value.dtype for name, value in expected.items())


def test_a_regression_on_a_table_answers_in_the_units_of_its_column(
    trainers: Any, tmp_path: Path, predict: Predict
) -> None:
    folder = trainers.folder(
        "price", model="mlp", uri="file://price.csv", epochs=30, hyperparameters={"optimizer": "adam"}
    )
    random = np.random.default_rng(0)
    area, rooms = random.random(400) * 100 + 20, random.integers(1, 6, 400)
    lines = [f"{a:.2f},{r},{1000 + 50 * a + 300 * r:.2f}" for a, r in zip(area, rooms, strict=True)]
    (folder.path.parent / "price.csv").write_text("\n".join(["area,rooms,price", *lines]) + "\n")
    job = trainers.run(folder)
    assert job.wait() == ExitCode.SUCCEEDED, job.log()
    assert job.of(EpochRecord)[-1].validation_loss < 0.05
    assert job.of(EpochRecord)[-1].validation_accuracy is None
    (tmp_path / "new.csv").write_text("rooms,area\n3,80\n")
    ((value,),) = [answer["values"] for answer in predict(folder.model, str(tmp_path / "new.csv"))]
    assert value == pytest.approx(5900, rel=0.1)


def test_a_table_with_words_answers_alone_and_in_onnxruntime_as_it_was_trained(
    trainers: Any, tmp_path: Path, predict: Predict
) -> None:
    spec = yaml.safe_load((TABLE / "job.yaml").read_text())["spec"]
    shutil.copy(TABLE / "homes.csv", trainers.root)
    job = trainers.run(trainers.folder_of("homes", spec))
    assert job.wait() == ExitCode.SUCCEEDED, job.log()
    assert job.of(EpochRecord)[-1].validation_loss < 0.1
    assert job.of(ExportRecord)[0].message.startswith("onnxruntime answers as torch")

    # Columns in another order, one more, and a town that was not learnt.
    new = ["town,size_m2,owner,kind,rooms", "Birk,100,A,flat,4", "Corrie,60,B,house,2", "Atlantis,60,C,house,2"]
    (tmp_path / "new.csv").write_text("\n".join(new) + "\n")
    birk, corrie, atlantis = predict(job.folder.model, str(tmp_path / "new.csv"))
    assert birk["values"] == [pytest.approx((20 + 160 + 36) * 1.35, rel=0.1)]
    assert corrie["values"] == [pytest.approx((20 + 96 + 18) * 0.8 * 1.4, rel=0.1)]
    assert atlantis["unknown"] == {"town": "Atlantis"}
    assert "unknown" not in birk | corrie

    config = json.loads((job.folder.model / "config.json").read_text())
    samples: list[list[float]] = []
    for row in csv.DictReader(new):
        sample: list[float] = []
        for name in config["features"]:
            words = config["categories"].get(name)
            sample += [float(row[name])] if words is None else [float(row[name] == word) for word in words]
        samples.append(sample)
    session = InferenceSession(job.folder.model / "model.onnx", providers=["CPUExecutionProvider"])
    (values,) = session.run(None, {"samples": np.array(samples, np.float32)})
    expected = [answer["values"] for answer in (birk, corrie, atlantis)]
    np.testing.assert_allclose(np.asarray(values), expected, rtol=1e-4)


def test_weights_taught_on_a_table_see_its_columns_and_categories_in_any_other(trainers: Any, base: Any) -> None:
    """Other towns in another order made other inputs, and the weights were read as if they were the same."""
    spec = yaml.safe_load((TABLE / "job.yaml").read_text())["spec"] | {"output": {}}
    header, *lines = [line.split(",") for line in (TABLE / "homes.csv").read_text().splitlines()]
    order = [2, 0, 3, 1, 4]
    some = [line for line in lines if line[2] != "Aldham"]
    some[0] = [*some[0][:2], "Atlantis", *some[0][3:]]
    table = "\n".join(",".join(line[place] for place in order) for line in [header, *some])
    (trainers.root / "others.csv").write_text(table + "\n")
    asked = {"uri": "file://others.csv", "labelColumn": "price_thousand", "validation": {"fraction": 1}}
    path = base.folder.model.relative_to(trainers.root) / "model.safetensors"
    weights = {"name": "mlp", "initFrom": {"uri": f"file://{path}"}}
    again = spec | {"model": weights, "dataset": asked, "jobType": "Evaluation"}
    job = trainers.run(trainers.folder_of("others", again))
    assert job.wait() == ExitCode.SUCCEEDED, job.log()
    assert job.of(EvaluationRecord)[-1].loss < 0.1
    assert "'Atlantis' in row 2, column 'town'" in job.of(StartedRecord)[0].note


def test_predict_names_the_cell_that_it_cannot_read(base: Any, tmp_path: Path) -> None:
    for table, words in (
        ("size_m2,rooms,town\n1,2,Birk\n", "has no column 'kind', which the model was trained on"),
        ("size_m2,rooms,town,kind\n1,2,Birk,flat\n1,,Birk,flat\n", "row 3, column 'rooms': a finite number is needed"),
    ):
        (tmp_path / "new.csv").write_text(table)
        command = [sys.executable, "-B", str(base.folder.model / "predict.py"), str(tmp_path / "new.csv")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_a_model_of_text_goes_on_with_what_it_has_read(trainers: Any, predict: Predict) -> None:
    folder = trainers.folder(
        "text",
        model="gpt",
        uri="file://song.txt",
        epochs=12,
        batch_size=4,
        hyperparameters={"optimizer": "adamw"},
        options={"dim": 32, "depth": 1, "heads": 2},
    )
    (folder.path.parent / "song.txt").write_text("round and round " * 1000)
    job = trainers.run(folder)
    assert job.wait() == ExitCode.SUCCEEDED, job.log()
    assert job.of(EpochRecord)[-1].validation_accuracy > 0.95
    (answer,) = predict(folder.model, "--text", "round and", "--bytes", "16")
    assert answer["text"] == ("round and round " * 2)[:25]


def test_a_model_and_data_of_an_installed_package_are_trained_and_exported(
    trainers: Any, tmp_path: Path, predict: Predict
) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    command += ["--no-deps", "--no-build-isolation", "--target", str(tmp_path), str(PLUGIN)]
    subprocess.run(command, check=True)
    folder = trainers.folder(
        "rings", model="polynomial", uri="rings://2", epochs=3, hyperparameters={"learningRate": 0.1}
    )
    job = trainers.watch(folder, trainers.spawn("--folder", str(folder.path), PYTHONPATH=str(tmp_path)))
    assert job.wait() == ExitCode.SUCCEEDED, job.log()
    assert job.of(StartedRecord)[0].synthetic
    assert job.of(EpochRecord)[-1].validation_accuracy > 0.95
    np.save(tmp_path / "points.npy", np.array([[1, 0], [0, 2]], np.float32))
    assert [answer["label"] for answer in predict(folder.model, str(tmp_path / "points.npy"))] == [0, 1]
