"""Looks up the jobs that others start from.

A job that has finished has left the watch, so its weights are looked up with a GET: once for each job that somebody
waits to start from, and again once that is a while ago.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Protocol

from pydantic import ValidationError

from cyxwiz_crds import TrainingJob
from cyxwiz_kube import ApiError

from .views import JobView
from .weights import Key, Ready, Source, source_in, wanted_by

log = logging.getLogger(__name__)

KNOWN_FOR_S = 10.0
LOOKUPS_AT_ONCE = 20
"""Per pass: a thousand jobs that each wait for another must not hold up the rest."""


class Cluster(Protocol):
    """Whoever can look a job up (`cluster.Cluster`)."""

    async def read_job(self, namespace: str, name: str) -> TrainingJob | None: ...


class Sources:
    """What was found, for as long as somebody waits for it."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._found: dict[Key, tuple[Source, float]] = {}

    async def look(self, jobs: Iterable[JobView], boot: float) -> Mapping[Key, Source]:
        """Of every job that one of `jobs` waits to start from. What was not looked up yet is not there."""
        jobs = list(jobs)
        wanted = {key for job in jobs if (job.is_pending or job.is_question) and (key := wanted_by(job))}
        self._found = {key: found for key, found in self._found.items() if key in wanted}
        if not wanted:
            return {}
        live = {(job.job.metadata.namespace, job.job.metadata.name): job for job in jobs if not job.is_final}
        for key in wanted & live.keys():
            self._found[key] = source_in(live[key].job, key[1]), boot
        stale = [key for key in wanted - live.keys() if not self._is_fresh(key, boot)]
        for namespace, name in sorted(stale)[:LOOKUPS_AT_ONCE]:
            try:
                base = await self._cluster.read_job(namespace, name)
            except (ApiError, ValidationError) as error:
                log.warning("cannot look up weights", extra={"job": f"{namespace}/{name}", "error": error})
                continue
            self._found[namespace, name] = source_in(base, name), boot
        return {key: source for key, (source, _) in self._found.items()}

    def _is_fresh(self, key: Key, boot: float) -> bool:
        """A job that was seen unfinished and has left the watch has changed."""
        source, at = self._found.get(key, (None, 0.0))
        if source is None or boot - at > KNOWN_FOR_S:
            return False
        return isinstance(source, Ready) or source.for_good or source.absent
