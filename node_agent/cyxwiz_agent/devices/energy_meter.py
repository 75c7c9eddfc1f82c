"""Reads energy counters when a job begins and ends, without waiting for the monitor's next look."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

import pynvml

from .nvml import energy_joules

WITHIN_S = 0.3
"""A report is not held up longer by a driver that is slow to answer."""


class EnergyMeter:
    """Asks the driver in a thread of its own, one at a time: a call that blocks, blocks nobody."""

    def __init__(self, read: Callable[[], dict[str, int]] = energy_joules, within_s: float = WITHIN_S) -> None:
        self._read = read
        self._within_s = within_s
        self._asking: threading.Thread | None = None

    async def joules(self) -> dict[str, int]:
        """The counter of every GPU that has one, by UUID; nothing when the driver does not answer in time."""
        if self._asking is not None and self._asking.is_alive():
            return {}
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[dict[str, int]] = loop.create_future()
        # A daemon, so that a hanging driver does not keep the process from ending.
        self._asking = threading.Thread(target=self._ask, args=(loop, answer), name="energy", daemon=True)
        self._asking.start()
        try:
            return await asyncio.wait_for(answer, self._within_s)
        except TimeoutError:
            return {}

    def _ask(self, loop: asyncio.AbstractEventLoop, answer: asyncio.Future[dict[str, int]]) -> None:
        try:
            found = self._read()
        except pynvml.NVMLError:
            found = {}
        with contextlib.suppress(RuntimeError):  # the event loop is closed: the agent has ended
            loop.call_soon_threadsafe(_give, answer, found)


def _give(answer: asyncio.Future[dict[str, int]], found: dict[str, int]) -> None:
    if not answer.done():
        answer.set_result(found)
