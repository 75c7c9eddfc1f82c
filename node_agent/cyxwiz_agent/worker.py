"""Carries out what `attempt.decide` names, for one assignment: the only place where an attempt has effects."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from cyxwiz_crds import Execution, Failure, State, TrainingJob
from cyxwiz_crds.training_job import RestoreFrom
from cyxwiz_kube import ApiError, Conflict, Invalid, Kube, NotFound, paths
from cyxwiz_protocol.job_folder import JobFolder, Tail, open_regular, write_json
from cyxwiz_protocol.order import JobOrder
from cyxwiz_protocol.records import parse_record
from cyxwiz_protocol.runner_api import RunRequest

from . import attempt
from .admission import Capacity, GpuRoom, refuse
from .devices import Devices
from .ending import LOG_LINES_SHOWN, Wish, ending_of
from .execution_report import Telling, execution_report, is_same, patch_of, timestamp
from .facts import Facts
from .lease import NodeLease
from .metrics import Metrics
from .pace import Pace
from .runner_client import RunnerClient, RunnerUnavailable

log = logging.getLogger(__name__)

# A job's files are looked at this often; changes of state come by the runner's watch, at once.
LOOK_EVERY_S = 0.5
RETRY_S = 1.0


class Worker:
    """One assignment on this node, until it is over and told."""

    def __init__(
        self,
        job: TrainingJob,
        *,
        kube: Kube,
        lease: NodeLease,
        runner: RunnerClient,
        capacity: Callable[[], Capacity],
        devices: Callable[[], Devices],
        leaving: Callable[[], bool],
        draining: Callable[[], bool],
        state: Path,
        node: str,
        pace: Pace,
        metrics: Metrics,
    ) -> None:
        assert job.status.assignment is not None
        self.assignment_id = job.status.assignment.id
        self.key = f"{job.metadata.namespace}/{job.metadata.name}"
        self.job: TrainingJob | None = job
        self._path = paths.training_job(job.metadata.namespace, job.metadata.name)
        self._uid = job.metadata.uid
        self._kube, self._lease, self._runner = kube, lease, runner
        self._capacity, self._devices = capacity, devices
        self._leaving, self._draining = leaving, draining
        self._state, self._node = state, node
        self._pace, self._metrics = pace, metrics
        self._folder = JobFolder.of(state, self.assignment_id)
        self._tail = Tail(self._folder.metrics)
        self.facts = Facts()
        self._sequence = 0
        self._confirmed_in = 0
        self._stopping = False
        self._unsure = False
        self._reported: Execution | None = None
        self._next_report = 0.0
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
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _look(self) -> attempt.Picture:
        if self._unsure:
            await self._look_up()
        for line in self._tail.lines():
            record = parse_record(line)
            if record is not None:
                self.facts = self.facts.after(record)
        process = self._runner.job(self.assignment_id)
        refusal = None
        if process is None and self.job is not None and self.job.status.assignment is not None:
            present = self._runner.snapshot.jobs if self._runner.snapshot else []
            live = [job for job in present if job.state != "Reaped"]
            room = GpuRoom.of(self._devices().gpus, self._runner.snapshot.sharing if self._runner.snapshot else None)
            refusal = refuse(self.job.spec, self.job.status.assignment.gpus, self._capacity(), live, room)
        return attempt.Picture(
            assignment_id=self.assignment_id,
            job=self.job,
            process=process,
            confirmed=self._confirmed_in == self._lease.epoch,
            lease_valid=self._lease.valid,
            runner_answers=self._runner.snapshot is not None,
            stopping=self._stopping,
            refusal=refusal,
            room_is_coming=self._leaving(),
            draining=self._draining(),
            progress_due=time.monotonic() >= self._next_report,
        )

    async def _act(self, action: attempt.Action) -> None:
        match action:
            case attempt.Confirm():
                await self._confirm()
            case attempt.Start():
                await self._start()
            case attempt.Reject(refusal):
                log.info("%s rejected: %s", self.key, refusal.message)
                await self._report(State.REJECTED, reason=refusal.reason, message=refusal.message)
            case attempt.Stop(grace_s):
                log.info("%s told to stop within %.0f s", self.key, grace_s)
                await self._runner.stop(self.assignment_id, grace_s)
                self._stopping = True
            case attempt.ReportProgress():
                self._next_report = time.monotonic() + self._pace.interval_s
                await self._report(State.RUNNING)
            case attempt.ReportEnd(wish):
                await self._report_end(wish)
            case attempt.Wait() | attempt.Leave():
                pass

    async def _start(self) -> None:
        """The runner hears of the job only after the API server has accepted Running in the present epoch.

        That answer is as good as a GET: the fence refuses a report from any but the current assignment.
        """
        epoch = self._lease.epoch
        accepted = await self._report(State.RUNNING, started_at=timestamp(time.time()))
        if not accepted or self._lease.epoch != epoch or not self._lease.valid or self.job is None:
            return
        self._confirmed_in = epoch
        if not attempt.is_mine(self.job, self.assignment_id) or attempt.wish_for(self.job) is not None:
            return
        self._write_order(self.job)
        resources = self.job.spec.resources
        assignment = self.job.status.assignment
        assert assignment is not None
        answer = await self._runner.run(
            RunRequest(
                assignment_id=self.assignment_id,
                job_uid=self._uid,
                attempt=self.job.status.attempt or 1,
                key=self.key,
                gpus=assignment.gpus,
                gpu_memory_bytes=resources.gpu_memory_bytes,
                cpus=resources.cpus,
                memory_bytes=resources.memory_bytes,
                deadline=self._lease.deadline,
            )
        )
        if answer.ok:
            log.info("%s started, attempt %s", self.key, self.job.status.attempt)
            self._metrics.started.inc()
            self._next_report = 0.0
        elif answer.reason == "AlreadyEnded":
            await self._report(State.FAILED, reason=Failure.EVICTED, message="its processes had already ended here")
        else:
            log.warning("%s not started: %s %s", self.key, answer.reason, answer.message)

    def _write_order(self, job: TrainingJob) -> None:
        assignment = job.status.assignment
        assert assignment is not None
        self._folder.path.mkdir(parents=True, exist_ok=True)
        spec, gpus = job.spec, assignment.gpus
        if gpus and self._devices().simulated:
            # Nothing can compute on them: the job keeps them, and trains on the CPU.
            spec = spec.model_copy(update={"resources": spec.resources.model_copy(update={"gpus": 0})})
            gpus = []
        order = JobOrder(
            assignment_id=self.assignment_id,
            namespace=job.metadata.namespace,
            name=job.metadata.name,
            attempt=job.status.attempt or 1,
            spec=spec,
            gpus=gpus,
            restore_from=self._restore_folder(assignment.restore_from),
        )
        write_json(self._folder.order, order.wire())

    def _restore_folder(self, restore: RestoreFrom | None) -> str | None:
        """The checkpoint's folder on this machine; None when it lies elsewhere or is gone."""
        prefix = f"node://{self._node}/"
        if restore is None or not restore.uri.startswith(prefix):
            return None
        jobs = (self._state / "jobs").resolve()
        folder = (jobs / restore.uri.removeprefix(prefix)).resolve()
        return str(folder) if folder.is_relative_to(jobs) and folder.is_dir() else None

    async def _confirm(self) -> None:
        """Its process may compute on in the present epoch, if the assignment still stands.

        By a write and not a GET: an operator that has fenced this node and is about to bind the job elsewhere carries
        the version it has read. After this write that bind is a 409, and after that bind this write is a 422.
        """
        epoch = self._lease.epoch
        if await self._report(State.RUNNING, even_if_unchanged=True) and self._lease.epoch == epoch:
            self._confirmed_in = epoch
            await self.renew()

    async def _look_up(self) -> None:
        """The job as the API server has it now."""
        try:
            job = TrainingJob.model_validate(await self._kube.get(self._path))
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
        process = self._runner.job(self.assignment_id)
        if process is not None and process.state not in ("Ending", "Reaped"):
            await self._runner.renew({self.assignment_id: self._lease.deadline})

    async def _report_end(self, wish: Wish | None) -> None:
        process = self._runner.job(self.assignment_id)
        if process is None or process.exit is None:
            state, reason, message = State.CANCELLED, None, None
            if wish is not None:
                state, reason, message = wish.state, wish.reason, wish.message
            await self._report(state, reason=reason, message=message)
            return
        unusable = self._devices().unusable
        fault = next((f"{gpu} is {unusable[gpu]}" for gpu in process.gpus if gpu in unusable), None)
        ending = ending_of(process.exit, self.facts, wish, self._log_tail(), fault)
        ended_at = timestamp(process.exit.ended_at)
        if await self._report(ending.state, reason=ending.reason, message=ending.message, ended_at=ended_at):
            log.info("%s ended: %s %s", self.key, ending.state, ending.message or "")
            self._metrics.ended.labels(ending.state, ending.reason or "").inc()

    async def _report(
        self,
        state: str,
        *,
        reason: str | None = None,
        message: str | None = None,
        started_at: str | None = None,
        ended_at: str | None = None,
        even_if_unchanged: bool = False,
    ) -> bool:
        """True when the API server has accepted the report; False when it is not ours to make any more."""
        seen = self.job.status.execution if self.job else None
        before = seen if seen is not None and seen.assignment_id == self.assignment_id else None
        report = execution_report(
            Telling(state, reason, message, started_at, ended_at),
            assignment_id=self.assignment_id,
            node=self._node,
            sequence=max(self._sequence, before.sequence if before else 0) + 1,
            started_at=before.started_at if before else None,
            facts=self.facts,
            process=self._runner.job(self.assignment_id),
            simulated=self._devices().simulated,
        )
        unchanged = self._reported is not None and is_same(report, self._reported)
        if state == State.RUNNING and unchanged and not even_if_unchanged:
            return True
        patch = patch_of(before, report)
        sent = time.monotonic()
        try:
            answer = await self._kube.merge_patch(paths.status(self._path), {"status": {"execution": patch}})
        except (NotFound, Conflict, Invalid) as error:
            self._metrics.refused.inc()
            log.info("%s: report %s refused: %s", self.key, state, error.message)
            if isinstance(error, Invalid):
                # Deciding again from the same picture would repeat the refused report at once.
                await asyncio.sleep(RETRY_S)
            self._unsure = True
            return False
        self._pace.measured(time.monotonic() - sent)
        self._sequence = report.sequence
        self._reported = report
        self.job = TrainingJob.model_validate(answer)
        self._metrics.reports.labels(state).inc()
        return True

    async def _leave(self) -> None:
        if self._runner.job(self.assignment_id) is not None:
            await self._runner.forget(self.assignment_id)

    def _log_tail(self) -> str:
        """The last lines the job printed, as one line of bounded length."""
        try:
            with os.fdopen(open_regular(self._folder.log), "rb") as file:
                file.seek(max(0, file.seek(0, 2) - 4096))
                lines = file.read().decode(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
        except OSError:
            return ""
        return " | ".join(line.strip() for line in lines if line.strip())[-800:]
