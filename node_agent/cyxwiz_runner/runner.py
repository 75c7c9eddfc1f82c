"""The runner as a whole: takes over its state folder, serves, and on a signal ends everything it started."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cyxwiz_protocol.runner_api import Snapshot

from .job import Means
from .jobs import Jobs
from .journal import Journal, end_leftovers, settle
from .orphans import Living, adopt_orphans
from .pool import Devices, Pool
from .server import Changes, Server, bind
from .spawn import DEFAULT_COMMAND, Spawner
from .state import State

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """What the command line says besides the state folder."""

    warm: int = 1
    """Trainers kept ready for the CPU."""
    warm_gpus: tuple[str, ...] = ()
    """UUIDs of the GPUs that each have a trainer ready."""
    cpus: int = 1
    """Threads a warm trainer begins with."""
    data_root: Path | None = None
    grace_s: float = 10.0
    trainer_command: Sequence[str] = DEFAULT_COMMAND

    def wanted(self) -> dict[Devices, int]:
        """How many warm trainers for which devices."""
        wanted: Counter[Devices] = Counter({(): self.warm})
        wanted.update((gpu,) for gpu in set(self.warm_gpus))
        return dict(wanted)


async def serve(state: State, options: Options) -> None:
    """Returns after SIGTERM or SIGINT, when no process it started is left. Raises OSError where it cannot begin."""
    os.umask(0o077)
    living: Living = {}
    adopt_orphans(living)
    journal = Journal(state.journal)
    claims = journal.claims()
    await end_leftovers(claims, state.identity, state.instance)
    ended = settle(claims, state.path)
    for home in state.spawns.iterdir():
        shutil.rmtree(home, ignore_errors=True)

    listener = bind(state.socket)
    ordered = _termination_orders()
    changes = Changes()
    spawner = Spawner(state.instance, state.spawns, options.trainer_command, options.data_root, living)
    async with (
        asyncio.TaskGroup() as tasks
    ):  # a bug in any part ends the runner, and the jobs with it: no fence, no job
        pool = Pool(spawner, options.wanted(), options.cpus, tasks, changes.tell)
        jobs = Jobs(state.path, Means(journal, spawner, pool, tasks, changes.tell))
        jobs.remember(ended)
        server = Server(jobs, lambda: _snapshot(state, jobs, pool), changes)
        await server.listen(listener)
        _log.info("runner serving socket=%s instance=%s ended_before=%d", state.socket, state.instance, len(ended))
        await ordered.get()
        _log.info("runner ending jobs=%d grace_s=%g", len(jobs.processes()), options.grace_s)
        server.stop_admission()
        state.socket.unlink(missing_ok=True)
        impatience = tasks.create_task(_end_at_once(ordered, jobs))
        await jobs.end_all(options.grace_s)
        impatience.cancel()
        await pool.close()
        await server.close()
    _log.info("runner ended")


def _snapshot(state: State, jobs: Jobs, pool: Pool) -> Snapshot:
    return Snapshot(
        instance=state.instance,
        jobs=jobs.processes(),
        warm=pool.ready_count,
        warming=pool.warming_count,
        torch_version=pool.newest.torch_version if pool.newest else None,
        models=pool.newest.models if pool.newest else [],
        message=pool.message,
    )


def _termination_orders() -> asyncio.Queue[None]:
    """Gets an entry for each SIGTERM and SIGINT from now on."""
    orders: asyncio.Queue[None] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, orders.put_nowait, None)
    return orders


async def _end_at_once(ordered: asyncio.Queue[None], jobs: Jobs) -> None:
    """A second order ends the grace."""
    await ordered.get()
    with contextlib.suppress(asyncio.CancelledError):
        await jobs.end_all(0.0)
