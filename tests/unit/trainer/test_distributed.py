"""The host's side of several ranks: what they agree on and who speaks. Processes that only talk to each other."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

import pytest
import torch

from cyxwiz_crds import Control
from cyxwiz_crds.training_job import TrainingJobSpec
from cyxwiz_trainer.data import Part
from cyxwiz_trainer.device import Device
from cyxwiz_trainer.distributed import ALONE, Orders, PeerLost, Ranks
from cyxwiz_trainer.feed import Feed
from cyxwiz_trainer.supervisor import End, Seat, run_ranks

SIZE = 3
WELL = End(code=0)
NUMBER = struct.Struct("<q")
ANOTHER_RATE = Control(generation=2, learning_rate=0.5)


def talk(body: Callable[[Ranks], None]) -> End:
    """How ranks end that each do `body`."""

    def one(seat: Seat) -> int:
        body(Ranks(seat))
        return 0

    return run_ranks(SIZE, one)


def gather(ranks: Ranks, number: int) -> list[int]:
    return [NUMBER.unpack(each)[0] for each in ranks.collect(NUMBER.pack(number))]


def nobody_asks() -> Orders:
    raise AssertionError("only the first rank hears orders")


def test_all_stop_before_the_same_step_when_the_first_is_told_to() -> None:
    def body(ranks: Ranks) -> None:
        told_at = time.monotonic() + 0.2

        def hear() -> Orders:
            return Orders(stop=time.monotonic() >= told_at)

        step = 0
        while not ranks.agree(step, hear if ranks.is_first else nobody_asks).stop:
            step += 1
        stopped = gather(ranks, step)
        if ranks.is_first:
            assert len(stopped) == SIZE
            assert stopped[0] > 10
            assert len(set(stopped)) == 1

    assert talk(body) == WELL


def test_a_new_control_comes_to_all_before_the_same_step_and_once() -> None:
    def body(ranks: Ranks) -> None:
        heard: list[int] = []
        news = [ANOTHER_RATE]

        def hear() -> Orders:
            return Orders(control=news.pop() if news and step > 5 else None)

        for step in range(2000):
            orders = ranks.agree(step, hear if ranks.is_first else nobody_asks)
            if orders.control is not None:
                assert orders.control == ANOTHER_RATE
                heard.append(step)
        assert len(heard) == 1
        steps = gather(ranks, heard[0])
        assert not ranks.is_first or len(set(steps)) == 1

    assert talk(body) == WELL


def test_a_rank_at_another_step_is_noticed_and_not_waited_for() -> None:
    def body(ranks: Ranks) -> None:
        if ranks.is_first:
            ranks.agree(7, Orders)
            return
        with pytest.raises(RuntimeError, match="the first one at step 7"):
            ranks.agree(7 + ranks.rank, Orders)

    assert talk(body) == WELL


def test_the_others_wait_for_the_first_and_hear_of_its_end() -> None:
    def body(ranks: Ranks) -> None:
        with ranks.first_goes_ahead():
            assert ranks.largest(1 + ranks.rank) >= 1 + ranks.rank
            if not ranks.is_first:
                assert ranks.largest(0) >= 1  # what the first has said
        if ranks.rank == 1:
            return
        if ranks.is_first:
            with pytest.raises(PeerLost):
                ranks.collect(b"!")

    assert talk(body) == WELL


def test_one_rank_alone_says_why_the_job_failed() -> None:
    def body(ranks: Ranks) -> None:
        spoke = gather(ranks, int(ranks.is_first_to_fail()))
        assert not ranks.is_first or sum(spoke) == 1

    assert talk(body) == WELL


def test_a_job_of_one_process_hears_for_itself_at_every_step() -> None:
    assert ALONE.agree(0, lambda: Orders(stop=True)).stop
    assert ALONE.agree(0, lambda: Orders(control=ANOTHER_RATE)).control == ANOTHER_RATE
    assert ALONE.is_first_to_fail()
    assert ALONE.collect(b"x") == [b"x"]


def test_the_parts_of_all_ranks_are_the_batches_of_one_process() -> None:
    part = Part(torch.arange(50).reshape(25, 2), torch.arange(25))
    spec = TrainingJobSpec.model_validate({"model": {"name": "mlp"}, "dataset": {"uri": "builtin://digits"}})
    where = Device(torch.device("cpu"), None, "CPU")

    def fed(ranks: Ranks) -> list[tuple[list[int], list[int]]]:
        feed = Feed(part, 6, spec.hyperparameters, where, ranks)
        feed.begin_epoch(1)
        batches: list[tuple[list[int], list[int]]] = []
        for position in range(4):
            feed.fill(position)
            batches.append((feed.inputs[:, 0].tolist(), feed.targets.tolist()))
        return batches

    whole = fed(ALONE)
    parts = [fed(rank_of(number)) for number in range(SIZE)]
    for position, (inputs, targets) in enumerate(whole):
        assert [row for each in parts for row in each[position][0]] == inputs
        assert [row for each in parts for row in each[position][1]] == targets


def rank_of(number: int) -> Ranks:
    """A rank's view of the batch, without its peers."""
    ranks = Ranks()
    ranks.rank, ranks.size = number, SIZE
    return ranks
