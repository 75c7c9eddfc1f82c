"""What is remembered of jobs for the rehearsals of later trainers, and what is not believed."""

import json

import pytest

from cyxwiz_protocol.job_folder import JobFolder
from cyxwiz_runner.shapes import KEPT, Shapes


def told(tmp_path, *, batch_size=32, gpus=0, **change):
    """The folder of a job that has told its shape."""
    folder = JobFolder(tmp_path / f"job-{batch_size}-{gpus}")
    folder.path.mkdir(exist_ok=True)
    spec = {"model": {"name": "cnn"}, "dataset": {"uri": "builtin://digits"}, "batchSize": batch_size}
    shape = {"spec": spec | {"resources": {"gpus": gpus}}, "inputShape": [1, 8, 8], "inputType": "uint8", "outputs": 10}
    folder.shape.write_text(json.dumps(shape | change))
    return folder


def batches(shapes, *, on_gpu=False):
    return [shape.spec.batch_size for shape in shapes.newest(on_gpu=on_gpu)]


def test_the_newest_comes_first_and_once_and_survives_the_runner(tmp_path):
    shapes = Shapes(tmp_path / "shapes.json")
    for size in (32, 64, 32):
        shapes.remember(told(tmp_path, batch_size=size))
    shapes.remember(told(tmp_path, batch_size=16, gpus=1))
    for seen in (shapes, Shapes(tmp_path / "shapes.json")):
        assert (batches(seen), batches(seen, on_gpu=True)) == ([32, 64], [16])


def test_many_shapes_of_one_kind_leave_the_other_kinds_alone(tmp_path):
    shapes = Shapes(tmp_path / "shapes.json")
    shapes.remember(told(tmp_path, batch_size=7, gpus=1))
    for size in range(1, KEPT + 5):
        shapes.remember(told(tmp_path, batch_size=size))
    assert batches(shapes) == list(range(KEPT + 4, 4, -1))
    assert batches(shapes, on_gpu=True) == [7]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"inputShape": [65536, 65536, 3]}, id="memory without end"),
        pytest.param({"inputShape": []}, id="no size"),
        pytest.param({"inputType": "complex64"}, id="another type"),
        pytest.param({"outputs": 10**9}, id="a last layer without end"),
        pytest.param({"padding": "x" * 5000}, id="too long"),
    ],
)
def test_what_no_trainer_would_write_is_not_rehearsed(tmp_path, change):
    shapes = Shapes(tmp_path / "shapes.json")
    shapes.remember(told(tmp_path, **change))
    assert batches(shapes) == []


def test_a_link_in_place_of_the_shape_is_not_followed(tmp_path):
    folder = told(tmp_path)
    folder.shape.rename(tmp_path / "elsewhere")
    folder.shape.symlink_to(tmp_path / "elsewhere")
    shapes = Shapes(tmp_path / "shapes.json")
    shapes.remember(folder)
    assert batches(shapes) == []


@pytest.mark.parametrize("text", ["", "{}", "[1]", "[["])
def test_a_file_that_cannot_be_read_is_none(tmp_path, text):
    (tmp_path / "shapes.json").write_text(text)
    assert batches(Shapes(tmp_path / "shapes.json")) == []
