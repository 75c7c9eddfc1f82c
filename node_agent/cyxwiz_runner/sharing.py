"""How jobs that ask for `gpuMemory` share a GPU: through MPS where its control program is, by time slices elsewhere."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cyxwiz_crds import size_text

from .mps import MpsFailed

LOOK_EVERY_S = 0.5
TIME_SLICES, MPS = "time slices", "MPS"
_log = logging.getLogger(__name__)


class Server(Protocol):
    """What shares GPUs among processes: `mps.Mps`, or a test's."""

    async def start(self) -> None: ...
    def environment(self, gpu_count: int, gpu_memory_bytes: int) -> Mapping[str, str]: ...
    def is_lost(self) -> bool: ...
    async def stop(self) -> None: ...


@dataclass(frozen=True)
class Share:
    """One job's part of its GPUs."""

    words: str
    """Which way it is shared and how much it may hold: "MPS, 4Gi"."""
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    """What its process needs from its start; empty where any warm trainer will do."""


class Sharing:
    """The jobs that share GPUs on this node. The server runs while there is one, so whole-GPU jobs run without it."""

    def __init__(self, server: Server | None) -> None:
        self._server = server
        self._lost: dict[str, Callable[[], None]] = {}
        self._lock = asyncio.Lock()

    @property
    def way(self) -> str:
        """MPS or time slices, for the jobs that come."""
        return TIME_SLICES if self._server is None else MPS

    async def join(self, job: str, gpu_count: int, gpu_memory_bytes: int, lost: Callable[[], None]) -> Share:
        """The job may share; `lost` is called if what it shares through ends before it."""
        size = size_text(gpu_memory_bytes)
        async with self._lock:
            if self._server is not None:
                try:
                    await self._server.start()
                except MpsFailed as error:
                    _log.error("mps not started, jobs share by time slices error=%s", error)
                    self._server = None
                else:
                    self._lost[job] = lost
                    return Share(f"{MPS}, {size}", self._server.environment(gpu_count, gpu_memory_bytes))
        return Share(f"{TIME_SLICES}, {size}")

    async def leave(self, job: str) -> None:
        """The job's processes are gone. Leaving twice, or without having joined, changes nothing."""
        async with self._lock:
            if self._lost.pop(job, None) is not None and not self._lost and self._server is not None:
                await self._server.stop()

    async def watch(self) -> None:
        """For ever: a server that ended by itself ends its jobs, and the next job starts another."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            async with self._lock:
                if self._server is None or not self._lost or not self._server.is_lost():
                    continue
                _log.error("mps ended by itself jobs=%s", ",".join(self._lost))
                lost, self._lost = list(self._lost.values()), {}
                await self._server.stop()
            for tell in lost:
                tell()

    async def close(self) -> None:
        """No server is left."""
        async with self._lock:
            if self._server is not None:
                await self._server.stop()
