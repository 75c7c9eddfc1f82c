"""Keeps trainers ready: imported, in a process of their own, waiting for one job each."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from cyxwiz_protocol.handshake import Prepare, Ready

from . import priority
from .shapes import Shapes
from .trainer import SpawnPlan, StartFailed, Trainer

SETTLE_S = 1.0
"""A GPU that a job has left stays without a trainer: meanwhile the agent sees whether its memory is back."""
FAILURES_ALLOWED = 3
"""Spawns that fail in a row before jobs start cold; a job that starts ends the row."""

Devices = tuple[str, ...]
"""GPU UUIDs; empty means the CPU. Fixed at spawn, so a trainer fits the jobs of exactly these."""
_log = logging.getLogger(__name__)


class Spawns(Protocol):
    """Where trainers come from."""

    def spawn(self, plan: SpawnPlan) -> Trainer: ...


class Pool:
    """Warm trainers by the devices they see. One warms up at a time, at low priority; a job may have it in the midst.

    While a job holds a GPU, the trainer that will follow there waits imported, but off the device.
    """

    def __init__(
        self,
        spawner: Spawns,
        wanted: Mapping[Devices, int],
        cpus: int,
        shapes: Shapes,
        tasks: asyncio.TaskGroup,
        on_change: Callable[[], None],
        settle_s: float = SETTLE_S,
    ) -> None:
        self.newest: Ready | None = None
        """What the newest trainer said of itself."""
        self._spawner = spawner
        self._wanted = dict(wanted)
        self._cpus = cpus
        self._shapes = shapes
        self._on_change = on_change
        self._nice = priority.WARMING_NICE if priority.may_restore() else 0
        self._ready: dict[Devices, list[Trainer]] = {devices: [] for devices in wanted}
        self._imported: dict[Devices, Trainer] = {}
        self._warming: Trainer | None = None
        self._is_awaited = False
        self._warmed = asyncio.Event()
        self._held: Counter[str] = Counter()
        self._settle_s = settle_s
        self._settling: Counter[str] = Counter()
        self._failures = 0
        self._last_failure = ""
        self._look = asyncio.Event()
        self._look.set()
        self._endings: set[asyncio.Task[None]] = set()
        self._tasks = tasks
        self._keeper = tasks.create_task(self._keep_warm())

    @property
    def ready_count(self) -> int:
        return sum(map(len, self._ready.values()))

    @property
    def warming_count(self) -> int:
        return int(self._warming is not None)

    @property
    def warming_on(self) -> Devices:
        """The GPUs on which a trainer is being made ready."""
        devices = self._warming.plan.gpus if self._warming is not None else ()
        return () if self._is_held(devices) else devices

    @property
    def imported_count(self) -> int:
        return len(self._imported)

    @property
    def message(self) -> str | None:
        """Why there are no warm trainers although some are wanted."""
        if self._failures < FAILURES_ALLOWED or not any(self._wanted.values()):
            return None
        return (
            f"{self._failures} trainers in a row failed before their job began, so jobs start cold: "
            f"{self._last_failure}"
        )

    async def take(self, gpus: Iterable[str]) -> Trainer | None:
        """A warm trainer for a job on exactly these devices, now the caller's to end; None when there is none.

        One that warms up there is waited for, by one job: it is ahead of any that could be begun now.
        """
        devices = _devices(gpus)
        ready = self._ready.get(devices, [])
        if not ready and self._warms_up_on(devices) and not self._is_awaited:
            await self._until_warm()
        if not ready:
            return None
        trainer = ready.pop(0)
        self._make_quick(trainer)
        self._changed()
        return trainer

    def _warms_up_on(self, devices: Devices) -> bool:
        warming = self._warming
        return (
            warming is not None
            and warming.ready is None
            and warming.plan.gpus == devices
            and not self._is_kept_off(devices)
        )

    async def _until_warm(self) -> None:
        """The trainer that warms up can be had, or has failed."""
        assert self._warming is not None
        self._is_awaited = True
        self._make_quick(self._warming)
        self._warmed.clear()
        try:
            await self._warmed.wait()
        finally:
            self._is_awaited = False

    def _make_quick(self, trainer: Trainer) -> None:
        """A job waits for it, or has it."""
        if self._nice:
            priority.set_nice(trainer.pid, 0)

    def take_imported(self, gpus: Iterable[str]) -> Trainer | None:
        """A trainer that waits off these devices, now the caller's to prepare and to end; None when there is none.

        For several devices, one that waits for any of them: which it shall see it is told when it prepares.
        """
        devices = _devices(gpus)
        fitting = [devices, *((gpu,) for gpu in devices)]
        trainer = next((self._imported.pop(each) for each in fitting if each in self._imported), None)
        if trainer is not None:
            self._make_quick(trainer)
            self._changed()
        return trainer

    def why_cold(self, gpus: Iterable[str]) -> str:
        """What a job that found no warm trainer is told."""
        devices = _devices(gpus)
        if len(devices) > 1:
            return f"{len(devices)} GPUs"
        if not self._wanted.get(devices):
            return "no warm trainers are kept for this GPU" if devices else "no warm trainers are kept for the CPU"
        if self._failures >= FAILURES_ALLOWED:
            return f"warm trainers are off after {self._failures} failures in a row"
        if self._held_beside(devices):
            return "another job holds a part of its GPU"
        return "no warm trainer was ready"

    def keep_on(self, gpus: Iterable[str]) -> None:
        """From now on a trainer is kept on each of these GPUs and on no other, beside those for the CPU."""
        self._wanted = {(): self._wanted.get((), 0)} | {(gpu,): 1 for gpu in gpus}
        for devices in self._wanted:
            self._ready.setdefault(devices, [])
        for devices in self._ready.keys() - self._wanted.keys():
            for trainer in self._ready.pop(devices):
                self._end(trainer)
        for devices in self._imported.keys() - self._wanted.keys():
            self._end(self._imported.pop(devices))
        self._changed()

    def hold(self, gpus: Iterable[str]) -> None:
        """A job has these GPUs: idle trainers on them are on their way out, and none follows until they are vacated."""
        devices = _devices(gpus)
        self._held.update(devices)
        for theirs, ready in self._ready.items():
            if set(theirs) & set(devices):
                idle, ready[:] = ready[:], []
                for trainer in idle:
                    self._end(trainer)
        warming = self._warming
        if warming and warming.imported and warming.ready is None and set(warming.plan.gpus) & set(devices):
            warming.kill()  # it takes the device; `_warm_up` ends the rest
        self._changed()

    async def cleared(self) -> None:
        """No idle trainer is left on a GPU that is held."""
        if self._endings:
            await asyncio.wait(self._endings)  # which leaves them alone when the waiting job is stopped
            self._endings = {task for task in self._endings if not task.done()}

    def vacate(self, gpus: Iterable[str]) -> None:
        """The processes of the job on these GPUs are gone."""
        devices = _devices(gpus)
        self._held.subtract(devices)
        if devices:
            self._settling.update(devices)
            asyncio.get_running_loop().call_later(self._settle_s, self._settled, devices)
        self._changed()

    def _settled(self, devices: Devices) -> None:
        self._settling.subtract(devices)
        self._look.set()

    def failed(self, why: str) -> None:
        """A trainer failed before its job began."""
        self._failures += 1
        self._last_failure = why
        _log.warning("trainer failed in_a_row=%d why=%r", self._failures, why)
        self._changed()

    def succeeded(self) -> None:
        """A job has begun, so whatever made trainers fail is over."""
        self._failures = 0
        self._changed()

    async def close(self) -> None:
        """No trainer of the pool is left, and none follows."""
        self._keeper.cancel()
        await asyncio.gather(self._keeper, return_exceptions=True)
        for trainer in [*self._imported.values(), *(trainer for ready in self._ready.values() for trainer in ready)]:
            self._end(trainer)
        self._ready.clear()
        self._imported.clear()
        if self._warming and self._warming.ready is None:  # else it was one of those, or is a job's
            self._end(self._warming)
        await asyncio.gather(*self._endings)

    async def _keep_warm(self) -> None:
        while True:
            await self._look.wait()
            self._look.clear()
            while (devices := self._missing()) is not None:
                await self._warm_up(devices)

    def _missing(self) -> Devices | None:
        """The devices for which there is something to make ready now."""
        if self._failures >= FAILURES_ALLOWED:
            return None
        for devices, wanted in self._wanted.items():
            if len(self._ready[devices]) < wanted and not (self._is_kept_off(devices) and devices in self._imported):
                return devices
        return None

    def _held_beside(self, devices: Devices) -> bool:
        """Another job holds one of them, besides the one that asks."""
        return any(self._held[gpu] > 1 for gpu in devices)

    def _is_kept_off(self, devices: Devices) -> bool:
        """No idle trainer may be on one of them now."""
        return self._is_held(devices) or any(self._settling[gpu] > 0 for gpu in devices)

    def _is_held(self, devices: Devices) -> bool:
        return any(self._held[gpu] > 0 for gpu in devices)

    async def _warm_up(self, devices: Devices) -> None:
        """A trainer more is ready, or imported where a job holds a device; or a failure is counted."""
        trainer = self._imported.pop(devices, None) or self._spawn(devices)
        if trainer is None:
            return
        self._warming = trainer
        self._on_change()
        try:
            if not trainer.imported:
                await trainer.become_imported()
            if not self._is_kept_off(devices):
                shapes = self._shapes.newest(on_gpu=bool(devices))
                self.newest = await trainer.become_ready(Prepare(rehearse=True, shapes=shapes))
            if devices not in self._wanted or (trainer.ready is not None and self._is_held(devices)):
                await trainer.end()
            elif trainer.ready is None:
                trainer.on_exit(lambda: self._lost(trainer))
                self._imported[devices] = trainer
            else:
                trainer.on_exit(lambda: self._lost(trainer))
                await self._serve(trainer)
        except StartFailed as error:
            was_ended = trainer.imported and self._is_held(devices)  # for the job that holds them
            await trainer.end()
            if not was_ended:
                self._shapes.forget()  # one of them may be what it failed for
                self.failed(str(error))
        finally:
            self._warming = None
            self._warmed.set()
            self._on_change()

    def _spawn(self, devices: Devices) -> Trainer | None:
        try:
            return self._spawner.spawn(SpawnPlan(gpus=devices, cpus=self._cpus, nice=self._nice))
        except OSError as error:
            self.failed(f"no process could be made: {error}")
            return None

    async def _serve(self, trainer: Trainer) -> None:
        """A job may have it. Returns when it rehearses no more."""
        devices = trainer.plan.gpus
        words = ",".join(devices) or "cpu"
        _log.info("trainer ready pid=%d devices=%s", trainer.pid, words)
        self._ready[devices].append(trainer)
        self._warmed.set()
        self._on_change()
        count = await trainer.rehearsed()
        if count is not None:
            _log.info("trainer rehearsed pid=%d devices=%s shapes=%d", trainer.pid, words, count)

    def _lost(self, trainer: Trainer) -> None:
        devices = trainer.plan.gpus
        idle = self._ready.get(devices, [])
        if trainer in idle:  # else a job took it, or it was ended on purpose
            idle.remove(trainer)
        elif self._imported.get(devices) is trainer:
            del self._imported[devices]
        else:
            return
        self._end(trainer)
        if trainer is self._warming:
            self._shapes.forget()  # one of them may be what it ended for
        self.failed("it ended while it waited for a job")

    def _end(self, trainer: Trainer) -> None:
        self._endings.add(self._tasks.create_task(trainer.end()))

    def _changed(self) -> None:
        self._look.set()
        self._on_change()


def _devices(gpus: Iterable[str]) -> Devices:
    return tuple(sorted(gpus))
