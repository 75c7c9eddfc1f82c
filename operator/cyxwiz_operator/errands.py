"""Writes that nothing waits for: a few at a time, while there is nothing better to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable

Errand = Callable[[], Coroutine[None, None, None]]


class Errands:
    """One kind of them. Those under way when the bell rings are finished beside whatever it rang for."""

    def __init__(self, bell: asyncio.Event, at_once: int) -> None:
        self._bell = bell
        self._at_once = at_once
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self, errands: Iterable[Errand]) -> None:
        """All are done; or the bell has rung, and those that were not begun are left in `errands`.

        However often the bell rings, as many are begun as there is room for. Raises what one of them raised.
        """
        ring = asyncio.create_task(self._bell.wait())
        try:
            if not await self._at_most(self._at_once - 1, ring):
                return
            for errand in errands:
                self._under_way.add(asyncio.create_task(errand()))
                if not await self._at_most(self._at_once - 1, ring):
                    return
            await self._at_most(0, ring)
        finally:
            ring.cancel()

    async def _at_most(self, count: int, ring: asyncio.Task[bool]) -> bool:
        """So many are under way; False when the bell rings before."""
        while len(self._under_way) > count:
            if self._bell.is_set():
                self._collect({task for task in self._under_way if task.done()})
                return len(self._under_way) <= count
            done, _ = await asyncio.wait({*self._under_way, ring}, return_when=asyncio.FIRST_COMPLETED)
            self._collect({task for task in self._under_way if task in done})
        return True

    def _collect(self, done: set[asyncio.Task[None]]) -> None:
        self._under_way -= done
        for task in done:
            task.result()
