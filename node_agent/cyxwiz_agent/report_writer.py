"""Sends the reports of one assignment: numbered, as patches, nothing twice."""

from __future__ import annotations

import asyncio
import logging
import math
import time

from cyxwiz_crds import Execution, State, TrainingJob
from cyxwiz_kube import Conflict, Invalid, NotFound, paths
from cyxwiz_protocol.runner_api import JobProcess

from .execution_report import Surroundings, Telling, execution_report, is_same, patch_of
from .facts import Facts
from .node import Node

log = logging.getLogger(__name__)

REFUSED_AGAIN_S = 1.0


class ReportWriter:
    """The one writer of `status.execution` while `assignment_id` is the job's."""

    def __init__(self, node: Node, job: TrainingJob, assignment_id: str) -> None:
        self._node = node
        self._assignment_id = assignment_id
        self._key = f"{job.metadata.namespace}/{job.metadata.name}"
        self._path = paths.status(paths.training_job(job.metadata.namespace, job.metadata.name))
        self._sequence = 0
        self._reported: Execution | None = None
        self._began = time.monotonic()
        self._progress_at = -math.inf

    @property
    def control_told(self) -> int | None:
        """Generation of the newest order of spec.control that was reported as taken up."""
        control = self._reported.control if self._reported else None
        return control.generation if control else None

    @property
    def progress_due(self) -> bool:
        """Whether progress may be told again."""
        now = time.monotonic()
        return now >= self._progress_at + self._node.pace.interval_s(now - self._began)

    def progress_told(self, again_at_once: bool = False) -> None:
        """The next progress is due after an interval, or with the next look."""
        self._progress_at = -math.inf if again_at_once else time.monotonic()

    async def send(
        self,
        telling: Telling,
        job: TrainingJob | None,
        facts: Facts,
        process: JobProcess | None,
        around: Surroundings,
        *,
        even_if_unchanged: bool = False,
    ) -> TrainingJob | None:
        """The job as the API server has it with this report; None when the report is not ours to make any more.

        `job` is the job as last seen. Raises ApiError when the server could not be asked.
        """
        seen = job.status.execution if job else None
        before = seen if seen is not None and seen.assignment_id == self._assignment_id else None
        report = execution_report(
            telling,
            assignment_id=self._assignment_id,
            node=self._node.name,
            sequence=max(self._sequence, before.sequence if before else 0) + 1,
            started_at=before.started_at if before else None,
            facts=facts,
            process=process,
            around=around,
        )
        if self._node.links is not None:
            report = self._node.links.added(report, facts, time.time())
        unchanged = self._reported is not None and is_same(report, self._reported)
        if job is not None and telling.state == State.RUNNING and unchanged and not even_if_unchanged:
            return job
        sent = time.monotonic()
        try:
            patch = {"status": {"execution": patch_of(before, report)}}
            answer = await self._node.kube.merge_patch(self._path, patch)
        except (NotFound, Conflict, Invalid) as error:
            self._node.metrics.refused.inc()
            log.info("%s: report %s refused: %s", self._key, telling.state, error.message)
            if isinstance(error, Invalid):
                # Deciding again from the same picture would repeat the refused report at once.
                await asyncio.sleep(REFUSED_AGAIN_S)
            return None
        self._node.pace.measured(time.monotonic() - sent)
        self._sequence = report.sequence
        self._reported = report
        self._node.metrics.reports.labels(telling.state).inc()
        return TrainingJob.model_validate(answer)
