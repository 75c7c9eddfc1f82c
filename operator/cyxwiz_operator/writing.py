"""Writes job statuses: a few at a time, each assumed once written, each refusal waited out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from .clock import Now
from .cluster import ApiError, Cluster, Conflict, NotFound, Unavailable
from .fencing import Fencing
from .ledger import Ledger
from .lifecycle import StatusChange
from .measuring import count_change
from .metrics import Metrics
from .views import JobView

log = logging.getLogger(__name__)

# How long a job is left alone after a refused write, when the watch brings nothing newer meanwhile.
AFTER_CONFLICT_S = 5.0
AFTER_OUTAGE_S = 1.0
AFTER_REFUSAL_S = 30.0


class Writer:
    """The way of a `StatusChange` to the API server."""

    def __init__(
        self,
        cluster: Cluster,
        ledger: Ledger,
        fencing: Fencing,
        metrics: Metrics,
        clock: Callable[[], Now],
        writing: dict[str, JobView],
        written: Callable[[StatusChange, JobView], None],
        parallel: int,
    ) -> None:
        self._cluster = cluster
        self._ledger = ledger
        self._fencing = fencing
        self._metrics = metrics
        self._clock = clock
        self._writing = writing
        self._written = written
        self._parallel = parallel

    async def write_all(
        self, changes: Sequence[StatusChange], kind: str, gives_way: Callable[[], bool], after_s: float = 0.0
    ) -> bool:
        """Every change has been written, or its job set aside; False when `after_s` was over and the rest gave way."""
        left = iter(changes)
        until = self._clock().boot + after_s

        async def worker() -> None:
            for change in left:
                await self.write(change, kind)
                if gives_way() and self._clock().boot >= until:
                    return  # what is left is due again in the next pass

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._parallel, len(changes))):
                group.create_task(worker())
        return next(left, None) is None

    async def write(self, change: StatusChange, kind: str) -> None:
        """The change is written, assumed and told; or its job is left alone until the watch brings a newer one."""
        job = change.job
        try:
            if (left := _node_left(change)) and not await self._fencing.may_let_go(left, self._clock()):
                self._ledger.set_aside(job, self._clock().boot + AFTER_CONFLICT_S)
                return
            self._writing[job.uid] = change.after
            after = await self._cluster.write_status(change, kind)
        except (Conflict, NotFound):
            self._ledger.set_aside(job, self._clock().boot + AFTER_CONFLICT_S)
        except Unavailable as error:
            log.warning("write failed", extra={"job": job.key, "change": change.what, "error": error})
            now = self._clock()
            self._fencing.blind(now)
            self._ledger.set_aside(job, now.boot + AFTER_OUTAGE_S)
        except ApiError as error:
            log.error("write refused", extra={"job": job.key, "change": change.what, "error": error})
            self._ledger.set_aside(job, self._clock().boot + AFTER_REFUSAL_S)
        else:
            self._ledger.assume(job, after)
            self._written(change, after)
            self._count(change, after)
        finally:
            self._writing.pop(job.uid, None)

    def _count(self, change: StatusChange, after: JobView) -> None:
        if change.what != "queued":
            log.info(change.what, extra=_facts(change, after))
        count_change(self._metrics, change, self._clock())


def _node_left(change: StatusChange) -> str | None:
    """The node that loses the job by this change, if one does."""
    before, then = change.job.status.assignment, change.status.assignment
    return before.node if before and (then is None or then.id != before.id) else None


def _facts(change: StatusChange, after: JobView) -> dict[str, object]:
    assignment = after.status.assignment
    facts: dict[str, object] = {"job": after.key, "attempt": after.attempt, "reason": after.status.reason}
    if assignment:
        facts |= {"node": assignment.node, "gpus": len(assignment.gpus)}
    if change.outcome:
        facts["outcome"] = change.outcome
    return facts
