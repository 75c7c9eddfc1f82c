"""Every attempt this runner knows, and the orders about them. What an order causes happens in `job.py`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from cyxwiz_protocol.clock import boottime
from cyxwiz_protocol.job_folder import JobFolder, write_deadline
from cyxwiz_protocol.records import ExitRecord
from cyxwiz_protocol.runner_api import Answer, JobProcess, RunRequest

from .attempts import SUPERSEDED_GRACE_S, Attempt, refusal, renewed, stopped
from .job import Job
from .journal import Claim
from .memory_policy import Use
from .output import LOOK_EVERY_S
from .process_tree import all_processes
from .starting import Means

_OK = Answer(ok=True)
_log = logging.getLogger(__name__)


class Jobs:
    """The attempts by assignment id. Every order may be repeated; what it causes is seen in `processes`."""

    def __init__(self, state: Path, means: Means) -> None:
        self._state = state
        self._means = means
        self._jobs: dict[str, Job] = {}
        self._keepers: set[asyncio.Task[None]] = set()

    def processes(self) -> list[JobProcess]:
        """Every attempt that was not forgotten, oldest first."""
        return [job.process() for job in self._jobs.values()]

    def remember(self, ended: Iterable[tuple[Claim, ExitRecord]]) -> None:
        """Attempts of earlier runners are told of until the agent has heard."""
        for claim, record in ended:
            request = claim.request
            attempt = Attempt(request, request.deadline, state="Reaped", cause=record.cause)
            job = Job(attempt, JobFolder.of(self._state, request.assignment_id), self._means)
            job.exit = record
            self._jobs[job.id] = job

    def run(self, request: RunRequest) -> Answer:
        """The attempt is claimed, on disk first. Raises ValueError for an id that is no name, OSError."""
        folder = JobFolder.of(self._state, request.assignment_id)
        if request.assignment_id in self._jobs:
            return self.renew({request.assignment_id: request.deadline})
        if folder.exit.exists():
            return Answer(ok=False, reason="AlreadyEnded", message=f"{folder.exit.name} tells how it ended")
        if not folder.order.is_file():
            return Answer(ok=False, reason="NoOrder", message=f"there is no {folder.order.name} in its folder")
        now = boottime()
        refused = refusal(request, (job.attempt for job in self._jobs.values()), now)
        if refused is not None:
            return refused
        self._means.journal.write(request)
        write_deadline(folder, request.deadline)
        for lower in self._lower(request):
            lower.change(stopped(lower.attempt, SUPERSEDED_GRACE_S, now))
        job = Job(Attempt(request, request.deadline), folder, self._means)
        self._jobs[job.id] = job
        keeper = self._means.tasks.create_task(self._keep(job))
        self._keepers.add(keeper)
        keeper.add_done_callback(self._keepers.discard)
        _log.info("job claimed key=%s assignment=%s attempt=%d", request.key, job.id, request.attempt)
        self._means.on_change()
        return _OK

    def stop(self, assignment_id: str, grace_s: float) -> Answer:
        """The attempt is on its way to its end."""
        job = self._jobs.get(assignment_id)
        if job is None:
            return _unknown([assignment_id])
        job.change(stopped(job.attempt, grace_s, boottime()))
        return _OK

    def renew(self, deadlines: dict[str, float]) -> Answer:
        """Those attempts that are known and not ended may compute until then."""
        for assignment_id in deadlines.keys() & self._jobs.keys():
            job = self._jobs[assignment_id]
            later = renewed(job.attempt, deadlines[assignment_id])
            if later != job.attempt and later.state != "Reaped":
                with contextlib.suppress(FileNotFoundError):  # its folder was removed: it reads no deadline any more
                    write_deadline(job.folder, later.deadline)  # first: a thawed trainer looks at once
                job.change(later)
        unknown = sorted(deadlines.keys() - self._jobs.keys())
        return _unknown(unknown) if unknown else _OK

    def forget(self, assignment_id: str) -> Answer:
        """The ended attempt is dropped; one that was dropped before, or never was, stays so."""
        job = self._jobs.get(assignment_id)
        if job is None:
            return _OK
        if job.exit is None:
            return Answer(ok=False, reason="BadRequest", message=f"it is {job.process().state}, not Reaped")
        self._means.journal.drop(assignment_id)
        del self._jobs[assignment_id]
        self._means.on_change()
        return _OK

    async def follow_output(self) -> None:
        """For ever: what jobs print is on the runner's own output too."""
        while True:
            for job in self._jobs.values():
                if job.has_processes:
                    job.follow()
            await asyncio.sleep(LOOK_EVERY_S)

    def memory(self) -> list[Use]:
        """What each job with processes uses and asked for."""
        processes = list(all_processes())
        return [
            Use(job.id, job.measure_memory(processes), job.attempt.request.memory_bytes, job.attempt.cause is not None)
            for job in self._jobs.values()
            if job.has_processes
        ]

    def end_for_memory(self, assignment_id: str) -> None:
        """The attempt is killed, because the node's memory runs out."""
        job = self._jobs[assignment_id]
        job.change(stopped(job.attempt, 0.0, boottime(), cause="OutOfHostMemory"))

    async def end_all(self, grace_s: float) -> None:
        """Every attempt is reaped. A second call meanwhile may shorten the grace."""
        now = boottime()
        for job in self._jobs.values():
            job.change(stopped(job.attempt, grace_s, now, cause="RunnerRestarted"))
        await asyncio.gather(*self._keepers)

    async def _keep(self, job: Job) -> None:
        await job.keep(lambda: not any(self._lower(job.attempt.request)))
        for other in self._jobs.values():
            other.look_again()  # a higher attempt may have waited for this one

    def _lower(self, request: RunRequest) -> Iterator[Job]:
        """Attempts of the same job that were bound earlier and have not ended."""
        for job in self._jobs.values():
            known = job.attempt.request
            if known.job_uid == request.job_uid and known.attempt < request.attempt and job.exit is None:
                yield job


def _unknown(assignment_ids: list[str]) -> Answer:
    return Answer(ok=False, reason="UnknownAssignment", message=f"not known here: {', '.join(assignment_ids)}")
