"""Writes that nothing waits for are done while nothing better is to do, and hold nothing up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial

import pytest

from cyxwiz_operator.errands import Errand, Errands


class Work:
    """Errands that end once they are let go."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.most_at_once = 0
        self.let_go = asyncio.Event()

    def errands(self, count: int) -> Iterator[Errand]:
        return (partial(self._one, number) for number in range(count))

    async def _one(self, number: int) -> None:
        self.begun.append(number)
        self.most_at_once = max(self.most_at_once, len(self.begun) - len(self.ended))
        await self.let_go.wait()
        await asyncio.sleep(0)
        self.ended.append(number)


async def test_while_nothing_else_is_to_do_all_are_done_a_few_at_a_time() -> None:
    work = Work()
    work.let_go.set()
    await Errands(asyncio.Event(), at_once=3).run(work.errands(10))
    assert sorted(work.ended) == list(range(10))
    assert work.most_at_once <= 3


async def test_what_the_bell_rings_for_waits_for_none_of_them() -> None:
    work, bell = Work(), asyncio.Event()
    left = work.errands(10)
    run = asyncio.create_task(Errands(bell, at_once=3).run(left))
    await asyncio.sleep(0)
    bell.set()
    await asyncio.wait_for(run, 5)
    assert (work.begun, work.ended) == ([0, 1, 2], [])
    assert len(list(left)) == 7, "those that were not begun are left"


async def test_those_under_way_are_finished_and_count_until_then() -> None:
    work, bell = Work(), asyncio.Event()
    errands = Errands(bell, at_once=3)
    bell.set()
    await errands.run(work.errands(10))
    await asyncio.sleep(0)
    await errands.run(work.errands(10))
    await asyncio.sleep(0)
    assert work.begun == [0, 1, 2], "there is no room for more"
    work.let_go.set()
    bell.clear()
    await errands.run(work.errands(1))
    assert sorted(work.ended) == [0, 0, 1, 2]


async def test_a_bug_in_one_is_no_secret() -> None:
    async def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await Errands(asyncio.Event(), at_once=3).run([broken])
