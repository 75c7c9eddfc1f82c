"""Puts the operator together and keeps its tasks running; kopf starts and stops it (`handlers`)."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import pydantic

from cyxwiz_kube import Kube

from . import clock, health
from .cluster import ApiError, Cluster, parse_machine, parse_node
from .collecting import collect_for_ever
from .control_loop import ControlLoop
from .job_stream import follow_jobs, in_words
from .leases import LeaseBook
from .metrics import Metrics
from .reserving import Reservations
from .settings import Settings
from .sweep import sweep_for_ever
from .watched import Watched

log = logging.getLogger(__name__)


class Runtime:
    """One operator. `over` is set when it has stopped; with `failed` Kubernetes starts another."""

    def __init__(self, settings: Settings, kube: Kube) -> None:
        self.settings = settings
        self._kube = kube
        self.watched = Watched()
        self.over = asyncio.Event()
        self.failed = False
        self._metrics = Metrics()
        self._leases = LeaseBook(clock.now())
        self._loop: ControlLoop | None = None
        self._synced_at: float | None = None
        self._unreadable_nodes: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Self]:
        """Connected, and answering probes, while the block runs. Raises OSError when a port is taken."""
        async with await Kube.connect(kubeconfig=settings.kubeconfig, user_agent="cyxwiz-operator") as kube:
            runtime = cls(settings, kube)
            async with health.serve(
                healthy=runtime._why_unhealthy,
                ready=runtime._why_not_ready,
                metrics=runtime._metrics,
                health_port=settings.health_port,
                metrics_port=settings.metrics_port,
            ):
                yield runtime

    def sign_in(self) -> dict[str, Any]:
        """The fields of `kopf.ConnectionInfo`: kopf is whoever our own client is."""
        return self._kube.credentials.for_kopf()

    def start(self) -> None:
        """The tasks run until `stop`."""
        self._task = asyncio.create_task(self._run(), name="cyxwiz operator")
        self._task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """None of its tasks runs."""
        self.over.set()  # kopf would wait 5 s for its own look-out for it
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def node_seen(self, item: dict[str, object]) -> None:
        """A ComputeNode as the API server has it now. One that cannot be read is left out and logged once."""
        try:
            node = parse_node(item)
        except pydantic.ValidationError as error:
            name = str(item["metadata"]["name"])  # pyright: ignore[reportIndexIssue]  # JSON of an object
            self.watched.drop_node(name)
            if name not in self._unreadable_nodes:
                log.warning("unreadable", extra={"node": name, "problem": in_words(error)})
            self._unreadable_nodes.add(name)
            return
        self._unreadable_nodes.discard(node.name)
        self.watched.put_node(node)

    def node_gone(self, name: str) -> None:
        """A ComputeNode has been deleted."""
        self.watched.drop_node(name)

    def machine_seen(self, item: dict[str, Any]) -> None:
        """A Kubernetes Node as the API server has it now."""
        settings = self.settings
        self.watched.put_machine(parse_machine(item, settings.tolerated_taints, settings.cordon_drains))

    def machine_gone(self, name: str) -> None:
        """A Kubernetes Node has been deleted."""
        self.watched.drop_machine(name)

    async def _run(self) -> None:
        settings = self.settings
        cluster = Cluster(self._kube, settings.namespace, self._metrics)
        pods = Reservations(settings.reservations) if settings.reservations else None
        self._loop = ControlLoop(cluster, self.watched, self._leases, settings, self._metrics, reservations=pods)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(follow_jobs(self._kube, self.watched, self._metrics), name="jobs")
            tasks.create_task(self._follow_leases(cluster), name="leases")
            if pods is not None:
                tasks.create_task(pods.follow(self._kube, self.watched), name="pods")
                await self.watched.pods_synced.wait()
            await self._first_look_at_nodes(cluster)
            await self._recall_fair_share(self._loop)
            await self.watched.jobs_synced.wait()
            await self.watched.leases_synced.wait()
            self._synced_at = clock.now().boot
            gc.freeze()  # what was just read is no garbage: no collection stops the loop to find that out
            log.info("synced", extra={"jobs": len(self.watched.jobs), "nodes": len(self.watched.nodes)})
            sweeping = sweep_for_ever(cluster, self._loop.teller, settings.sweep_interval_s, clock.now)
            tasks.create_task(sweeping, name="sweep")
            collecting = collect_for_ever(cluster, self.watched, self._leases, settings.sweep_interval_s, clock.now)
            tasks.create_task(collecting, name="collect")
            await self._loop.run()

    async def _first_look_at_nodes(self, cluster: Cluster) -> None:
        """Every node is known before the first decision; kopf's watch does not say when it has told all."""
        while True:
            try:
                async for item in cluster.machines():
                    self.machine_seen(item)
                async for item in cluster.nodes():
                    self.node_seen(item)
                return
            except ApiError as error:
                log.warning("cannot list nodes, trying again", extra={"error": error})
                await asyncio.sleep(1)

    async def _recall_fair_share(self, loop: ControlLoop) -> None:
        """What the namespaces used before a restart is known before the first decision."""
        while True:
            try:
                return await loop.fair_share.load(clock.now())
            except ApiError as error:
                log.warning("cannot read the fair share, trying again", extra={"error": error})
                await asyncio.sleep(1)

    async def _follow_leases(self, cluster: Cluster) -> None:
        async for seen in cluster.follow_leases():
            match seen:
                case None:
                    # The first list, or a new one after we heard nothing for a while: nobody's silence counts.
                    self._leases.restart_timers(clock.now())
                    self.watched.leases_synced.set()
                case str():
                    self._leases.forget(seen)
                case _:
                    self._leases.observe(seen, clock.now())

    def _why_unhealthy(self) -> str | None:
        if self._synced_at is None or self._loop is None:
            return None  # waiting for the API server is no illness of ours
        silent_s = clock.now().boot - (self._loop.last_pass_at or self._synced_at)
        limit_s = self.settings.stalled_after_s
        return f"no pass has finished for {silent_s:.0f} s" if silent_s > limit_s else None

    def _why_not_ready(self) -> str | None:
        return None if self._synced_at is not None else "jobs, nodes and leases are not listed yet"

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            log.critical("the operator cannot go on", exc_info=task.exception())
            self.failed = True
            self.over.set()
