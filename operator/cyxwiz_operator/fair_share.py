"""Keeps the namespaces' usage where a restart finds it: one ConfigMap, written at most once a minute."""

from __future__ import annotations

import logging

from .clock import Now
from .cluster import ApiError, Cluster, Conflict, NotFound
from .scheduling.queueing import Pool
from .scheduling.usage import Usage
from .snapshot import ClusterSnapshot

log = logging.getLogger(__name__)

_STEP_S = 1.0
"""Accounted for so often: passes may be far closer together."""


class FairShare:
    """The usage so far. A kill loses what jobs used that ended since the last write, and counts nothing twice:
    usage and the moment it was accounted for up to are one write."""

    def __init__(self, cluster: Cluster, interval_s: float, now: Now) -> None:
        self._cluster = cluster
        self._interval_s = interval_s
        self._version: str | None = None
        self._unsaved = False
        self._saved_at = now.boot
        self.usage = Usage(now.wall)

    async def load(self, now: Now) -> None:
        """The usage is what was written last. Raises Unavailable; what cannot be read is forgotten."""
        stored = await self._cluster.read_fair_share()
        self._saved_at = now.boot
        self._unsaved = False
        self._version = stored.version if stored else None
        try:
            self.usage = Usage.from_json(stored.text) if stored else Usage(now.wall)
        except ValueError as error:
            log.warning("fair share starts anew", extra={"problem": error})
            self.usage = Usage(now.wall)

    def account(self, snapshot: ClusterSnapshot, pool: Pool) -> None:
        """What the jobs held until now is counted."""
        wall = snapshot.now.wall
        if (wall - self.usage.until).total_seconds() >= _STEP_S:
            self.usage = self.usage.accrued(snapshot.jobs, pool, wall)
            # Without jobs it only fades, and that needs no writing down.
            self._unsaved = self._unsaved or any(job.status.assignment for job in snapshot.jobs)

    async def save_when_due(self, now: Now) -> None:
        """Written, unless nothing was used or a minute has not passed."""
        if not self._unsaved or now.boot - self._saved_at < self._interval_s:
            return
        self._saved_at = now.boot
        try:
            self._version = await self._cluster.write_fair_share(self.usage.to_json(), self._version)
            self._unsaved = False
        except (Conflict, NotFound):
            await self._reload(now)  # somebody has deleted or written it: what stands there holds
        except ApiError as error:
            log.warning("fair share not written", extra={"error": error})

    async def _reload(self, now: Now) -> None:
        try:
            await self.load(now)
        except ApiError as error:
            log.warning("fair share not read", extra={"error": error})
