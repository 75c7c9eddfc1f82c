"""What the training thread is said to wait for, and what it is made of."""

from __future__ import annotations

import pytest

from cyxwiz_crds import TrainingJobSpec
from cyxwiz_trainer.software import software_of
from cyxwiz_trainer.waits import WINDOWS, Waits


class Clock:
    """Moves by what it is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def step(waits: Waits, clock: Clock, filling: float, stepping: float, waiting: float) -> None:
    clock.now += 10  # an evaluation, say
    waits.step_begins()
    clock.now += filling
    waits.batch_filled()
    clock.now += stepping
    waits.step_queued()
    clock.now += waiting
    waits.device_awaited()


@pytest.mark.parametrize(
    ("cpu", "on_device", "data", "device", "host"),
    [(True, True, 0.1, 0.9, 0.0), (False, True, 0.0, 0.6, 0.4), (False, False, 0.1, 0.6, 0.3)],
)
def test_each_part_of_a_step_is_counted_as_what_it_is_there(
    cpu: bool, on_device: bool, data: float, device: float, host: float
) -> None:
    clock = Clock()
    waits = Waits(device_is_cpu=cpu, data_on_device=on_device, clock=clock)
    assert waits.of_late() is None
    for _ in range(3):
        step(waits, clock, 0.1, 0.3, 0.6)
    told = waits.of_late()
    assert told is not None
    assert (told.data, told.device, told.host) == pytest.approx((data, device, host))


def test_a_feed_that_waited_for_the_device_did_not_wait_for_data() -> None:
    clock = Clock()
    waits = Waits(device_is_cpu=False, data_on_device=False, clock=clock)
    step(waits, clock, 0.5, 0.5, 0.0)
    told = waits.of_late(feed_waited_s=0.4)
    assert told is not None
    assert (told.data, told.device, told.host) == pytest.approx((0.1, 0.4, 0.5))


def test_what_was_long_ago_is_forgotten() -> None:
    clock = Clock()
    waits = Waits(device_is_cpu=False, data_on_device=True, clock=clock)
    step(waits, clock, 0.0, 100.0, 0.0)
    told = waits.of_late()
    for _ in range(WINDOWS):
        step(waits, clock, 0.0, 0.0, 1.0)
        told = waits.of_late()
    assert told is not None
    assert told.device == 1.0


def test_the_same_source_has_the_same_digest() -> None:
    spec = TrainingJobSpec.model_validate({"model": {"name": "cnn"}, "dataset": {"uri": "builtin://digits"}})
    told = software_of(spec)
    assert told == software_of(spec)
    assert told.code_sha256 is not None
    assert len(told.code_sha256) == 64
