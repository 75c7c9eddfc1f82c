"""One step and what surrounds it: parts of a batch, averages, variations, how far the host runs ahead, when to end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cyxwiz_crds.training_job import Augment, EarlyStopping, Hyperparameters
from cyxwiz_trainer.augment import Variations
from cyxwiz_trainer.average import Average
from cyxwiz_trainer.checkpoint import LoopState
from cyxwiz_trainer.data import Part
from cyxwiz_trainer.device import Device
from cyxwiz_trainer.evaluate import Result, evaluate
from cyxwiz_trainer.feed import Feed
from cyxwiz_trainer.fence import Fence, Stop
from cyxwiz_trainer.forward import forward_of
from cyxwiz_trainer.graph import Repeated
from cyxwiz_trainer.optimizer import Optimizer
from cyxwiz_trainer.run_ahead import RunAhead
from cyxwiz_trainer.schedule import Plan
from cyxwiz_trainer.step import Step
from cyxwiz_trainer.tasks import Classification, NextToken, Regression, Task
from cyxwiz_trainer.totals import Sums, Totals

CPU = Device(torch.device("cpu"), None, "CPU")
SAMPLES = Part(torch.randn(24, 6, generator=torch.Generator().manual_seed(1)), torch.arange(24) % 3)


def make_model(inputs: int = 6, outputs: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, outputs))


def make_step(part: Part = SAMPLES, task: Task | None = None, model: nn.Module | None = None, **hyper: Any) -> Step:
    """A step of a small model whose first batch of 12 is filled in."""
    parsed = Hyperparameters.model_validate({"learningRate": 0.1} | hyper)
    model = model or make_model()
    optimizer = Optimizer(model, parsed)
    optimizer.set_learning_rate(parsed.learning_rate)
    average = None if parsed.ema is None else Average(model, parsed.ema)
    feed = Feed(part, 12, parsed, CPU)
    feed.begin_epoch(0)
    feed.fill(0)
    totals = Totals(CPU.torch_device, Sums())
    forward = forward_of(model, task or Classification(), CPU)
    return Step(feed, forward, list(model.parameters()), optimizer, average, totals, parsed)


def weights(parameters: Iterable[nn.Parameter]) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in parameters])


def test_a_batch_in_parts_moves_the_weights_as_the_whole_one_does() -> None:
    whole, parts = make_step(), make_step(accumulateSteps=3)
    for step in (whole, parts):
        step()
        step()
    torch.testing.assert_close(weights(whole.parameters), weights(parts.parameters))
    assert whole.totals.read().loss == pytest.approx(parts.totals.read().loss)
    assert whole.totals.read().correct == parts.totals.read().correct


def test_a_long_gradient_is_shortened() -> None:
    step = make_step(gradientClip=0.001, momentum=0)
    before = weights(step.parameters)
    step()
    assert (weights(step.parameters) - before).norm().item() == pytest.approx(0.1 * 0.001, rel=1e-3)


def test_the_average_follows_the_weights_and_brings_their_statistics() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = Average(model, decay=0.9)
    start = weights(model.parameters())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    average.set_step(0)
    average.follow()
    torch.testing.assert_close(
        weights(average.model.parameters()), start + 0.9
    )  # a young one takes 1 - 1/10 of the new
    average.set_step(10_000)
    average.follow()
    torch.testing.assert_close(weights(average.model.parameters()), start + 0.9 + 0.1 * 0.1)
    model(torch.randn(4, 2))
    ready = average.ready()
    torch.testing.assert_close(ready.get_buffer("1.running_mean"), model.get_buffer("1.running_mean"))


def test_variations_are_those_of_seed_and_epoch() -> None:
    augment = Augment(flip=True, crop=2)
    first, again, other = (Variations.of(augment, 3, epoch, 50) for epoch in (1, 1, 2))
    assert torch.equal(first.flips, again.flips)
    assert torch.equal(first.shifts, again.shifts)
    assert not torch.equal(first.shifts, other.shifts)
    assert 10 < int(first.flips.sum()) < 40
    assert (int(first.shifts.min()), int(first.shifts.max())) == (0, 4)


def test_an_image_is_moved_and_mirrored_as_its_row_says() -> None:
    images = torch.arange(1, 10, dtype=torch.uint8).reshape(1, 1, 3, 3).repeat(3, 1, 1, 1)
    flips, shifts = torch.tensor([False, True, False]), torch.tensor([[1, 1], [1, 1], [2, 1]])
    varied = Variations(flips, shifts, padding=1).applied(images, slice(0, 3))
    assert varied.dtype == torch.uint8
    assert torch.equal(varied[0], images[0])
    assert torch.equal(varied[1], images[0].flip(2))
    assert varied[2, 0].tolist() == [[4, 5, 6], [7, 8, 9], [0, 0, 0]]


def test_an_epoch_is_fed_once_whole_and_the_same_again_after_a_restart() -> None:
    part = Part(torch.arange(24.0).reshape(24, 1), torch.arange(24))
    feeds = [Feed(part, 12, Hyperparameters(), CPU) for _ in range(2)]
    for feed in feeds:
        feed.begin_epoch(3)
    seen: list[int] = []
    for position in (0, 1):
        for feed in feeds:
            feed.fill(position)
        assert torch.equal(feeds[0].inputs, feeds[1].inputs)
        assert feeds[0].inputs.flatten().tolist() == feeds[0].targets.tolist()
        seen += feeds[0].targets.tolist()
    assert sorted(seen) == list(range(24))


def test_a_regression_is_learned_and_has_no_accuracy() -> None:
    part = Part(SAMPLES.inputs, SAMPLES.inputs[:, :1] * 2)
    model = make_model(6, 1)
    step = make_step(part, Regression(), model)
    first = step.forward(step.feed.inputs, step.feed.targets)[0].item()
    for _ in range(50):
        step()
    seen = Part(step.feed.inputs, step.feed.targets)
    result = evaluate(model, seen, 7, Regression(), CPU, Fence(None, Stop()))
    assert result.loss < first / 10
    assert result.accuracy is None
    assert result.score == -result.loss


def test_the_loss_of_text_is_the_mean_over_its_places() -> None:
    outputs, targets = torch.randn(4, 5, 7), torch.randint(7, (4, 5), dtype=torch.uint8)
    task = NextToken()
    expected = functional.cross_entropy(outputs.reshape(20, 7), targets.reshape(20).long())
    torch.testing.assert_close(task.loss(outputs, targets), expected)
    torch.testing.assert_close(task.losses(outputs, targets).mean(), expected)
    assert task.right(functional.one_hot(targets.long(), 7).float(), targets).tolist() == [1.0] * 4


def test_evaluation_weighs_every_sample_once() -> None:
    model = nn.Linear(6, 3)
    result = evaluate(model, SAMPLES, 7, Classification(0.5), CPU, Fence(None, Stop()))
    outputs = model(SAMPLES.inputs)
    assert result.loss == pytest.approx(functional.cross_entropy(outputs, SAMPLES.labels).item(), rel=1e-5)
    assert result.accuracy == pytest.approx((outputs.argmax(1) == SAMPLES.labels).float().mean().item())


class OnAGpu(Device):
    """It is none, but is treated as one."""

    @property
    def is_gpu(self) -> bool:
        return True


class Narrow(nn.Linear):
    """Has memory for few samples at once."""

    seen: ClassVar[list[int]] = []

    def forward(self, input: Tensor) -> Tensor:
        self.seen.append(len(input))
        if len(input) > 7:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(input)


def test_an_evaluation_for_which_memory_is_short_is_done_in_the_jobs_own_batches() -> None:
    model = Narrow(6, 3)
    where = OnAGpu(torch.device("cpu"), None, "a GPU")
    result = evaluate(model, SAMPLES, 7, Classification(0.0), where, Fence(None, Stop()))
    assert result == evaluate(model, SAMPLES, 7, Classification(0.0), CPU, Fence(None, Stop()))
    assert (model.seen[0], set(model.seen[1:])) == (len(SAMPLES), {7})
    assert model.training, "as it was"


def test_on_the_cpu_a_repeated_step_is_the_step_itself() -> None:
    calls: list[int] = []
    repeated = Repeated(lambda: calls.append(1), CPU, steps=1000)
    for _ in range(10):
        repeated()
    assert (len(calls), repeated.words) == (10, None)


class Queue:
    """A device that does one step each `step_s`, and the clock that shows it."""

    def __init__(self, step_s: float) -> None:
        self.now = 0.0
        self.step_s = step_s
        self.busy_until = 0.0

    def mark(self) -> QueueMark:
        return QueueMark(self)


class QueueMark:
    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._done_at = 0.0

    def record(self) -> None:
        self._queue.busy_until = max(self._queue.busy_until, self._queue.now) + self._queue.step_s
        self._done_at = self._queue.busy_until

    def query(self) -> bool:
        return self._done_at <= self._queue.now

    def synchronize(self) -> None:
        self._queue.now = max(self._queue.now, self._done_at)


@pytest.mark.parametrize("step_s", [0.0001, 0.002, 0.05])
def test_the_host_is_about_a_fifth_of_a_second_ahead_and_the_device_never_idle(step_s: float) -> None:
    queue = Queue(step_s)
    ahead = RunAhead(queue.mark, clock=lambda: queue.now)
    steps = int(3 / step_s)
    for _ in range(steps):
        queue.now += step_s / 20  # what the host itself takes
        ahead.step_queued()
        assert queue.busy_until - queue.now <= 0.25
    assert queue.busy_until == pytest.approx(steps * step_s, rel=0.05), "it was always busy"


def test_training_ends_after_so_many_epochs_without_a_better_one() -> None:
    plan, patience = Plan(epochs=9, batch_size=1, steps_per_epoch=10, total_steps=90), EarlyStopping(patience=2)
    state = LoopState()
    for epoch, score in enumerate([0.5, 0.7, 0.7], start=1):
        state.step = epoch * 10
        state.judge(epoch, score)
    assert (state.best_epoch, state.is_exhausted(patience, plan), state.is_exhausted(None, plan)) == (2, False, False)
    state.step = 40
    state.judge(4, 0.6)
    assert state.is_exhausted(patience, plan)
    assert plan.ending_at(40) == Plan(epochs=4, batch_size=1, steps_per_epoch=10, total_steps=40)


def test_a_result_is_judged_by_its_accuracy_where_it_has_one() -> None:
    assert Result(loss=2.0, accuracy=0.25).score == 0.25
