"""How a job comes to its trainer: a warm one where one fits, else a cold one, in its part of a GPU where it shares."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from cyxwiz_protocol.handshake import Prepare
from cyxwiz_protocol.job_folder import JobFolder
from cyxwiz_protocol.records import StartFacts
from cyxwiz_protocol.runner_api import RunRequest

from .fetching import Fetcher
from .journal import Journal
from .pool import Pool, Spawns
from .shapes import Shapes
from .sharing import Share, Sharing
from .spawn import VISIBLE_DEVICES
from .storing import Storage
from .trainer import SpawnPlan, StartFailed, Trainer


@dataclass(frozen=True)
class Means:
    """What every job is run with."""

    journal: Journal
    spawner: Spawns
    pool: Pool
    sharing: Sharing
    shapes: Shapes
    fetcher: Fetcher
    storage: Storage
    tasks: asyncio.TaskGroup
    on_change: Callable[[], None]


class Start:
    """One job's way to its first trainer that answers."""

    def __init__(
        self,
        request: RunRequest,
        folder: JobFolder,
        means: Means,
        on_exit: Callable[[], None],
        on_lost_share: Callable[[], None],
    ) -> None:
        self.trainer: Trainer | None = None
        """The newest; whoever stops the start has to end it."""
        self.facts: StartFacts | None = None
        """Set once a trainer has begun the job."""
        self.began_at: float | None = None
        """Unix time."""
        self.holds_gpus = False
        self._request = request
        self._folder = folder
        self._means = means
        self._on_exit = on_exit
        self._on_lost_share = on_lost_share
        self._heard_at = time.monotonic()

    async def run(self) -> None:
        """A trainer has answered that it begins. Raises StartFailed, OSError; what came of it is still to be ended."""
        await self._means.storage.check(self._folder)
        if await self._means.fetcher.fetch(self._folder):
            self._heard_at = time.monotonic()  # waiting for data is no part of a start
        gpus, pool = self._request.gpus, self._means.pool
        share = await self._share()
        warm = None if share and share.environment else await pool.take(gpus)
        pool.hold(gpus)
        self.holds_gpus = True
        why = "how it shares its GPU is fixed when a trainer takes it"
        if not (share and share.environment):
            why = pool.why_cold(gpus)
        if warm is not None:
            try:
                await self._hand_over(warm, share)
            except StartFailed as error:
                pool.failed(str(error))
                why = f"a warm trainer failed: {error}"
                await warm.end()
            else:
                self._began("Warm", share)
                return
        await pool.cleared()
        trainer = pool.take_imported(gpus)
        if trainer is not None:
            why += "; torch was imported ahead"
        try:
            trainer = trainer or self._means.spawner.spawn(SpawnPlan(tuple(gpus), self._request.cpus))
            await self._hand_over(trainer, share)
        except StartFailed as error:
            pool.failed(str(error))
            raise
        self._began("Cold", share, why)

    async def _share(self) -> Share | None:
        """Its part of its GPUs; None when they are its own, or it has none."""
        request = self._request
        if request.gpu_memory_bytes is None or not request.gpus:
            return None
        joining = self._means.sharing.join(
            request.assignment_id, len(request.gpus), request.gpu_memory_bytes, self._on_lost_share
        )
        return await asyncio.shield(joining)  # a stop meanwhile must not leave half a server; the job's end leaves it

    def _preparation(self, share: Share | None) -> Prepare:
        """What a trainer needs to know that was not spawned for this very job."""
        gpus = self._request.gpus
        environment = dict(share.environment) if share else {}
        if len(gpus) > 1:
            environment[VISIBLE_DEVICES] = ",".join(gpus)
        return Prepare(environment=environment, ranks=max(1, len(gpus)))

    async def _hand_over(self, trainer: Trainer, share: Share | None) -> None:
        """The trainer has begun the job, which was claimed in its name before it heard of it."""
        self.trainer = trainer
        trainer.on_exit(self._on_exit)
        self._means.journal.write(self._request, trainer.root, trainer.marker, trainer.uid)
        if trainer.ready is None:
            await trainer.become_ready(self._preparation(share))
        await trainer.start(self._folder)
        self._means.pool.succeeded()

    def _began(self, mode: Literal["Warm", "Cold"], share: Share | None, why: str | None = None) -> None:
        seconds = round(time.monotonic() - self._heard_at, 6)
        sharing = share.words if share else None
        self.facts = StartFacts(mode=mode, seconds=seconds, why=why, sharing=sharing)
        self.began_at = time.time()
