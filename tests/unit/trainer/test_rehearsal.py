"""Steps that train nothing, of the shapes that jobs have told."""

from __future__ import annotations

from pathlib import Path

import pytest

from cyxwiz_crds import TrainingJobSpec
from cyxwiz_protocol.job_folder import JobFolder
from cyxwiz_protocol.shape import Shape, parse_shape
from cyxwiz_trainer import data
from cyxwiz_trainer.rehearsal import rehearse, usual_shapes
from cyxwiz_trainer.shape import shape_of, write_shape


def make_spec(**change: object) -> TrainingJobSpec:
    spec = {"model": {"name": "cnn", "options": {"width": 4}}, "dataset": {"uri": "builtin://digits"}}
    return TrainingJobSpec.model_validate({**spec, "batchSize": 16, "resources": {"gpus": 0}} | change)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "table.csv").write_text("a,b\n" + "\n".join(f"{row / 7},{row / 3}" for row in range(40)))
    (tmp_path / "book.txt").write_text("It was the best of times, it was the worst of times. " * 20)
    return tmp_path


@pytest.mark.parametrize(
    "change",
    [
        {"hyperparameters": {"optimizer": "adamw", "ema": 0.9, "gradientClip": 1.0, "accumulateSteps": 2}},
        {"hyperparameters": {"augment": {"flip": True}}},
        {"model": {"name": "mlp"}, "dataset": {"uri": "file://table.csv"}},
        {
            "model": {"name": "gpt", "options": {"dim": 16, "depth": 1, "heads": 2}},
            "dataset": {"uri": "file://book.txt", "contextLength": 8},
        },
        {"deterministic": True, "precision": "float32"},
    ],
)
def test_every_kind_of_step_can_be_told_and_rehearsed(change: dict[str, object], root: Path) -> None:
    spec = make_spec(**change)
    dataset = data.load(spec, root)
    write_shape(JobFolder(root), spec, dataset)
    shape = parse_shape(JobFolder(root).shape.read_bytes())
    assert shape is not None
    assert shape.input_shape == list(dataset.input_shape)
    assert list(rehearse([shape], [])) == [1]


def test_a_shape_tells_nothing_of_what_a_step_does_not_depend_on() -> None:
    spec = make_spec(hyperparameters={"learningRate": 0.5, "seed": 7}, priority=3, nodeSelector={"team": "secret"})
    dataset = data.load(spec, None)
    assert shape_of(spec, dataset) == shape_of(make_spec(), dataset)


def test_what_cannot_be_built_is_left_out_and_so_is_a_usual_shape_whose_family_was_done() -> None:
    [usual] = usual_shapes(on_gpu=False)
    small = Shape.model_validate(usual.wire() | {"spec": make_spec(task="classification", precision="auto").wire()})
    unknown = Shape.model_validate(usual.wire() | {"spec": make_spec(model={"name": "gone"}).wire()})
    assert list(rehearse([unknown, small], [usual])) == [1]
    assert list(rehearse([unknown], [usual])) == [0]


def test_the_usual_shapes_of_a_gpu_are_of_every_family() -> None:
    assert {shape.spec.model.name for shape in usual_shapes(on_gpu=True)} >= {"resnet18", "cnn", "mlp", "vit", "gpt"}
