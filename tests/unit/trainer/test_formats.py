"""HDF5, Parquet and image folders; volumes and fetched files. What is wrong names the file, the row and the column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cyxwiz_crds import TrainingJobSpec
from cyxwiz_protocol.fetching import Fetched
from cyxwiz_trainer import data
from cyxwiz_trainer.data import Columns
from cyxwiz_trainer.failures import UserError

X = np.arange(60, dtype=np.float32).reshape(20, 3)
Y = np.arange(20) % 4


def load(root: Path, uri: str, *, memory: str = "1Gi", task: str = "auto", **more: Any) -> data.Dataset:
    where = {name: more.pop(name) for name in ("volumes", "inputs") if name in more}
    spec = {"model": {"name": "mlp"}, "task": task, "dataset": {"uri": uri, **more}, "resources": {"memory": memory}}
    return data.load(TrainingJobSpec.model_validate(spec), root, **where)


def refusal(root: Path, uri: str, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(root, uri, **options)
    return str(caught.value)


def hdf5(path: Path, **arrays: Any) -> None:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, compression="gzip")


def test_hdf5_is_read_as_the_archive_of_the_same_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=Y)
    hdf5(tmp_path / "a.h5", x=X, y=Y)
    assert load(tmp_path, "file://a.h5").sha256 == load(tmp_path, "file://a.npz").sha256


def test_parquet_is_read_as_the_table_of_the_same_numbers(tmp_path: Path) -> None:
    rows = [f"{i},{i * 0.5},{'yes' if i % 3 else 'no'}" for i in range(30)]
    (tmp_path / "a.csv").write_text("\n".join(["a,b,label", *rows]))
    table = {"a": range(30), "b": [i * 0.5 for i in range(30)], "label": ["yes" if i % 3 else "no" for i in range(30)]}
    pq.write_table(pa.table({name: list(column) for name, column in table.items()}), tmp_path / "a.parquet")
    parquet, csv = load(tmp_path, "file://a.parquet"), load(tmp_path, "file://a.csv")
    assert parquet.sha256 == csv.sha256
    assert (parquet.label_names, parquet.columns) == (("no", "yes"), Columns(("a", "b")))
    assert load(tmp_path, "file://a.parquet", labelColumn="b").columns == Columns(
        ("a", "label"), {"label": ("no", "yes")}
    )


def test_categories_and_booleans_of_parquet_are_labels_and_numbers(tmp_path: Path) -> None:
    words = pa.array(["a", "b"] * 10).dictionary_encode()
    pq.write_table(pa.table({"f": [True, False] * 10, "label": words}), tmp_path / "a.parquet")
    dataset = load(tmp_path, "file://a.parquet")
    assert dataset.label_names == ("a", "b")
    assert sorted(set(dataset.train.inputs.flatten().tolist())) == [0.0, 1.0]


def images(folder: Path, mode: str = "RGB", size: tuple[int, int] = (6, 4), count: int = 3) -> None:
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.new(mode, size, number * 20).save(folder / name / f"{number}.png")


def test_a_folder_of_images_is_read_with_its_folders_as_classes(tmp_path: Path) -> None:
    images(tmp_path / "pets")
    dataset = load(tmp_path, "file://pets")
    assert (dataset.input_shape, dataset.label_names, dataset.outputs) == ((3, 4, 6), ("cat", "dog"), 2)
    assert len(dataset.train) + len(dataset.validation) == 6


def test_train_and_val_of_an_image_folder_are_kept_apart(tmp_path: Path) -> None:
    images(tmp_path / "pets" / "train", "L", count=4)
    images(tmp_path / "pets" / "val", "L", count=1)
    dataset = load(tmp_path, "file://pets/")
    assert (len(dataset.train), len(dataset.validation), dataset.input_shape) == (8, 2, (1, 4, 6))


def test_a_volume_is_read_by_its_name_and_only_where_the_job_was_given_it(tmp_path: Path) -> None:
    (tmp_path / "mount" / "sub").mkdir(parents=True)
    np.savez(tmp_path / "mount" / "sub" / "a.npz", x=X, y=Y)
    volumes = {"numbers": tmp_path / "mount"}
    assert load(tmp_path, "volume://numbers/sub/a.npz", volumes=volumes).outputs == 4
    assert "no volume numbers for this job" in refusal(tmp_path, "volume://numbers/sub/a.npz")
    (tmp_path / "mount" / "out").symlink_to("/etc")
    assert "a link leads out of it" in refusal(tmp_path, "volume://numbers/out/passwd", volumes=volumes)


def test_a_fetched_file_is_read_as_its_uri_calls_it(tmp_path: Path) -> None:
    hdf5(tmp_path / "0", x=X, y=Y)
    uri = "s3://bucket/a.h5"
    inputs = {uri: Fetched(uri=uri, path=str(tmp_path / "0"), name="a.h5", sha256="", bytes=1)}
    assert load(tmp_path, uri, inputs=inputs).outputs == 4
    assert "was not fetched" in refusal(tmp_path, uri)


def test_what_is_wrong_in_a_parquet_file_names_the_row_and_the_column(tmp_path: Path) -> None:
    def refused(**options: Any) -> str:
        return refusal(tmp_path, "file://a.parquet", **options)

    def write(**columns: Any) -> None:
        pq.write_table(pa.table(columns), tmp_path / "a.parquet")

    write(a=[1.0, None, 3.0], label=[0, 1, 0])
    assert "row 2, column 'a': a number is needed" in refused()
    write(a=[1.0, float("nan"), 3.0], label=[0, 1, 0])
    assert "row 2, column 'a': a finite number is needed" in refused()
    write(a=[b"x", b"y"], label=[0, 1])
    assert "column 'a': numbers or words are needed, and it holds binary" in refused()
    write(a=[1.0, 2.0], label=[0, None])
    assert "row 2, column 'label': the label is empty" in refused()
    write(a=[1.0, 2.0], label=[0, 1])
    assert "did you mean label?" in refused(labelColumn="labl")
    write(a=[[1.0], [2.0]], label=[0, 1])
    assert "it holds list" in refused()


def test_images_that_differ_are_refused_with_the_first_that_does(tmp_path: Path) -> None:
    images(tmp_path / "pets")
    Image.new("RGB", (7, 4)).save(tmp_path / "pets" / "dog" / "1.png")
    assert "dog/1.png is 7x4 in colour, and the first image is 6x4 in colour" in refusal(tmp_path, "file://pets")
