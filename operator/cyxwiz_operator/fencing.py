"""Giving up nodes that fell silent: ask once more, take their Lease away, and only then are their jobs let go."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable

from .clock import Now
from .cluster import Cluster, Conflict, Unavailable
from .leases import LeaseBook, LossGate
from .metrics import Metrics
from .views import Liveness

log = logging.getLogger(__name__)

JUDGED_EVERY_S = 1.0


class Fencing:
    """The effects around `LeaseBook`. A node once fenced is `Liveness.FENCED` there until somebody holds its Lease."""

    def __init__(self, cluster: Cluster, leases: LeaseBook, metrics: Metrics) -> None:
        self._cluster = cluster
        self._leases = leases
        self._metrics = metrics
        self._gate = LossGate()
        self._judged_at = float("-inf")

    @property
    def is_held_back(self) -> bool:
        """Too many nodes are silent to believe that they are lost."""
        return self._gate.is_shut

    async def give_up_the_lost(self, assigned: Iterable[str], nodes: Collection[str], now: Now) -> None:
        """Those of `assigned` that were silent for E are fenced, unless the silence is our own or everyone's."""
        expired = sorted(name for name in set(assigned) if self._leases.liveness(name, now) is Liveness.EXPIRED)
        if not expired and now.boot - self._judged_at < JUDGED_EVERY_S:
            return  # nobody is to be given up: what all nodes together say can wait for the next second
        self._judged_at = now.boot
        was_shut = self._gate.is_shut
        self._gate.judge(self._leases, nodes, now)
        if self._gate.is_shut != was_shut:
            log.warning("node losses are held back" if self._gate.is_shut else "node losses are believed again")
        self._metrics.loss_gate.set(self._gate.is_shut)
        if self._gate.is_shut:
            return
        for name in expired:
            await self._fence(name, now)

    async def may_let_go(self, name: str, now: Now) -> bool:
        """False when the node is believed fenced and somebody holds its Lease again, by a fresh read.

        Asked after the job was read and before it is bound elsewhere. The two watches do not keep step: the job may
        already show a report of the node's new epoch while its Lease still looks free here.
        """
        if self._leases.liveness(name, now) is not Liveness.FENCED:
            return True
        fresh = await self._cluster.read_lease(name)
        if fresh is None or not fresh.holder:
            return True
        self._leases.observe(fresh, now)
        return False

    def blind(self, now: Now) -> None:
        """Our own requests fail: nobody's silence counts until we can hear again."""
        self._gate.request_failed(now)
        self._leases.restart_timers(now)

    async def _fence(self, name: str, now: Now) -> None:
        seen = self._leases.lease_of(name)
        silent_s = round(self._leases.silent_s(name, now))
        try:
            fresh = await self._cluster.read_lease(name)
            if fresh is None:
                self._leases.forget(name)
            elif seen is None or fresh.resource_version != seen.resource_version:
                self._leases.observe(fresh, now)
            else:
                self._leases.observe(await self._cluster.fence(fresh), now)
                log.warning("node fenced", extra={"node": name, "silent_s": silent_s})
        except Conflict:
            log.info("node renewed at the last moment", extra={"node": name})
        except Unavailable:
            self.blind(now)
