"""Held-out samples from a uri of their own: what they become, and when they do not belong to the data."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cyxwiz_protocol.fetching import Fetched
from cyxwiz_trainer.data.dataset import TargetScale

from .test_formats import hdf5, load, refusal

X = np.arange(60, dtype=np.float32).reshape(20, 3)
Y = np.arange(20) % 4


def held_out(uri: str) -> dict[str, Any]:
    return {"validation": {"uri": uri}}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    np.savez(tmp_path / "train.npz", x=X, y=Y)
    return tmp_path


def test_all_of_the_data_is_trained_on_and_all_of_the_other_is_held_out(root: Path) -> None:
    hdf5(root / "test.h5", x=X[:6] + 100, y=Y[:6], x_val=X[:2] + 200, y_val=Y[:2])
    found = load(root, "file://train.npz", **held_out("file://test.h5"))
    assert (len(found.train), len(found.validation)) == (20, 8)
    assert found.validation.inputs[[0, 6]].tolist() == [[100, 101, 102], [200, 201, 202]]
    assert found.sha256 not in (load(root, "file://train.npz").sha256, load(root, "file://test.h5").sha256)


def test_columns_and_classes_of_a_table_are_found_by_their_names(root: Path) -> None:
    (root / "train.csv").write_text("a,b,label\n" + "".join(f"{i},{-i},{'xyz'[i % 3]}\n" for i in range(9)))
    (root / "test.csv").write_text("b,label,a\n-50,z,50\n-60,x,60\n")
    found = load(root, "file://train.csv", labelColumn="label", **held_out("file://test.csv"))
    assert found.validation.inputs.tolist() == [[50, -50], [60, -60]]
    assert [(found.label_names or ())[label] for label in found.validation.labels] == ["z", "x"]


def test_targets_of_a_regression_are_in_the_scale_of_those_that_are_trained_on(root: Path) -> None:
    np.savez(root / "train.npz", x=X, y=np.arange(20) * 10.0)
    np.savez(root / "test.npz", x=X[:2], y=np.array([10.0, 500.0]))
    found = load(root, "file://train.npz", **held_out("file://test.npz"))
    scale = found.target_scale
    assert isinstance(scale, TargetScale)
    values = found.validation.labels.double() * scale.std[0] + scale.mean[0]
    torch.testing.assert_close(values, torch.tensor([[10.0], [500.0]]).double(), rtol=1e-5, atol=1e-4)


def test_few_whole_numbers_are_held_out_as_what_they_are_in_the_data(root: Path) -> None:
    (root / "train.csv").write_text("a,y\n" + "".join(f"{i},{i * 7}\n" for i in range(150)))
    (root / "test.csv").write_text("a,y\n1,7\n2,14\n")
    assert load(root, "file://train.csv", **held_out("file://test.csv")).task == "regression"


def test_text_and_images_are_held_out_whole(root: Path) -> None:
    (root / "train.txt").write_text("a" * 1000)
    (root / "test.txt").write_text("b" * 500)
    found = load(root, "file://train.txt", contextLength=10, **held_out("file://test.txt"))
    assert (len(found.train), len(found.validation)) == (99, 49)
    for folder, names in (("train", "ab"), ("test", "ba")):
        for name in names:
            (root / folder / name).mkdir(parents=True)
            for number in range(3):
                Image.new("L", (4, 4), ord(name)).save(root / folder / name / f"{number}.png")
    found = load(root, "file://train", **held_out("file://test"))
    assert (len(found.train), len(found.validation)) == (6, 6)
    greys = found.validation.inputs.flatten(1).amax(dim=1)
    assert {*zip(greys.tolist(), found.validation.labels.tolist(), strict=True)} == {(97, 0), (98, 1)}


def test_a_fetched_folder_is_read_as_the_folder_it_was(root: Path) -> None:
    for name in "ab":
        (root / "images" / name).mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (4, 4), (number, ord(name), 0)).save(root / "images" / name / f"{number}.png")
    (root / "arrays").mkdir()
    np.save(root / "arrays" / "x.npy", X)
    np.save(root / "arrays" / "y.npy", Y)
    for name in ("images", "arrays"):
        with tarfile.open(root / f"{name}.tar", "w") as tar:
            for path in sorted((root / name).rglob("*")):
                if path.is_file():
                    tar.add(path, path.relative_to(root / name).as_posix())
        uri = f"s3://bucket/{name}/"
        fetched = Fetched(uri=uri, path=str(root / f"{name}.tar"), name=name, sha256="", bytes=1, is_folder=True)
        assert load(root, uri, inputs={uri: fetched}).sha256 == load(root, f"file://{name}").sha256
    (root / "torn.tar").write_bytes((root / "images.tar").read_bytes()[:1200])
    torn = fetched.model_copy(update={"path": str(root / "torn.tar")})
    assert "was not fetched whole" in refusal(root, uri, inputs={uri: torn})


def test_they_may_have_been_fetched_or_lie_in_a_volume(root: Path) -> None:
    uri = "s3://bucket/test.npz"
    fetched = Fetched(uri=uri, path=str(root / "train.npz"), name="test.npz", sha256="", bytes=1)
    assert len(load(root, "file://train.npz", inputs={uri: fetched}, **held_out(uri)).validation) == 20
    found = load(root, "file://train.npz", volumes={"v": root}, **held_out("volume://v/train.npz"))
    assert len(found.validation) == 20


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": X[:, :2], "y": Y}, "a sample has shape [2], and one of dataset.uri [3]"),
        ({"x": X, "y": Y + 1}, "it has the class 4, and dataset.uri has 0 to 3"),
        ({"x": X, "y": Y * 1.5}, "test.npz: y has dtype float64: labels must be whole numbers from 0"),
        ({"x": X.astype(np.uint8), "y": Y}, "its samples are uint8, and those of dataset.uri float32"),
        ({"x": X, "y": Y - 1}, "test.npz: y[0] is -1: labels count from 0"),
        ({"x": np.full_like(X, np.nan), "y": Y}, "test.npz: x[0] holds a NaN"),
        ({"x": X}, "test.npz holds no array y"),
    ],
)
def test_samples_that_do_not_belong_to_the_data_are_refused_in_a_sentence(
    root: Path, arrays: dict[str, Any], words: str
) -> None:
    np.savez(root / "test.npz", **arrays)
    answer = refusal(root, "file://train.npz", **held_out("file://test.npz"))
    assert answer.startswith("dataset.validation.uri: "), answer
    assert words in answer


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("file://absent.npz", "dataset.validation.uri: there is no file 'absent.npz'"),
        ("file://../train.npz", "dataset.validation.uri 'file://../train.npz': . and .. are not allowed"),
        ("volume://secret/x.npz", "dataset.validation.uri: this node has no volume secret"),
        ("https://host/x.npz", "was not fetched"),
        ("gopher://x", "gopher"),
        ("builtin://digits", "a sample has shape [1, 8, 8], and one of dataset.uri [3]"),
    ],
)
def test_a_place_that_holds_none_is_named(root: Path, uri: str, words: str) -> None:
    assert words in refusal(root, "file://train.npz", **held_out(uri))


def test_samples_of_another_task_are_no_held_out_ones(root: Path) -> None:
    (root / "test.txt").write_text("a" * 1000)
    answer = refusal(root, "file://train.npz", **held_out("file://test.txt"))
    assert answer == "dataset.validation.uri: it is data for nextToken, and dataset.uri is for classification"


def test_data_with_held_out_samples_of_its_own_takes_no_others(root: Path) -> None:
    answer = refusal(root, "mock://cifar10?samples=100", **held_out("file://train.npz"))
    assert "dataset.uri brings held-out samples of its own" in answer


def test_classes_and_columns_that_the_data_does_not_have_are_named(root: Path) -> None:
    (root / "train.csv").write_text("a,b,label\n" + "".join(f"{i},{-i},{'xyz'[i % 3]}\n" for i in range(9)))
    for content, words in (
        ("a,b,label\n1,2,x\n1,2,w\n", "it has the class 'w', which dataset.uri does not have"),
        ("a,c,label\n1,2,x\n1,2,y\n", "test.csv has no column 'b', which the model learns from"),
        ("a,b,c,label\n1,2,3,x\n1,2,3,y\n", "test.csv has a column 'c', which the model does not learn from"),
        ("a,b,label\n1,2,x\n1,two,y\n", "test.csv, row 3, column 'b': a number is needed, and there is 'two'"),
    ):
        (root / "test.csv").write_text(content)
        assert words in refusal(root, "file://train.csv", **held_out("file://test.csv"))


def test_both_must_fit_into_the_jobs_memory(root: Path) -> None:
    big = np.zeros((40_000, 10), np.float64)
    np.savez(root / "train.npz", x=big, y=np.arange(40_000) % 2)
    assert "resources.memory" in refusal(root, "file://train.npz", memory="5M", **held_out("file://train.npz"))
    assert len(load(root, "file://train.npz", memory="5M").train)
