"""One attempt on its way: looks at its processes, asks `attempts.py` what it has become, and does what that demands."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable

from cyxwiz_crds import size_text
from cyxwiz_protocol.clock import boottime
from cyxwiz_protocol.job_folder import JobFolder
from cyxwiz_protocol.records import ExitCode, ExitRecord, StartFacts
from cyxwiz_protocol.runner_api import JobProcess
from cyxwiz_protocol.storing import StoreOutcome

from .attempts import Attempt, Seen, advance, look_again_after, stopped
from .fetching import NotFetched, drop_inputs, tell
from .job_files import open_to_append
from .journal import write_exit
from .output import Follower
from .process_tree import Process
from .starting import Means, Start
from .trainer import StartFailed, Trainer

_HURRY_S = 0.02
"""Between two looks at processes that were sent a signal and must be gone, or stand still, at once."""
_WRITE_AGAIN_S = 1.0
_log = logging.getLogger(__name__)


class Job:
    """An attempt, its folder and its processes."""

    def __init__(self, attempt: Attempt, folder: JobFolder, means: Means) -> None:
        self.attempt = attempt
        self.folder = folder
        self.exit: ExitRecord | None = None
        """Set once its processes are gone and the folder says so."""
        self._means = means
        self._look = asyncio.Event()
        self._start = Start(attempt.request, folder, means, self._look.set, self._lost_share)
        self._starting: asyncio.Task[None] | None = None
        self._output = Follower(folder.log, f"{attempt.request.key} {attempt.request.attempt}")
        self._memory_peak: int | None = None
        self._frozen_s = 0.0
        self._all_stopped = False
        self._tree_gone = False
        self._storing: asyncio.Task[StoreOutcome] | None = None

    @property
    def id(self) -> str:
        return self.attempt.request.assignment_id

    def process(self) -> JobProcess:
        """As the agent sees it."""
        request = self.attempt.request
        return JobProcess(
            assignment_id=request.assignment_id,
            job_uid=request.job_uid,
            attempt=request.attempt,
            key=request.key,
            state="Ending" if self._is_ending else self.attempt.state,
            pid=self._trainer.pid if self._trainer and self.exit is None else None,
            gpus=request.gpus,
            gpu_memory_bytes=request.gpu_memory_bytes,
            cpus=request.cpus,
            memory_bytes=request.memory_bytes,
            frozen_seconds=self._frozen_s,
            start=self.start,
            exit=self.exit,
        )

    @property
    def _is_ending(self) -> bool:
        return self.attempt.state == "Storing" or (self.attempt.state == "Reaped" and self.exit is None)

    @property
    def start(self) -> StartFacts | None:
        """How it came to its trainer; None before it has begun."""
        return self.exit.start if self.exit else self._start.facts

    @property
    def _trainer(self) -> Trainer | None:
        return self._start.trainer

    @property
    def has_processes(self) -> bool:
        return self._trainer is not None and self.attempt.state != "Reaped"

    def measure_memory(self, processes: list[Process]) -> int:
        """Bytes its processes among `processes` use now; the largest such number goes into its end."""
        assert self._trainer is not None
        used = self._trainer.memory_bytes(processes)
        self._memory_peak = max(self._memory_peak or 0, used)
        return used

    def follow(self) -> None:
        """What it has printed is on the runner's own output."""
        self._output.look()

    def change(self, attempt: Attempt) -> None:
        """An order has changed the attempt."""
        if attempt != self.attempt:
            self.attempt = attempt
            self._look.set()

    def look_again(self) -> None:
        """Something happened that may change the attempt."""
        self._look.set()

    async def keep(self, lower_gone: Callable[[], bool]) -> None:
        """Look, decide, act, until the attempt is reaped and its folder says so."""
        while True:
            self._look.clear()
            before = self.attempt
            self.attempt = advance(before, self._see(lower_gone()), boottime())
            if before.state == "Frozen" and self.attempt.state != "Frozen" and before.frozen_at is not None:
                self._frozen_s += boottime() - before.frozen_at
            if self.attempt.state == "Reaped":
                break
            if self.attempt.state != before.state:
                self._enter(before)
            pause_s = self._act()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look.wait(), pause_s)
        await self._conclude()

    def _see(self, lower_gone: bool) -> Seen:
        started = start_failed = False
        if self._starting is not None and self._starting.done() and not self._starting.cancelled():
            failure = self._starting.exception()
            if failure is not None and not isinstance(failure, (StartFailed, OSError)):
                raise failure
            started, start_failed = failure is None, failure is not None
        return Seen(
            lower_gone=lower_gone,
            started=started,
            start_failed=start_failed,
            exited=self._trainer is not None and self._trainer.exited.is_set(),
            all_stopped=self._all_stopped,
            tree_gone=self._tree_gone,
            to_store=self._tree_gone and self._ended_well and self._means.storage.wanted(self.folder),
            stored=self._storing is not None and self._storing.done(),
        )

    @property
    def _ended_well(self) -> bool:
        return (
            self._trainer is not None and self._trainer.exit_code == ExitCode.SUCCEEDED and self.folder.model.is_dir()
        )

    def _enter(self, before: Attempt) -> None:
        """What a change of state demands once."""
        state = self.attempt.state
        if before.state == "Starting" and self._starting is not None:
            self._starting.cancel()  # nothing, where it has answered
        if self._trainer is not None:
            if state == "Running" and before.state == "Frozen":
                self._trainer.thaw()
            if state == "Ending" and not self.attempt.killing:
                self._trainer.terminate()
        self._log_change(before)
        self._means.on_change()

    def _act(self) -> float:
        """What a state demands as long as it lasts. Returns the seconds until the next look."""
        attempt, trainer = self.attempt, self._trainer
        if attempt.state == "Starting" and self._starting is None:
            self._starting = asyncio.create_task(self._start.run())
            self._starting.add_done_callback(lambda _: self._look.set())
        if attempt.state == "Storing" and self._storing is None:
            self._storing = asyncio.create_task(self._store())
            self._storing.add_done_callback(lambda _: self._look.set())
        self._all_stopped = attempt.state == "Frozen" and trainer is not None and trainer.freeze()
        if attempt.state == "Ending" and attempt.killing:
            self._tree_gone = trainer is None or trainer.kill()
            return 0.0 if self._tree_gone else _HURRY_S
        if attempt.state == "Frozen" and not self._all_stopped:
            return _HURRY_S
        return look_again_after(attempt, boottime())

    async def _store(self) -> StoreOutcome:
        assert self._trainer is not None
        await self._trainer.clear()  # its folder is the runner's again: nobody changes what is stored
        return await self._means.storage.store(self.folder)

    async def _stored(self) -> StoreOutcome | None:
        """What came of storing its model; None where it was not to be stored. Nothing of it goes on."""
        if self._storing is not None:
            if self._storing.done():
                return self._storing.result()
            self._storing.cancel()
            await asyncio.wait([self._storing])
        elif not (self._ended_well and self._means.storage.wanted(self.folder)):
            return None
        late = boottime() >= self.attempt.deadline
        why = "the node lost touch with the cluster" if late else "the job was told to stop"
        return StoreOutcome(uri="", message=f"{why} before it was stored")

    def _lost_share(self) -> None:
        self.change(stopped(self.attempt, 0.0, boottime(), cause="SharingLost"))

    async def _conclude(self) -> None:
        """The end is on disk, and only then told."""
        trainer, cause = self._trainer, self.attempt.cause
        assert cause is not None, "every transition to Reaped sets one"
        stored = await self._stored()
        if trainer is not None:
            await trainer.clear()
            self._means.shapes.remember(self.folder)
        await self._means.sharing.leave(self.id)
        drop_inputs(self.folder)
        unfetched = self._unfetched()
        record = ExitRecord(
            assignment_id=self.id,
            cause=cause,
            exit_code=trainer.exit_code if trainer else ExitCode.FAILED if unfetched else None,
            signal=trainer.signal if trainer else None,
            started_at=self._start.began_at,
            ended_at=time.time(),
            start=self.start,
            stored=stored,
            memory_peak_bytes=self._memory_peak,
        )
        if stored is not None and stored.message is not None:
            self._note(f"the model was not stored: {stored.message}")
        if unfetched is not None:
            with contextlib.suppress(OSError):
                tell(self.folder, unfetched)
            self._note(str(unfetched))
        elif cause == "StartFailed" and self._starting is not None:
            self._note(f"the trainer did not start: {self._starting.exception()}")
        if cause == "OutOfHostMemory":
            used, asked = size_text(self._memory_peak or 0), size_text(self.attempt.request.memory_bytes)
            self._note(f"killed because the node's memory ran out: it used {used} and had asked for {asked}")
        while True:
            try:
                write_exit(self.folder, record)
                break
            except OSError as error:  # a full disk: the agent must not hear of an end that a restart would forget
                _log.error("end not written key=%s error=%s", self.attempt.request.key, error)
                await asyncio.sleep(_WRITE_AGAIN_S)
        self._output.look(final=True)
        self.exit = record
        if self._start.holds_gpus:
            self._means.pool.vacate(self.attempt.request.gpus)
        _log.info(
            "job reaped key=%s assignment=%s cause=%s exit_code=%s signal=%s",
            *(self.attempt.request.key, self.id, cause, record.exit_code, record.signal),
        )
        self._means.on_change()

    def _unfetched(self) -> NotFetched | None:
        """Why the job has no data; None when that was not what ended it."""
        if self.attempt.cause != "StartFailed" or self._starting is None or self._starting.cancelled():
            return None
        failure = self._starting.exception()
        return failure if isinstance(failure, NotFetched) else None

    def _log_change(self, before: Attempt) -> None:
        attempt = self.attempt
        facts = f"was={before.state} pid={self._trainer.pid if self._trainer else None}"
        if attempt.cause is not None:
            facts += f" cause={attempt.cause}"
        if before.state == "Starting" and self.start is not None:
            facts += f" start={self.start.mode} seconds={self.start.seconds:.3f}"
        _log.info("job %s key=%s assignment=%s %s", attempt.state.lower(), attempt.request.key, self.id, facts)

    def _note(self, sentence: str) -> None:
        """The job's log ends with a line of the runner, for its author."""
        with contextlib.suppress(OSError), os.fdopen(open_to_append(self.folder.log), "a") as file:
            file.write(f"cyxwiz-runner: {sentence}\n")
