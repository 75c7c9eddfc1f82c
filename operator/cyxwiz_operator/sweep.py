"""Finished jobs have left the watch: a list now and then deletes those whose time is up.

The same list completes the nodes' reputation after a restart: outcomes that were not written yet are in the jobs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from .clock import Now, seconds_since
from .cluster import ApiError, Cluster, Conflict, NotFound
from .job_stream import parse_job
from .telling import Teller
from .views import JobView

log = logging.getLogger(__name__)


async def sweep_for_ever(cluster: Cluster, teller: Teller, interval_s: float, clock: Callable[[], Now]) -> None:
    """A sweep every `interval_s`. Never returns."""
    while True:
        try:
            await sweep(cluster, teller, clock)
        except ApiError as error:
            log.warning("sweep broke off", extra={"error": error})
        await asyncio.sleep(interval_s)


async def sweep(cluster: Cluster, teller: Teller, clock: Callable[[], Now]) -> None:
    """Every finished job has been looked at once, and deleted when its ttlSecondsAfterFinished has passed."""
    async for item in cluster.finished_jobs():
        job = parse_job(item)
        if not isinstance(job, JobView):
            continue
        teller.remember_finished(job)
        if is_over(job, clock()) and teller.has_counted(job):  # else an outcome could be lost with it
            try:
                await cluster.delete_job(job)
            except (Conflict, NotFound):
                continue  # somebody else was faster
            log.info("deleted", extra={"job": job.key, "ttl_s": job.job.spec.ttl_seconds_after_finished})


def is_over(job: JobView, now: Now) -> bool:
    """The job has been finished for longer than it wants to be kept."""
    ttl_s = job.job.spec.ttl_seconds_after_finished
    age_s = seconds_since(job.status.finished_at, now.wall)
    return ttl_s is not None and age_s is not None and age_s >= ttl_s
