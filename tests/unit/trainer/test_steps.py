"""What decides about a step: how many there are, their samples, their learning rate, how the optimizer moves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from cyxwiz_crds import TrainingJobSpec
from cyxwiz_crds.training_job import Hyperparameters
from cyxwiz_trainer.batches import epoch_order, evaluation_batches
from cyxwiz_trainer.failures import UserError, diverged, out_of_gpu_memory
from cyxwiz_trainer.fence import Fence, Fenced, Stop
from cyxwiz_trainer.optimizer import Optimizer
from cyxwiz_trainer.rate import Rate
from cyxwiz_trainer.schedule import Plan, learning_rate
from cyxwiz_trainer.totals import Sums, Totals

CPU = torch.device("cpu")


def plan_of(samples: int, batch_size: int = 32, epochs: int = 2) -> Plan:
    spec = {"model": {"name": "cnn"}, "dataset": {"uri": "builtin://digits"}, "batchSize": batch_size, "epochs": epochs}
    return Plan.of(TrainingJobSpec.model_validate(spec), samples)


def test_a_partial_batch_is_left_out_unless_it_is_all_there_is() -> None:
    assert plan_of(100) == Plan(epochs=2, batch_size=32, steps_per_epoch=3, total_steps=6)
    assert plan_of(20) == Plan(epochs=2, batch_size=20, steps_per_epoch=1, total_steps=2)


def rates_of(plan: Plan, **hyper: Any) -> list[float]:
    """The learning rate of every step, for a peak of 1."""
    parsed = Hyperparameters.model_validate({"learningRate": 1.0} | hyper)
    return [learning_rate(step, plan, parsed) for step in range(plan.total_steps)]


def test_the_rate_rises_from_zero_and_falls_along_a_cosine() -> None:
    rates = rates_of(plan_of(10, batch_size=1, epochs=10), schedule="cosine", warmupEpochs=2)
    assert rates[0] == pytest.approx(0.05)
    assert rates[19] == rates[20] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert 0 < rates[-1] < 0.001


def test_the_rate_is_constant_or_falls_in_steps() -> None:
    plan = plan_of(10, batch_size=1, epochs=4)
    assert rates_of(plan, warmupEpochs=2)[20:] == [1.0] * 20
    rates = rates_of(plan, schedule="step", stepEpochs=2, stepFactor=0.5)
    assert (rates[:20], rates[20:]) == ([1.0] * 20, [0.5] * 20)


def test_one_cycle_is_the_one_of_torch() -> None:
    theirs = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(theirs, max_lr=1.0, total_steps=40)
    for rate in rates_of(plan_of(10, batch_size=1, epochs=4), schedule="onecycle"):
        assert rate == pytest.approx(schedule.get_last_lr()[0])
        theirs.step()
        schedule.step()


def test_the_length_may_be_given_in_steps_and_the_last_epoch_is_cut_short() -> None:
    spec = {"model": {"name": "cnn"}, "dataset": {"uri": "builtin://digits"}, "maxSteps": 7}
    plan = Plan.of(TrainingJobSpec.model_validate(spec), 100)
    assert plan == Plan(epochs=3, batch_size=32, steps_per_epoch=3, total_steps=7)
    assert [plan.epochs_evaluated(step) for step in (2, 3, 6, 7)] == [0, 1, 2, 3]


def test_a_batch_that_has_no_equal_parts_is_refused() -> None:
    spec = {"model": {"name": "cnn"}, "dataset": {"uri": "a"}, "hyperparameters": {"accumulateSteps": 5}}
    with pytest.raises(UserError, match="accumulateSteps"):
        Plan.of(TrainingJobSpec.model_validate(spec), 100)


def test_an_epoch_has_every_sample_once_in_an_order_of_its_own() -> None:
    first, second = epoch_order(0, 0, 50), epoch_order(0, 1, 50)
    assert sorted(first.tolist()) == list(range(50))
    assert first.tolist() != second.tolist()
    assert epoch_order(0, 1, 50).tolist() == second.tolist()
    assert epoch_order(1, 1, 50).tolist() != second.tolist()


def test_evaluation_counts_every_sample_once_in_batches_of_one_shape() -> None:
    batches = list(evaluation_batches(10, 4, CPU))
    assert [len(indices) for indices, _ in batches] == [4, 4, 4]
    counted = [int(i) for indices, weights in batches for i, w in zip(indices, weights, strict=True) if w]
    assert counted == list(range(10))


TORCH_OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda groups: torch.optim.Adam(groups, lr=0.05, fused=True),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.05, fused=True),
}


@pytest.mark.parametrize("name", TORCH_OPTIMIZERS)
def test_the_optimizer_moves_as_the_one_of_torch_does(name: str) -> None:
    ours, theirs = (_small_model() for _ in range(2))
    hyper = Hyperparameters.model_validate({"optimizer": name, "nesterov": name == "sgd", "weightDecay": 0.1})
    optimizer = Optimizer(ours, hyper)
    matrices, vectors = (
        [parameter for parameter in theirs.parameters() if (parameter.ndim > 1) == many] for many in (True, False)
    )
    reference = TORCH_OPTIMIZERS[name](
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    )
    images = torch.randn(6, 3, 8, 8)
    for _ in range(3):
        for model in (ours, theirs):
            model.zero_grad()
            functional.cross_entropy(model(images), torch.arange(6)).backward()
        optimizer.set_learning_rate(0.05)
        optimizer.step()
        reference.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-7)


def _small_model() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 6))
    return model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # not in its stubs


def test_nesterov_without_momentum_is_refused() -> None:
    with pytest.raises(UserError, match="nesterov"):
        Optimizer(_small_model(), Hyperparameters(nesterov=True, momentum=0.0))


def add(totals: Totals, loss: float, correct: float) -> None:
    totals.add(torch.tensor(loss), torch.tensor(correct))
    totals.step_queued()


def test_sums_tell_the_step_whose_loss_was_no_number() -> None:
    totals = Totals(CPU, Sums())
    for loss in (1.0, 2.0, float("nan"), 1.0):
        add(totals, loss, 3.0)
    sums = totals.read()
    assert not sums.is_finite
    assert sums.finite_steps == 2
    assert sums.accuracy(4) == 0.75
    assert "epoch 1, step 3" in str(diverged(1, int(sums.finite_steps) + 1, 10.0))


def test_requested_sums_are_those_of_the_moment_and_told_once() -> None:
    totals = Totals(CPU, Sums())
    assert totals.poll() is None
    add(totals, 3.0, 1.0)
    totals.request()
    add(totals, 5.0, 1.0)
    assert totals.poll() == Sums(steps=1, loss=3.0, correct=1.0, finite_steps=1.0)
    assert totals.poll() is None
    assert totals.read().mean_loss == 4.0


def test_one_long_pause_does_not_move_the_estimate() -> None:
    rate = Rate(0.0, 0)
    for second in range(1, 6):
        rate.seen(float(second), second * 10)
    rate.seen(1000.0, 60)
    assert rate.remaining_s(100) == pytest.approx(10.0)
    assert rate.steps_per_second(1000.0, 60) == pytest.approx(10.0)


def test_nothing_goes_on_while_the_deadline_has_passed() -> None:
    now, deadlines = [100.0], iter([90.0, 90.0, float("nan"), 200.0])
    naps: list[float] = []
    Fence(lambda: next(deadlines), Stop(), clock=lambda: now[0], sleep=naps.append).wait()
    assert len(naps) == 3


def test_an_order_to_stop_ends_the_wait_for_the_deadline_without_leave_to_compute() -> None:
    stop = Stop()
    fence = Fence(lambda: 90.0, stop, clock=lambda: 100.0, sleep=lambda _: stop.request())
    with pytest.raises(Fenced):
        fence.wait()


def test_too_little_gpu_memory_is_told_with_what_would_do() -> None:
    gib = 2**30
    failure = out_of_gpu_memory(1, 212, 39 * gib, 40 * gib, limited=True, batch_size=48)
    assert str(failure) == (
        "out of GPU memory in epoch 1, step 212: held 39Gi of 40Gi and needed more. "
        "Set resources.gpuMemory: 50Gi or batchSize: 24."
    )
