"""The loop: wake, batch, one pass. The only place that puts effects in order.

A pass gathers (snapshot), decides (`decide`), acts (binds, then changes) and tells. It asks what is true now and not
what just changed, so a lost wake-up costs a second and a repeated pass costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from .clock import Now
from .clock import now as real_now
from .cluster import Cluster
from .decisions import Decisions, decide
from .fair_share import FairShare
from .fencing import Fencing
from .leases import LeaseBook
from .ledger import Ledger
from .lifecycle import StatusChange
from .metrics import Metrics
from .node_table import Columns
from .reserving import Reservations
from .scheduling.queueing import pool_of
from .scheduling.reserving import PreemptionRules
from .settings import Settings
from .snapshot import ClusterSnapshot, take_snapshot
from .sources import Sources
from .telling import Teller
from .views import JobView
from .watched import Watched
from .weights import Key, Source
from .writing import Writer

log = logging.getLogger(__name__)


class ControlLoop:
    """Owns what is remembered between passes; nothing of it is needed after a restart."""

    def __init__(
        self,
        cluster: Cluster,
        watched: Watched,
        leases: LeaseBook,
        settings: Settings,
        metrics: Metrics,
        clock: Callable[[], Now] = real_now,
        reservations: Reservations | None = None,
    ) -> None:
        """With `reservations` GPUs are reserved through Kubernetes, on nodes whose agents look there."""
        self._cluster = cluster
        self._reservations = reservations
        self._watched = watched
        self._leases = leases
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._ledger = Ledger()
        self._columns = Columns(can_reserve=reservations is not None)
        self._sources = Sources(cluster)
        self.fencing = Fencing(cluster, leases, metrics)
        self.fair_share = FairShare(cluster, settings.fair_share_interval_s, clock())
        self.teller = Teller(cluster, watched, settings, metrics, clock)
        self._writer = Writer(
            cluster, self._ledger, self.fencing, metrics, clock, watched.writing, self._wrote, settings.parallel_writes
        )
        self._deciding_s = 0.0
        self.last_pass_at: float | None = None
        """Boot time at which the last pass finished."""

    async def run(self) -> None:
        """Pass after pass, for ever. The caller waits until the watches are synced."""
        while True:
            waited_s = await self._guarded_pass()
            # At most half of the time goes into deciding: under load passes grow instead of multiplying. While its
            # writes were waited for, a pass has left the processor to others already.
            await asyncio.sleep(max(self._settings.batch_s, self._deciding_s - waited_s))
            try:
                await asyncio.wait_for(self._watched.bell.wait(), self._settings.tick_s)
            except TimeoutError:
                continue

    async def one_pass(self) -> None:
        """Everything that can be done now is done; a second pass would change nothing."""
        self._watched.bell.clear()
        await self._give_up_the_lost()
        sources = await self._sources.look(self._watched.jobs.values(), self._clock().boot)
        snapshot, decisions = self._decide(sources)
        bell = self._watched.bell

        def gives_way() -> bool:
            return bell.is_set() or bool(decisions.changes)

        bound = await self._writer.write_all(decisions.binds, "bind", gives_way, self._settings.bind_for_s)
        await self._writer.write_all(decisions.changes, "status", bell.is_set)
        if not bound:
            bell.set()
        if self._reservations is not None:
            jobs = [self._ledger.view_of(job) for job in self._watched.jobs.values()]
            await self._reservations.keep(self._cluster, jobs, self._watched.unreadable)
        await self.teller.tell(snapshot, decisions, self._writer, self.fencing.is_held_back)
        await self.fair_share.save_when_due(self._clock())
        if decisions.postponed:
            self._watched.bell.set()

    def _wrote(self, change: StatusChange, after: JobView) -> None:
        if not after.is_final:  # the watch will not show what is
            self._watched.written[after.uid] = after
        self.teller.written(change, after)

    async def _guarded_pass(self) -> float:
        """Seconds that a pass took beyond deciding. The one place where an unexpected error is survived."""
        started = time.perf_counter()
        try:
            await self.one_pass()
        except Exception:
            log.exception("pass failed")
            self._metrics.pass_failures.inc()
            await asyncio.sleep(self._settings.tick_s)
            return 0.0
        self._metrics.passes.inc()
        self.last_pass_at = self._clock().boot
        return time.perf_counter() - started - self._deciding_s

    async def _give_up_the_lost(self) -> None:
        jobs = self._watched.jobs.values()
        assigned = {job.status.assignment.node for job in jobs if job.status.assignment}
        await self.fencing.give_up_the_lost(assigned, self._watched.nodes.keys(), self._clock())

    def _decide(self, sources: Mapping[Key, Source]) -> tuple[ClusterSnapshot, Decisions]:
        started = time.perf_counter()
        seen, now = self._watched, self._clock()
        used = self.fair_share.usage.by_namespace
        pods = self._reservations
        snapshot = take_snapshot(
            seen.jobs,
            seen.nodes,
            self._ledger,
            self._leases,
            self._columns,
            now,
            used,
            sources,
            pods.known if pods else None,
        )
        self.fair_share.account(snapshot, pool_of(snapshot.nodes))
        settings = self._settings
        rules = PreemptionRules(settings.preemption, settings.preemption_min_runtime_s)
        decisions = decide(
            snapshot,
            most_binds=settings.binds_per_pass,
            preemption=rules,
            explained=settings.explained_jobs,
            reservation_wait_s=pods.settings.wait_seconds if pods else None,
        )
        self._deciding_s = time.perf_counter() - started
        self._metrics.decision_time.observe(self._deciding_s)
        return snapshot, decisions
