"""One assignment's GPUs as measured: before it starts, and after its processes are gone until their memory is back."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping

from cyxwiz_crds import size_text
from cyxwiz_protocol.runner_api import JobProcess

from .gpu_room import NO_ROOM, GpuRoom
from .node import Node

log = logging.getLogger(__name__)

BACK_WITHIN_S = 10.0
_MIB = 2**20


class AttemptMemory:
    """What a worker asks of the driver, and how long it waits for it."""

    def __init__(self, key: str, node: Node) -> None:
        self.note: str | None = None
        """What was not back in time, in words."""
        self._key = key
        self._node = node
        self._before: Mapping[str, int] = {}
        self._late_since: float | None = None
        self._settled = False

    def is_coming(self, process: JobProcess | None) -> bool:
        """Its processes are gone, and what they held of GPUs has not been seen free again."""
        return process is not None and process.state == "Reaped" and bool(process.gpus) and not self._settled

    async def room(self, assigned: Iterable[str], process: JobProcess | None, live: list[JobProcess]) -> GpuRoom:
        """The node's GPUs, those of this assignment measured where that matters: before its start, after its end."""
        snapshot = self._node.runner.snapshot
        gpus = assigned if process is None else process.gpus if self.is_coming(process) else ()
        if snapshot is None or not gpus:
            return NO_ROOM
        used_mib = await self._node.memory.used_mib(gpus)
        room = GpuRoom.of(self._node.devices().gpus, snapshot.sharing)
        room = room.measured(used_mib, live, snapshot.warming_gpus)
        if process is None:
            self._before = room.unaccounted_mib
        return room

    def is_back(self, process: JobProcess | None, room: GpuRoom) -> bool:
        """False while what its processes held is waited for, and no longer than that is reasonable."""
        if process is None or not self.is_coming(process):
            return True
        late = room.not_back(process, self._before)
        now = time.monotonic()
        if self._late_since is None:
            self._late_since = now
        if late and now - self._late_since < BACK_WITHIN_S:
            return False
        if late:
            held = ", ".join(f"{size_text(mib * _MIB)} of GPU {gpu}" for gpu, mib in late.items())
            self.note = f"{held} were still in use {BACK_WITHIN_S:.0f} s after its processes had gone"
            log.warning("%s: %s", self._key, self.note)
        self._settled = True
        return True
