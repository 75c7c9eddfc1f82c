"""Jobs that start from weights, and jobs that only evaluate them, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cyxwiz_protocol.job_folder import JobFolder, write_json
from cyxwiz_protocol.records import EpochRecord, EvaluationRecord, ExitCode, FailureRecord, Record, StartedRecord
from cyxwiz_protocol.records import parse_record as parse
from cyxwiz_trainer import job
from cyxwiz_trainer.data import DATA_ROOT_VARIABLE
from cyxwiz_trainer.fence import Stop
from cyxwiz_trainer.weights import read

DIGITS = {"model": {"name": "mlp", "options": {"hidden": 32}}, "dataset": {"uri": "builtin://digits"}, "epochs": 2}


@pytest.fixture(autouse=True)
def data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The node's data folder is the test's own; this process has as many threads afterwards as before."""
    threads = torch.get_num_threads()
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(tmp_path))
    yield tmp_path
    torch.set_num_threads(threads)


def run(folder: Path, spec: dict[str, Any], init_from: Path | None = None) -> tuple[int, list[Record]]:
    """A job in `folder`: how it left, and its records."""
    folder.mkdir()
    order: dict[str, Any] = {"assignmentId": folder.name, "namespace": "n", "name": "j", "attempt": 1}
    if init_from is not None:
        order["initFrom"] = str(init_from)
        spec = {**spec, "model": {**spec["model"], "initFrom": {"job": "base"}}}
    write_json(folder / "job.json", order | {"spec": {"resources": {"gpus": 0}} | spec})
    code = job.run(JobFolder(folder), Stop())
    records = [parse(line) for line in (folder / "metrics.jsonl").read_bytes().splitlines()]
    return code, [record for record in records if record is not None]


def trained(folder: Path, spec: dict[str, Any], init_from: Path | None = None) -> tuple[Path, list[EpochRecord]]:
    code, records = run(folder, spec, init_from)
    assert code == ExitCode.SUCCEEDED, records[-1]
    return folder / "model" / "model.safetensors", [record for record in records if isinstance(record, EpochRecord)]


def evaluated(folder: Path, spec: dict[str, Any], init_from: Path) -> EvaluationRecord:
    code, records = run(folder, {**spec, "jobType": "Evaluation"}, init_from)
    assert code == ExitCode.SUCCEEDED, records[-1]
    assert not (folder / "model").exists()
    assert not (folder / "checkpoints").exists()
    assert isinstance(records[-1], EvaluationRecord)
    return records[-1]


def refused(folder: Path, spec: dict[str, Any], init_from: Path) -> str:
    code, records = run(folder, spec, init_from)
    assert code == ExitCode.FAILED
    assert isinstance(records[-1], FailureRecord)
    assert records[-1].failure == "UserError"
    return records[-1].message


def test_an_evaluation_finds_what_the_last_epoch_of_the_training_found(tmp_path: Path) -> None:
    weights, epochs = trained(tmp_path / "base", DIGITS)
    found = evaluated(tmp_path / "again", {**DIGITS, "model": {"name": "mlp"}}, weights)
    assert found.accuracy == epochs[-1].validation_accuracy
    assert found.loss == pytest.approx(epochs[-1].validation_loss, rel=1e-6)
    assert found.samples == found.total_samples == 180


def test_a_fraction_of_1_evaluates_every_sample(tmp_path: Path) -> None:
    weights, _ = trained(tmp_path / "base", DIGITS)
    dataset = {"uri": "builtin://digits", "validation": {"fraction": 1}}
    assert evaluated(tmp_path / "all", {**DIGITS, "dataset": dataset}, weights).samples == 1797
    assert "Evaluation" in refused(tmp_path / "nothing-left", {**DIGITS, "dataset": dataset}, weights)


def test_training_goes_on_from_the_weights_of_another_job(tmp_path: Path) -> None:
    weights, fresh = trained(tmp_path / "base", DIGITS)
    _, further = trained(tmp_path / "further", DIGITS, weights)
    assert further[0].loss < fresh[-1].loss < fresh[0].loss


def test_weights_that_do_not_fit_are_refused_by_the_name_of_the_tensor(tmp_path: Path) -> None:
    weights, _ = trained(tmp_path / "base", DIGITS)
    wider = {**DIGITS, "model": {"name": "mlp", "options": {"hidden": 64}}}
    message = refused(tmp_path / "wider", wider, weights)
    assert message.startswith("tensor hidden.0.weight of model.initFrom has shape [32, 64], and the model's [64, 64]")
    other = {**DIGITS, "model": {"name": "cnn"}}
    assert "weights of mlp" in refused(tmp_path / "other", other, weights)


def test_weights_from_elsewhere_need_the_right_names_and_say_that_their_scale_is_unknown(tmp_path: Path) -> None:
    weights, epochs = trained(tmp_path / "base", DIGITS)
    bare = tmp_path / "bare.safetensors"
    save_file(load_file(weights), bare)
    assert read(bare, 2**30).origin is None
    code, records = run(tmp_path / "bare", {**DIGITS, "jobType": "Evaluation"}, bare)
    assert code == ExitCode.SUCCEEDED
    assert isinstance(records[0], StartedRecord)
    assert "do not say how samples were scaled" in (records[0].note or "")
    assert isinstance(records[-1], EvaluationRecord)
    assert records[-1].accuracy == epochs[-1].validation_accuracy  # on the same data the scale is the same
    save_file({"stranger": torch.zeros(1)}, bare)
    assert "has no tensor" in refused(tmp_path / "strange", DIGITS, bare)


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"\xff" * 64])
def test_a_file_that_is_no_safetensors_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    assert "no safetensors file" in refused(tmp_path / "job", DIGITS, tmp_path / "x.safetensors")


def test_classes_are_evaluated_by_name_not_by_their_place_in_another_table(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    kinds = random.integers(0, 3, 300)
    places = kinds[:, None] * 4 + random.normal(0, 0.2, (300, 2))

    def table(name: str, which: tuple[int, ...]) -> dict[str, Any]:
        words = ("ant", "bee", "cat")
        rows = [f"{x},{y},{words[k]}" for (x, y), k in zip(places, kinds, strict=True) if k in which]
        (tmp_path / name).write_text("\n".join(["x,y,kind", *rows]) + "\n")
        return {
            "model": {"name": "mlp"},
            "dataset": {"uri": f"file://{name}", "validation": {"fraction": 0.5}},
            "epochs": 20,
        }

    weights, epochs = trained(tmp_path / "base", table("all.csv", (0, 1, 2)))
    assert epochs[-1].validation_accuracy == 1.0
    # Here bee is the first class and cat the second.
    assert evaluated(tmp_path / "some", table("some.csv", (1, 2)), weights).accuracy == 1.0


def test_the_loss_of_a_regression_is_in_the_scale_of_the_training(tmp_path: Path) -> None:
    values = np.linspace(-1, 1, 200)

    def table(name: str, upto: int) -> dict[str, Any]:
        rows = [f"{x:.4f},{3 * x + 10:.4f}" for x in values[:upto]]
        (tmp_path / name).write_text("\n".join(["x,y", *rows]) + "\n")
        dataset = {"uri": f"file://{name}", "validation": {"fraction": 0.5}}
        return {"model": {"name": "mlp", "options": {"depth": 0}}, "dataset": dataset, "task": "regression"}

    weights, _ = trained(tmp_path / "base", table("all.csv", 200) | {"epochs": 200})
    # Its own mean and deviation differ: read by those, the right answers would look wrong.
    found = evaluated(tmp_path / "half", table("half.csv", 100), weights)
    assert found.loss is not None
    assert found.loss < 0.01
    assert found.accuracy is None
