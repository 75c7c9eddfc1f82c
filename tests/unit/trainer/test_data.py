from __future__ import annotations

import gzip
import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cyxwiz_crds import TrainingJobSpec
from cyxwiz_trainer import data
from cyxwiz_trainer.data import builtin, mock
from cyxwiz_trainer.data.dataset import held_out
from cyxwiz_trainer.data.standardize import Standardize, moments
from cyxwiz_trainer.failures import UserError

X = np.arange(60, dtype=np.float32).reshape(20, 3)
Y = np.arange(20) % 4


def load(
    uri: str,
    root: Path | None = None,
    *,
    seed: int = 0,
    fraction: float = 0.1,
    memory: str = "1Gi",
    task: str = "auto",
    **dataset: object,
) -> Any:
    spec = {
        "model": {"name": "mlp"},
        "task": task,
        "dataset": {"uri": uri, "validation": {"fraction": fraction}} | dataset,
        "hyperparameters": {"seed": seed},
        "resources": {"memory": memory},
    }
    return data.load(TrainingJobSpec.model_validate(spec), root)


def refusal(uri: str, root: Path | None = None, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(uri, root, **options)
    return str(caught.value)


def test_digits_are_real_and_split() -> None:
    digits = load("builtin://digits")
    assert (len(digits.train), len(digits.validation), digits.outputs) == (1617, 180, 10)
    assert digits.input_shape == (1, 8, 8)
    assert not digits.synthetic


def test_the_split_is_the_same_for_the_same_seed_and_leaves_no_sample_out() -> None:
    train, validation = held_out(100, 0.1, seed=3)
    assert sorted([*train, *validation]) == list(range(100))
    assert len(validation) == 10
    assert held_out(100, 0.1, seed=3)[1].tolist() == validation.tolist()
    assert held_out(100, 0.1, seed=4)[1].tolist() != validation.tolist()
    assert [len(part) for part in held_out(2, 0.001, seed=0)] == [1, 1]


def test_mock_images_are_the_same_for_the_same_seed_and_flagged() -> None:
    first, again, other = (load("mock://cifar10?samples=200", seed=seed) for seed in (1, 1, 2))
    assert first.synthetic
    assert (len(first.train), len(first.validation), first.input_shape) == (200, 40, (3, 32, 32))
    assert first.train.inputs.dtype == torch.uint8
    assert first.sha256 == again.sha256 != other.sha256


def test_mock_images_of_a_class_resemble_each_other() -> None:
    images, labels = mock.cifar10(2000, seed=0)
    means = np.stack([images[labels == label].mean(axis=(0, 3)).ravel() for label in range(10)])
    guesses = [int(((means - image.mean(axis=2).ravel()) ** 2).sum(axis=1).argmin()) for image in images[:300]]
    assert np.mean(guesses == labels[:300]) > 0.5


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("digits", "no scheme"),
        ("ftp://x", "Known: builtin, file, gs, https, mock, s3, volume"),
        ("builtin://digts", "did you mean digits?"),
        ("mock://cifar100", "did you mean cifar10?"),
        ("mock://cifar10?samples=1e3", "whole number"),
        ("mock://cifar10?sampels=3", "did you mean samples?"),
        ("file://x.npz", "CYXWIZ_DATA_ROOT"),
    ],
)
def test_a_wrong_uri_is_refused_with_what_is_known(uri: str, words: str) -> None:
    assert words in refusal(uri)


def test_absent_fashion_mnist_is_told_with_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        builtin.fashion_mnist([tmp_path / "here", tmp_path / "there"], seed=0)
    assert f"looked in {tmp_path / 'here'}, {tmp_path / 'there'}" in str(caught.value)
    assert "dataset-fashion-mnist" in str(caught.value)


def _write_idx(folder: Path, name: str, array: Any) -> None:
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    (folder / f"{name}.gz").write_bytes(gzip.compress(header + array.tobytes()))


def test_fashion_mnist_is_read_from_the_data_folder(tmp_path: Path) -> None:
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    for part, count in (("train", 20), ("t10k", 10)):
        _write_idx(folder, f"{part}-images-idx3-ubyte", np.zeros((count, 28, 28), np.uint8))
        _write_idx(folder, f"{part}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8) % 10)
    fashion = load("builtin://fashion-mnist", tmp_path)
    assert (len(fashion.train), len(fashion.validation), fashion.input_shape) == (20, 10, (1, 28, 28))

    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes((0, 0, 8, 1, 255, 255, 255, 255))))
    assert "declares 4294967295 bytes" in refusal("builtin://fashion-mnist", tmp_path)


def test_a_table_and_its_own_validation_part_are_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=Y, x_val=X[:5], y_val=Y[:5])
    table = load("file://a.npz", tmp_path)
    assert (len(table.train), len(table.validation), table.outputs, table.input_shape) == (20, 5, 4, (3,))


@pytest.mark.parametrize(
    ("shape", "read"), [((20, 6, 5), (1, 6, 5)), ((20, 3, 6, 5), (3, 6, 5)), ((20, 6, 5, 3), (3, 6, 5))]
)
def test_images_are_brought_to_channels_first(tmp_path: Path, shape: tuple[int, ...], read: tuple[int, ...]) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros(shape, np.uint8), y=Y)
    assert load("file:///a.npz", tmp_path).input_shape == read


NAN = X.copy()
NAN[7, 1] = np.nan


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"y": Y}, "no array x"),
        ({"x": X}, "no array y"),
        ({"x": X, "y": Y, "x_val": X}, "only one of x_val and y_val"),
        ({"x": X, "y": Y[:-1]}, "20 samples and y 19 labels"),
        ({"x": X, "y": Y > 2}, "labels must be whole numbers"),
        ({"x": X, "y": np.full(20, np.nan)}, "y[0] holds a NaN"),
        ({"x": X, "y": Y * 0.0}, "all targets are the same"),
        ({"x": X, "y": Y - 1}, "y[0] is -1"),
        ({"x": X, "y": Y * 0}, "nothing to tell apart"),
        ({"x": X, "y": Y * 100_000}, "at most 65535"),
        ({"x": X, "y": X.astype(int)}, "one label per sample"),
        ({"x": X[:, 0], "y": Y}, "x has shape (20,)"),
        ({"x": X[:0], "y": Y[:0]}, "is empty"),
        ({"x": X[:1], "y": Y[1:2]}, "at least 2"),
        ({"x": X.astype("S4"), "y": Y}, "dtype |S4"),
        ({"x": X.astype(object), "y": Y}, "dtype object"),
        ({"x": X.astype(complex), "y": Y}, "dtype complex128"),
        ({"x": NAN, "y": Y}, "x[7] holds a NaN"),
        ({"x": np.full((20, 3), 1e300), "y": Y}, "too large for float32"),
        ({"x": np.zeros((20, 5, 6, 7)), "y": Y}, "1, 3 or 4 channels"),
        ({"x": X, "y": Y, "x_val": X[:, :2], "y_val": Y}, "one of x_val (2,)"),
    ],
)
def test_bad_arrays_are_refused_with_what_is_wrong(tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    assert words in refusal("file://a.npz", tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../secret.npz", ".. are not allowed"),
        ("..%2Fsecret.npz", ".. are not allowed"),
        ("link.npz", "is not below the data folder"),
        ("folder/../../secret.npz", ".. are not allowed"),
    ],
)
def test_nothing_outside_the_data_folder_is_read(tmp_path: Path, name: str, words: str) -> None:
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    np.savez(tmp_path / "secret.npz", x=X, y=Y)
    (root / "link.npz").symlink_to(tmp_path / "secret.npz")
    assert words in refusal(f"file://{name}", root)


@pytest.mark.parametrize("name", ["none.npz", "folder", "a" * 300, "loop", "folder/x.npy"])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert name[:20] in refusal(f"file://{name}", tmp_path)


def test_a_zip_bomb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x.npy", bytes(4 * 10**6))
        file.writestr("y.npy", b"")
    assert "more than resources.memory" in refusal("file://bomb.npz", tmp_path, memory="2M")


def test_a_header_that_declares_more_than_there_is_is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**12, 3)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("x.npy", header.getvalue())
        file.writestr("y.npy", b"")
    assert "declares shape (1000000000000, 3)" in refusal("file://a.npz", tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and then nothing", b"\x80\x04pickle"])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    assert "no readable .npz file" in refusal("file://a.npz", tmp_path)


def test_damaged_content_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=Y)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[200] ^= 255
    (tmp_path / "a.npz").write_bytes(content)
    assert "no readable .npz file" in refusal("file://a.npz", tmp_path)


def test_samples_are_standardized_per_channel_and_a_constant_one_survives() -> None:
    inputs = torch.randn(50, 2, 4, 4, dtype=torch.float64).float() * 3 + 1000
    inputs[:, 1] = 7
    scaled = Standardize(*moments(inputs), dimensions=3, image_layout=torch.channels_last)(inputs)
    assert scaled[:, 0].mean().item() == pytest.approx(0, abs=1e-3)
    assert scaled[:, 0].std().item() == pytest.approx(1, abs=1e-2)
    assert not scaled[:, 1].any()
