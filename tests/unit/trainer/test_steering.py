"""Orders of spec.control: which count, where training ends by them, which learning rate it takes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyxwiz_crds import Control
from cyxwiz_crds.training_job import Hyperparameters
from cyxwiz_protocol.job_folder import write_json
from cyxwiz_trainer.schedule import Plan
from cyxwiz_trainer.steering import LOOK_EVERY_S, Steering, steered, steered_hyper

FIVE = Plan(epochs=5, batch_size=32, steps_per_epoch=10, total_steps=50)


class Clock:
    """Each look comes late enough to be one."""

    now = 0.0

    def __call__(self) -> float:
        self.now += LOOK_EVERY_S
        return self.now


def order(path: Path, generation: int, **control: object) -> None:
    write_json(path, {"generation": generation, **control}, for_all=True)


def test_each_newer_order_is_heard_once(tmp_path: Path) -> None:
    path = tmp_path / "control.json"
    steering = Steering(path, None, Clock())
    assert steering.news() is None
    order(path, 1, epochs=8)
    heard = steering.news()
    assert heard is not None
    assert (heard.generation, heard.epochs) == (1, 8)
    assert steering.news() is None
    order(path, 1, epochs=9)
    assert steering.news() is None, "the generation did not grow"
    order(path, 2, learningRate=0.5)
    assert steering.news() == Control(generation=2, learning_rate=0.5)


def test_the_order_an_attempt_begins_with_is_not_heard_again(tmp_path: Path) -> None:
    first = Control(generation=4, checkpoint_now=True)
    order(tmp_path / "control.json", 4, checkpointNow=True)
    assert Steering(tmp_path / "control.json", first, Clock()).news() is None


def test_what_cannot_be_read_is_no_order(tmp_path: Path) -> None:
    path = tmp_path / "control.json"
    steering = Steering(path, None, Clock())
    for content in (b"", b"{", b'{"generation": 0}', b'{"generation": 1, "epochs": -3}', b'{"generation": 1e400}'):
        path.write_bytes(content)
        os.utime(path, ns=(len(content), len(content)))
        assert steering.news() is None
    assert steering.control is None


@pytest.mark.parametrize(
    ("control", "step", "ends_at"),
    [
        pytest.param({}, 12, 50, id="nothing ordered"),
        pytest.param({"epochs": 8}, 12, 80, id="more epochs"),
        pytest.param({"epochs": 3}, 12, 30, id="fewer"),
        pytest.param({"epochs": 1}, 12, 20, id="fewer than begun: the one in progress ends"),
        pytest.param({"stop_after_epoch": True}, 12, 20, id="stop after this epoch"),
        pytest.param({"stop_after_epoch": True}, 20, 20, id="at its last step"),
        pytest.param({"stop_after_epoch": True}, 21, 30, id="at the first of the next"),
        pytest.param({"stop_after_epoch": True}, 0, 10, id="before the first step"),
        pytest.param({"stop_after_epoch": True, "epochs": 8}, 12, 20, id="the earlier of both"),
        pytest.param({"epochs": 5}, 50, 50, id="everything done already"),
    ],
)
def test_where_training_ends(control: dict[str, object], step: int, ends_at: int) -> None:
    plan = steered(FIVE, Control.model_validate({"generation": 1, **control}), step)
    assert (plan.total_steps, plan.epochs) == (ends_at, ends_at // 10)


def test_a_job_counted_in_steps_can_be_stopped_after_its_epoch() -> None:
    by_steps = Plan(epochs=3, batch_size=32, steps_per_epoch=10, total_steps=25)
    assert steered(by_steps, Control(generation=1, stop_after_epoch=True), 12).total_steps == 20
    assert steered(by_steps, Control(generation=1, stop_after_epoch=True), 22).total_steps == 25


@given(
    step=st.integers(0, 50),
    epochs=st.none() | st.integers(1, 20),
    stop=st.booleans(),
)
def test_no_order_ends_training_in_the_past_or_in_the_middle_of_an_epoch(
    step: int, epochs: int | None, stop: bool
) -> None:
    control = Control(generation=1, epochs=epochs, stop_after_epoch=stop)
    plan = steered(FIVE, control, step)
    assert plan.total_steps >= step
    assert plan.total_steps % FIVE.steps_per_epoch == 0
    assert steered(FIVE, control, min(step + 1, plan.total_steps)).total_steps <= plan.total_steps + 10


def test_only_the_learning_rate_is_another() -> None:
    hyper = Hyperparameters(momentum=0.5, schedule="cosine")
    slower = steered_hyper(hyper, Control(generation=1, learning_rate=0.001))
    assert slower == hyper.model_copy(update={"learning_rate": 0.001})
    assert steered_hyper(hyper, Control(generation=1)) is steered_hyper(hyper, None) is hyper
