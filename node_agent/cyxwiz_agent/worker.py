"""Carries out what `attempt.decide` names, for one assignment: the only place where an attempt has effects."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

from pydantic import ValidationError

from cyxwiz_crds import Control, Failure, State, TrainingJob
from cyxwiz_kube import ApiError, NotFound, paths
from cyxwiz_protocol.runner_api import JobProcess, RunRequest

from . import attempt
from .admission import Refusal, refuse
from .attempt_files import AttemptFiles, WeightsGone
from .ending import Wish, ending_of
from .energy import counters, energy_text
from .execution_report import Surroundings, Telling, timestamp
from .facts import Facts
from .gpu_memory import AttemptMemory
from .gpu_room import GpuRoom
from .node import Node
from .report_writer import ReportWriter
from .reservation import Given, gpus_given, taken_by, with_gpus
from .runner_client import RunnerUnavailable
from .stall import StepWatch

log = logging.getLogger(__name__)

# A job's files are looked at this often; changes of state come by the runner's watch, at once.
LOOK_EVERY_S = 0.5
LOOK_FOR_MEMORY_EVERY_S = 0.1
"""A driver takes some tenths of a second to give back what a killed process held, and the retry waits for that."""
RETRY_S = 1.0


class Worker:
    """One assignment on this node, until it is over and told."""

    def __init__(self, job: TrainingJob, node: Node) -> None:
        assert job.status.assignment is not None
        self.assignment_id = job.status.assignment.id
        self.key = f"{job.metadata.namespace}/{job.metadata.name}"
        self.job: TrainingJob | None = job
        self.facts = Facts()
        self._node, self._lease, self._runner = node, node.lease, node.runner
        self._path = paths.training_job(job.metadata.namespace, job.metadata.name)
        self._uid = job.metadata.uid
        self._files = AttemptFiles(node.state, node.name, self.assignment_id)
        self._memory = AttemptMemory(self.key, node)
        self._reports = ReportWriter(node, job, self.assignment_id)
        self._steps = StepWatch()
        self._counters = self._files.kept_counters()
        self._confirmed_in = 0
        self._stopping = False
        self._handed_control = 0
        self._unsure = False
        self._lost_gpus: str | None = None
        self._wake = asyncio.Event()

    def see(self, job: TrainingJob) -> None:
        """The watch has shown the job. An older view than the last written one does no harm: the server decides."""
        self.job, self._unsure = job, False
        self._wake.set()

    def miss(self) -> None:
        """The job has left the watch: deleted, final or bound elsewhere. Only a GET can tell."""
        self._unsure = True
        self._wake.set()

    def wake(self) -> None:
        """The runner or the Lease has changed."""
        self._wake.set()

    async def run(self) -> None:
        """Until the attempt is over and told."""
        while True:
            self._wake.clear()
            try:
                action = attempt.decide(await self._look())
                if isinstance(action, attempt.Leave):
                    await self._leave()
                    return
                await self._act(action)
            except ApiError as error:
                log.warning("%s: %s, trying again", self.key, error)
                await asyncio.sleep(RETRY_S)
            except RunnerUnavailable as error:
                log.warning("%s: runner: %s, trying again", self.key, error)
                await asyncio.sleep(RETRY_S)
            try:
                async with asyncio.timeout(LOOK_FOR_MEMORY_EVERY_S if self.memory_is_coming else LOOK_EVERY_S):
                    await self._wake.wait()
            except TimeoutError:
                pass

    @property
    def is_stalled(self) -> bool:
        """It does no step, and should."""
        return self._steps.stall is not None

    @property
    def _process(self) -> JobProcess | None:
        return self._runner.job(self.assignment_id)

    async def _look(self) -> attempt.Picture:
        if self._unsure:
            await self._look_up()
        for record in self._files.new_records():
            self.facts = self.facts.after(record)
        process = self._process
        if self.job is not None:
            self._steps.look(self.facts, process, self.job.spec.batch_size)
            if process is not None and process.state != "Reaped":
                self._lost_gpus = taken_by(self.job, process.gpus, self._node.pods) or self._lost_gpus
        given = self._given() if process is None else None
        room = await self._memory.room((given and given.gpus) or (), process, self._live())
        return attempt.Picture(
            assignment_id=self.assignment_id,
            job=self.job,
            process=process,
            confirmed=self._confirmed_in == self._lease.epoch,
            lease_valid=self._lease.valid,
            runner_answers=self._runner.snapshot is not None,
            stopping=self._stopping,
            refusal=self._refusal(given, room) if given else None,
            room_is_coming=self._node.something_leaves(),
            progress_due=self._reports.progress_due or self._has_obeyed(),
            memory_is_back=self._memory.is_back(process, room),
            waits_for_gpus=given is not None and given.gpus is None,
            lost_gpus=self._lost_gpus is not None,
            handed_control=self._handed_control,
        )

    @property
    def memory_is_coming(self) -> bool:
        """Its processes are gone, and what they held of GPUs has not been seen free again."""
        return self._memory.is_coming(self._process)

    def _live(self) -> list[JobProcess]:
        """Attempts of this node that have processes."""
        snapshot = self._runner.snapshot
        return [job for job in snapshot.jobs if job.state != "Reaped"] if snapshot else []

    def _given(self) -> Given | None:
        """The GPUs it may have; None when it is not assigned any more."""
        if self.job is None or self.job.status.assignment is None:
            return None
        node = self._node
        return gpus_given(self.job, node.gpu_mode, node.pods, {gpu.uuid for gpu in node.devices().gpus})

    def _refusal(self, given: Given, room: GpuRoom) -> Refusal | None:
        """Why it could not start now on these GPUs."""
        if self.job is None or given.refusal or given.gpus is None:
            return given.refusal
        return refuse(self.job.spec, given.gpus, self._node.capacity(), self._live(), room)

    async def _act(self, action: attempt.Action) -> None:
        match action:
            case attempt.Confirm():
                await self._confirm()
            case attempt.Start():
                await self._start()
            case attempt.Reject(refusal):
                log.info("%s rejected: %s", self.key, refusal.message)
                await self._report(Telling(State.REJECTED, refusal.reason, refusal.message))
            case attempt.Stop(grace_s):
                log.info("%s told to stop within %.0f s", self.key, grace_s)
                await self._runner.stop(self.assignment_id, grace_s)
                self._stopping = True
            case attempt.Steer(control):
                self._steer(control)
            case attempt.ReportProgress():
                self._reports.progress_told()
                await self._report(Telling(State.RUNNING))
            case attempt.ReportEnd(wish):
                await self._report_end(wish)
            case attempt.Wait() | attempt.Leave():
                pass

    async def _start(self) -> None:
        """The runner hears of the job only after the API server has accepted Running in the present epoch.

        That answer is as good as a GET: the fence refuses a report from any but the current assignment.
        """
        epoch = self._lease.epoch
        accepted = await self._report(Telling(State.RUNNING, started_at=timestamp(time.time())))
        if not accepted or self._lease.epoch != epoch or not self._lease.valid or self.job is None:
            return
        self._confirmed_in = epoch
        if not attempt.is_mine(self.job, self.assignment_id) or attempt.wish_for(self.job) is not None:
            return
        if not await self._has_weights(self.job):
            return
        given = self._given()
        if given is None or given.gpus is None or given.refusal:
            return  # its pod went meanwhile
        job = with_gpus(self.job, given.gpus)
        self._files.write_order(job, simulated=self._node.devices().simulated, volumes=self._node.volumes)
        self._handed_control = self.job.spec.control.generation if self.job.spec.control else 0
        answer = await self._runner.run(self._request(job))
        if answer.ok:
            log.info("%s started, attempt %s", self.key, job.status.attempt)
            self._node.metrics.started.inc()
            await self._read_counters(job)
            self._reports.progress_told(again_at_once=True)
        elif answer.reason == "AlreadyEnded":
            await self._report(Telling(State.FAILED, Failure.EVICTED, "its processes had already ended here"))
        else:
            log.warning("%s not started: %s %s", self.key, answer.reason, answer.message)

    async def _read_counters(self, job: TrainingJob) -> None:
        """What its GPUs' energy counters stand at is kept, where it has GPUs of its own."""
        assert job.status.assignment is not None
        if not job.status.assignment.gpus or job.spec.resources.gpu_memory is not None:
            return
        self._counters = await self._node.energy()
        try:
            self._files.keep_counters({gpu: self._counters[gpu] for gpu in job.status.assignment.gpus})
        except (OSError, KeyError) as error:  # its own folder, which it may have spoilt; a GPU without a counter
            log.info("%s: its energy will not be known after a restart of this agent: %s", self.key, error)

    async def _has_weights(self, job: TrainingJob) -> bool:
        """True when what it starts from lies in its folder, or it starts from nothing; else its end is reported."""
        assignment = job.status.assignment
        assert assignment is not None
        if assignment.init_from is None:
            return True
        try:
            await asyncio.to_thread(self._files.bring_weights, assignment.init_from)
        except (WeightsGone, OSError) as error:
            message = str(error) if isinstance(error, WeightsGone) else f"the weights could not be copied: {error}"
            failure = Failure.USER_ERROR if isinstance(error, WeightsGone) else Failure.EVICTED
            await self._report(Telling(State.FAILED, failure, message))
            return False
        return True

    def _request(self, job: TrainingJob) -> RunRequest:
        resources, assignment = job.spec.resources, job.status.assignment
        assert assignment is not None
        return RunRequest(
            assignment_id=self.assignment_id,
            job_uid=self._uid,
            attempt=job.status.attempt or 1,
            key=self.key,
            gpus=assignment.gpus,
            gpu_memory_bytes=resources.gpu_memory_bytes,
            cpus=resources.cpus,
            memory_bytes=resources.memory_bytes,
            deadline=self._lease.deadline,
        )

    def _steer(self, control: Control) -> None:
        """The trainer finds the order in its folder. Given again after a restart of the agent, it changes nothing."""
        try:
            self._files.write_control(control)
        except OSError as error:  # its own folder, which it may have spoilt
            log.warning("%s: spec.control not handed over: %s", self.key, error)
        else:
            log.info("%s: spec.control %d handed over", self.key, control.generation)
        self._handed_control = control.generation

    def _has_obeyed(self) -> bool:
        """The trainer has acknowledged the newest order, and that was not reported yet."""
        taken = self.facts.control.generation if self.facts.control else None
        return taken == self._handed_control and taken != self._reports.control_told

    async def _confirm(self) -> None:
        """Its process may compute on in the present epoch, if the assignment still stands.

        By a write and not a GET: an operator that has fenced this node and is about to bind the job elsewhere carries
        the version it has read. After this write that bind is a 409, and after that bind this write is a 422.
        """
        epoch = self._lease.epoch
        if await self._report(Telling(State.RUNNING), even_if_unchanged=True) and self._lease.epoch == epoch:
            self._confirmed_in = epoch
            await self.renew()

    async def _look_up(self) -> None:
        """The job as the API server has it now."""
        try:
            job = TrainingJob.model_validate(await self._node.kube.get(self._path))
            self.job = job if job.metadata.uid == self._uid else None
        except NotFound:
            self.job = None
        except ValidationError as error:
            log.warning("%s cannot be read, its process goes on unconfirmed: %s", self.key, error)
            return
        self._unsure = False

    async def renew(self) -> None:
        """The process may compute until the Lease's deadline, if its assignment was confirmed in this epoch."""
        if self._confirmed_in != self._lease.epoch or not self._lease.valid:
            return
        process = self._process
        if process is not None and process.state != "Reaped":  # also while it ends: it may be storing its model
            await self._runner.renew({self.assignment_id: self._lease.deadline})

    async def _report_end(self, wish: Wish | None) -> None:
        process = self._process
        if wish is None and self._lost_gpus:
            wish = Wish(State.YIELDED, Failure.EVICTED, self._lost_gpus, 0.0)
        if process is None or process.exit is None:
            over = Telling(State.CANCELLED) if wish is None else Telling(wish.state, wish.reason, wish.message)
            await self._report(over)
            return
        unusable = self._node.devices().unusable
        fault = next((f"{gpu} is {unusable[gpu]}" for gpu in process.gpus if gpu in unusable), None)
        ending = ending_of(process.exit, self.facts, wish, self._files.log_tail(), fault)
        ended_at = timestamp(process.exit.ended_at)
        message = "; ".join(filter(None, (ending.message, self._memory.note))) or None
        telling = Telling(ending.state, ending.reason, message, ended_at=ended_at)
        joules = await self._node.energy() if self._counters else None
        if await self._report(telling, joules=joules):
            log.info("%s ended: %s %s", self.key, ending.state, ending.message or "")
            self._node.metrics.ended.labels(ending.state, ending.reason or "").inc()

    async def _report(
        self, telling: Telling, *, even_if_unchanged: bool = False, joules: Mapping[str, int] | None = None
    ) -> bool:
        """True when the API server has accepted the report; False when it is not ours to make any more.

        `joules` are energy counters newer than those of the last look.
        """
        around = self._surroundings(joules)
        job = await self._reports.send(
            telling, self.job, self.facts, self._process, around, even_if_unchanged=even_if_unchanged
        )
        if job is None:
            self._unsure = True
            return False
        self.job = job
        return True

    def _surroundings(self, joules: Mapping[str, int] | None) -> Surroundings:
        devices, stall = self._node.devices(), self._steps.stall
        energy = None
        if self.job is not None and self._process is not None:
            gpus = self._process.gpus
            now = joules or counters(devices, gpus)
            energy = energy_text(self.job.spec, devices, gpus, self._counters, now)
        return Surroundings(devices, energy, timestamp(stall.since) if stall else None, self._reserved())

    def _reserved(self) -> tuple[str, ...] | None:
        """The GPUs that Kubernetes gave its pod; None without a reservation."""
        if self.job is None or self.job.status.assignment is None or self.job.status.assignment.reservation is None:
            return None
        if self._process is not None:
            return tuple(self._process.gpus)
        given = self._given()
        return given.gpus if given else None

    async def _leave(self) -> None:
        if self._process is not None:
            await self._runner.forget(self.assignment_id)
