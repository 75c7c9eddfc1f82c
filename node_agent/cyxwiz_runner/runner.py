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

from cyxwiz_protocol.job_folder import JobFolder
from cyxwiz_protocol.runner_api import Snapshot

from .fetching import Fetcher, drop_inputs
from .job_files import hand_back, is_lent
from .jobs import Jobs
from .journal import Journal, end_leftovers, settle
from .memory_watch import watch_memory
from .mps import CONTROL_PROGRAM, Mps
from .orphans import Living, adopt_orphans
from .pool import Devices, Pool
from .server import Changes, Server, bind
from .shapes import Shapes
from .sharing import Sharing
from .spawn import DEFAULT_COMMAND, Spawner
from .starting import Means
from .state import State
from .store_processes import StoreProcesses
from .storing import Storage
from .sweep import in_steps, remove_tree
from .uids import Uids, why_not
from .warm_gpus import WarmGpus

_log = logging.getLogger(__name__)

ALL_GPUS = "all"


@dataclass(frozen=True)
class Options:
    """What the command line says besides the state folder."""

    warm: int = 1
    """Trainers kept ready for the CPU."""
    warm_gpus: tuple[str, ...] = ()
    """UUIDs of the GPUs that each have a trainer ready; ALL_GPUS leaves them to the agent."""
    cpus: int = 1
    """Threads a warm trainer begins with."""
    data_root: Path | None = None
    remote: Path | None = None
    """The administrator's file of stores and limits (cyxwiz_store.config)."""
    memory_bytes: int | None = None
    """What the node lends to jobs, where that is less than the container or the machine has."""
    mps_command: Sequence[str] | None = None
    """The MPS control program; None looks for it on PATH, and an empty one forbids it."""
    grace_s: float = 10.0
    uids: range | None = None
    """For a uid per trainer; of this runner alone on its machine. None means the runner's own uid for all."""
    trainer_command: Sequence[str] = DEFAULT_COMMAND

    def wanted(self) -> dict[Devices, int]:
        """How many warm trainers for which devices."""
        wanted: Counter[Devices] = Counter({(): self.warm})
        wanted.update((gpu,) for gpu in set(self.warm_gpus) - {ALL_GPUS})
        return dict(wanted)


async def serve(state: State, options: Options) -> None:
    """Returns after SIGTERM or SIGINT, when no process it started is left. Raises OSError where it cannot begin."""
    os.umask(0o077)
    living: Living = {}
    adopt_orphans(living)
    journal = Journal(state.journal)
    claims = journal.claims()
    await end_leftovers(claims, state.identity, state.instance)
    uids, isolation = _separate(state, options.uids, options.trainer_command[0])
    await _clear_up(state, uids)
    ended = settle(claims, state.path)

    listener = bind(state.socket)
    ordered = _termination_orders()
    changes = Changes()
    sharing = Sharing(_mps(state, options.mps_command, living))
    spawner = Spawner(state.instance, state.spawns, options.trainer_command, options.data_root, living, uids)
    fetching_uid = uids.take() if uids else None
    stores = StoreProcesses(options.remote, state.instance, living, fetching_uid)
    fetcher, storage = Fetcher(state.cache, stores, fetching_uid), Storage(stores)
    async with (
        asyncio.TaskGroup() as tasks
    ):  # a bug in any part ends the runner, and the jobs with it: no fence, no job
        shapes = Shapes(state.shapes)
        pool = Pool(spawner, options.wanted(), options.cpus, shapes, tasks, changes.tell)
        jobs = Jobs(state.path, Means(journal, spawner, pool, sharing, shapes, fetcher, storage, tasks, changes.tell))
        jobs.remember(ended)
        warm_gpus = WarmGpus(pool, agent_names_them=ALL_GPUS in options.warm_gpus)
        server = Server(jobs, warm_gpus, lambda: _snapshot(state, jobs, warm_gpus, isolation, sharing.way), changes)
        watches = [
            tasks.create_task(watch)
            for watch in (watch_memory(jobs, options.memory_bytes), jobs.follow_output(), sharing.watch())
        ]
        await server.listen(listener)
        _log.info("runner serving socket=%s instance=%s ended_before=%d", state.socket, state.instance, len(ended))
        await ordered.get()
        _log.info("runner ending jobs=%d grace_s=%g", len(jobs.processes()), options.grace_s)
        server.stop_admission()
        state.socket.unlink(missing_ok=True)
        impatience = tasks.create_task(_end_at_once(ordered, jobs))
        await jobs.end_all(options.grace_s)
        impatience.cancel()
        for watch in watches:
            watch.cancel()
        await sharing.close()
        await pool.close()
        await server.close()
    _log.info("runner ended")


def _mps(state: State, command: Sequence[str] | None, living: Living) -> Mps | None:
    """The server through which jobs share GPUs, where the driver brought one."""
    if command is None:
        program = shutil.which(CONTROL_PROGRAM)
        command = (program,) if program else ()
    return Mps(command, state.path / "runner" / "mps", state.instance, living) if command else None


def _separate(state: State, uids: range | None, program: str) -> tuple[Uids | None, str]:
    """Where trainers get uids of their own from, if they do, and how jobs are kept apart in words."""
    reason = "no uids were given to the runner" if uids is None else why_not(state.path, program)
    if uids is None or reason is not None:
        isolation = f"all jobs share the runner's uid: {reason}"
        _log.warning("%s", isolation)
        return None, isolation
    state.let_through()
    separate = Uids(uids)
    return separate, f"each job has a uid of its own from {separate}"


async def _clear_up(state: State, uids: Uids | None) -> None:
    """Nothing is lent or left over from an earlier runner. What resists is told and left."""
    for path in (state.path / "jobs").iterdir():
        drop_inputs(JobFolder(path))
    leftovers = [remove_tree(home) for home in state.spawns.iterdir()]
    if os.geteuid() == 0:
        folders = [JobFolder(path) for path in (state.path / "jobs").iterdir() if path.is_dir()]
        leftovers += [hand_back(folder) for folder in folders if is_lent(folder)]
    if uids is not None:
        leftovers.append(uids.sweep_all())
    for leftover in leftovers:
        try:
            await in_steps(leftover)
        except OSError as error:
            _log.error("leftover not removed error=%s", error)


def _snapshot(state: State, jobs: Jobs, warm_gpus: WarmGpus, isolation: str, sharing: str) -> Snapshot:
    pool = warm_gpus.pool
    return Snapshot(
        instance=state.instance,
        jobs=jobs.processes(),
        warm=pool.ready_count,
        warming=pool.warming_count,
        warming_gpus=list(pool.warming_on),
        imported=pool.imported_count,
        warm_gpus=warm_gpus.named,
        torch_version=pool.newest.torch_version if pool.newest else None,
        models=pool.newest.models if pool.newest else [],
        message=pool.message,
        isolation=isolation,
        sharing=sharing,
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
