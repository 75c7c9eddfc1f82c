"""Tables, text and folders of arrays below the data folder: what is read, and what is said to hostile ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cyxwiz_crds import TrainingJobSpec
from cyxwiz_trainer import data
from cyxwiz_trainer.data import Columns, Dataset
from cyxwiz_trainer.failures import UserError

ROWS = [f"{i % 7},{i / 2},{'yes' if i % 3 else 'no'}" for i in range(40)]


def load(root: Path, uri: str, task: str = "auto", memory: str = "1Gi", **dataset: Any) -> Dataset:
    spec = {
        "model": {"name": "mlp"},
        "task": task,
        "dataset": {"uri": f"file://{uri}"} | dataset,
        "resources": {"memory": memory},
    }
    return data.load(TrainingJobSpec.model_validate(spec), root)


def table(root: Path, content: str | bytes, **options: Any) -> Dataset:
    (root / "table.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    return load(root, "table.csv", **options)


def test_a_table_of_words_is_a_classification(tmp_path: Path) -> None:
    read = table(tmp_path, "\ufeffage,income,churned\r\n" + "\r\n".join(ROWS) + "\r\n")
    assert (read.task, read.outputs, read.label_names) == ("classification", 2, ("no", "yes"))
    assert (read.columns, read.input_shape) == (Columns(("age", "income")), (2,))
    assert (len(read.train), len(read.validation)) == (36, 4)


def test_the_label_column_is_the_one_that_is_named(tmp_path: Path) -> None:
    read = table(tmp_path, "a,b,c\n1,2.5,3\n4,5.25,6\n7,8,9\n", labelColumn="b")
    assert (read.task, read.columns, read.outputs) == ("regression", Columns(("a", "c")), 1)


def test_targets_are_standardized_and_can_be_brought_back(tmp_path: Path) -> None:
    read = table(tmp_path, "a,y\n" + "".join(f"{i},{i * 10 + 0.5}\n" for i in range(100)))
    scale = read.target_scale
    assert scale is not None
    assert read.train.labels.mean().item() == pytest.approx(0, abs=1e-5)
    restored = read.train.labels[:, 0] * scale.std[0] + scale.mean[0]
    torch.testing.assert_close(restored, read.train.inputs[:, 0] * 10 + 0.5, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize(
    ("labels", "task", "expected"),
    [
        ([1, 2, 10] * 5, "auto", ("classification", ("1", "2", "10"))),
        (list(range(200)), "auto", ("regression", None)),
        ([1, 2, 10] * 5, "regression", ("regression", None)),
        ([0.5, 1.5] * 5, "classification", ("classification", ("0.5", "1.5"))),
    ],
)
def test_numbers_are_classes_or_quantities(tmp_path: Path, labels: list[float], task: str, expected: Any) -> None:
    read = table(tmp_path, "a,y\n" + "".join(f"{i},{label}\n" for i, label in enumerate(labels)), task=task)
    assert (read.task, read.label_names) == expected


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        ("", {}, "the first line must name"),
        ("a,a\n1,2\n", {}, "each once"),
        ("a,y\n", {}, "no rows"),
        ("a,y\n1,0\n2\n", {}, "row 3: 1 cells, and the header names 2"),
        ("a,y\n1,0\nx,1\n", {}, "row 3, column 'a': a number is needed, and there is 'x'"),
        ("a,y\n1,0\n,1\n", {}, "row 3, column 'a': a number is needed, and there is ''"),
        ("a,y\n1,0\nnan,1\n", {}, "row 3, column 'a': a finite number"),
        ("a,y\n1,0\n1e300,1\n", {}, "row 3, column 'a': a finite number"),
        ("a,y\n1,0\n2,1\n3,n/a\n", {}, "row 4: the label 'n/a' is no finite number"),
        ("a,y\n1,0\n2,inf\n3,1\n", {"task": "regression"}, "row 3: the label 'inf'"),
        ("a,y\n1,b\n2,\n3,c\n", {}, "row 3: the label is empty"),
        ("a,y\n1,b\n2,b\n", {}, "1 different values"),
        ("a,y\n1,0\n2,1\n", {"labelColumn": "x"}, "'x' is no column of table.csv"),
        ('a,y\n"1,0\n', {}, "no readable table"),
        (b"a,y\n\xff,0\n", {}, "no UTF-8 text"),
        ("a,y\n1," + "b" * 1_200_000 + "\n", {"memory": "100M"}, "field larger than field limit"),
        ("a,y\n" + "1,0\n" * 100_000, {"memory": "2M"}, "more than resources.memory"),
        ("a,y\n1,0\n2,1\n", {"task": "nextToken"}, "is for task: classification"),
    ],
)
def test_a_bad_table_is_refused_with_the_row_and_the_column(
    tmp_path: Path, content: str | bytes, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError) as caught:
        table(tmp_path, content, **options)
    assert words in str(caught.value)


def test_each_place_of_a_text_is_answered_by_the_next_byte(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_bytes(bytes(range(101)))
    read = load(tmp_path, "book.txt", contextLength=10)
    assert (read.task, read.outputs, read.input_shape) == ("nextToken", 256, (10,))
    assert (len(read.train), len(read.validation)) == (9, 1)
    assert read.train.inputs[3].tolist() == list(range(30, 40))
    assert read.train.labels[3].tolist() == list(range(31, 41))
    assert read.validation.inputs[0, 0] == 90, "the end is held out"


@pytest.mark.parametrize(
    ("size", "options", "words"),
    [(20, {"contextLength": 10}, "need 21"), (0, {}, "has 0 bytes"), (10**6, {"memory": "1M"}, "resources.memory")],
)
def test_a_text_too_short_or_too_long_is_refused(
    tmp_path: Path, size: int, options: dict[str, Any], words: str
) -> None:
    (tmp_path / "book.txt").write_bytes(bytes(size))
    with pytest.raises(UserError, match=words):
        load(tmp_path, "book.txt", **options)


def save(folder: Path, **arrays: Any) -> None:
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


X, Y = np.arange(60, dtype=np.float32).reshape(20, 3), np.arange(20) % 4


@pytest.mark.parametrize("uri", ["folder", "folder/x.npy"])
def test_a_folder_of_arrays_is_read_as_their_archive_would_be(tmp_path: Path, uri: str) -> None:
    save(tmp_path / "folder", x=X, y=Y, x_val=X[:5], y_val=Y[:5])
    read = load(tmp_path, uri)
    assert (len(read.train), len(read.validation), read.outputs) == (20, 5, 4)


def test_float_targets_of_several_quantities_are_a_regression(tmp_path: Path) -> None:
    save(tmp_path / "folder", x=X, y=X[:, :2] * 3)
    read = load(tmp_path, "folder")
    assert (read.task, read.outputs, tuple(read.train.labels.shape)) == ("regression", 2, (18, 2))


@pytest.mark.parametrize(
    ("arrays", "content", "options", "words"),
    [
        ({"x": X}, b"", {}, "no array y"),
        ({"x": X, "y": np.array([object()] * 20)}, b"", {}, "dtype object"),
        ({"y": Y}, b"\x93NUMPY\x01\x00", {}, "x.npy is no readable .npy file"),
        ({"y": Y}, b"\x80\x04pickle", {}, "x.npy is no readable .npy file"),
        ({"x": np.zeros((1000, 1000)), "y": Y}, b"", {"memory": "2M"}, "more than resources.memory"),
        ({"x": X, "y": Y * 0.5}, b"", {"task": "classification"}, "labels must be whole numbers"),
    ],
)
def test_bad_arrays_of_a_folder_are_refused(
    tmp_path: Path, arrays: dict[str, Any], content: bytes, options: dict[str, Any], words: str
) -> None:
    save(tmp_path / "folder", **arrays)
    if content:
        (tmp_path / "folder" / "x.npy").write_bytes(content)
    with pytest.raises(UserError) as caught:
        load(tmp_path, "folder", **options)
    assert words in str(caught.value)


def test_a_link_in_a_folder_of_arrays_is_not_followed(tmp_path: Path) -> None:
    save(tmp_path / "root", x=X)
    (tmp_path / "root" / "data").mkdir()
    np.save(tmp_path / "secret.npy", Y)
    (tmp_path / "root" / "x.npy").rename(tmp_path / "root" / "data" / "x.npy")
    (tmp_path / "root" / "data" / "y.npy").symlink_to(tmp_path / "secret.npy")
    with pytest.raises(UserError, match="no array y"):
        load(tmp_path / "root", "data")


def test_a_file_of_another_kind_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    (tmp_path / "data.pkl").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"none of \.npz, \.h5, \.hdf5, \.csv, \.parquet, \.txt"):
        load(tmp_path, "data.pkl")
