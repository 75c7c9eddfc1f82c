"""Memory in use on devices at the moment it is asked for. A driver that blocks, blocks nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping

from . import nvml

ANSWERS_WITHIN_S = 2.0
Read = Callable[[Iterable[str]], Mapping[str, int]]


class MemoryMeter:
    """Asks in a thread of its own, one question at a time."""

    def __init__(self, read: Read = nvml.memory_in_use, within_s: float = ANSWERS_WITHIN_S) -> None:
        self._read = read
        self._within_s = within_s
        self._lock = asyncio.Lock()
        self._asking: threading.Thread | None = None

    async def used_mib(self, uuids: Iterable[str]) -> Mapping[str, int]:
        """MiB in use per device; of none where the driver does not answer in time, or still owes an earlier answer."""
        wanted = list(uuids)
        if not wanted:
            return {}
        async with self._lock:
            if self._asking is not None and self._asking.is_alive():
                return {}
            loop = asyncio.get_running_loop()
            answer: asyncio.Future[Mapping[str, int]] = loop.create_future()

            def give(found: Mapping[str, int]) -> None:
                if not answer.done():
                    answer.set_result(found)

            def ask() -> None:
                found = self._read(wanted)
                with contextlib.suppress(RuntimeError):  # the event loop is closed: the agent has ended
                    loop.call_soon_threadsafe(give, found)

            # A daemon, so that a hanging driver does not keep the process from ending.
            self._asking = threading.Thread(target=ask, name="device memory", daemon=True)
            self._asking.start()
            try:
                return await asyncio.wait_for(answer, self._within_s)
            except TimeoutError:
                return {}
