"""Wires one agent together: Lease, registration, the watch of its jobs, a worker for each assignment."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Coroutine, Iterator
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from cyxwiz_crds import FINAL_PHASES, TrainingJob, __version__
from cyxwiz_crds.compute_node import AgentInfo, Inventory
from cyxwiz_kube import ChangeKind, Kube, paths
from cyxwiz_protocol.runner_api import JobProcess

from . import probes
from .admission import Capacity
from .attempt import is_mine, wish_for
from .devices import DeviceMonitor, Devices, EnergyMeter, Guard, MemoryMeter, in_use
from .downloads import Downloads
from .lease import NodeLease
from .links import Links
from .metrics import Metrics
from .node import Node
from .pace import Pace
from .peers import Peers, proxy_path
from .pod_resources import PodResources
from .registration import Registration, inventory, still
from .runner_client import RunnerClient, RunnerUnavailable
from .series import DeviceSeries, JobSeries, RunningJob
from .settings import GpuMode, Settings
from .signing import Signer
from .worker import Worker

log = logging.getLogger(__name__)

ORPHAN_GRACE_S = 30.0
FIRST_LOOK_S = 10.0


class Agent:
    """Everything one agent process holds."""

    def __init__(self, settings: Settings, kube: Kube, heartbeat: Kube) -> None:
        """`heartbeat` is a connection of its own, so that a slow report never delays a renewal."""
        self._settings = settings
        self._kube = kube
        self._instance = f"{settings.node}-{secrets.token_hex(4)}"
        self._metrics = Metrics()
        self._devices = DeviceMonitor(self._on_devices)
        watches_pods = settings.gpu_mode is not GpuMode.UNGUARDED
        self._pods = PodResources(settings.pod_resources, self._on_pods) if watches_pods else None
        self._guard = Guard(settings.gpu_resource)
        self._told: Inventory | None = None
        self._metrics.registry.register(DeviceSeries(self._devices))
        self._metrics.registry.register(JobSeries(self._running_jobs))
        self._workers: dict[str, Worker] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._orphans: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._synced = False
        self._abilities: tuple[str | None, str | None, tuple[str, ...]] | None = None
        self._runner = RunnerClient(settings.state, self._on_runner)
        self._lease = NodeLease(
            heartbeat, settings.namespace, settings.node, self._instance, self._on_lease, self._runner.is_lost
        )
        started_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        info = AgentInfo(version=__version__, instance=self._instance, started_at=started_at)
        self._registration = Registration(kube, settings.node, info, self._inventory, self._name_warm_gpus)
        signer = Signer.of(settings.node, settings.state)
        peers = Peers(kube, settings.namespace)
        self._downloads = Downloads(settings.node, settings.state, signer, peers)
        self._node = Node(
            name=settings.node,
            state=settings.state,
            volumes=settings.volumes,
            kube=kube,
            lease=self._lease,
            runner=self._runner,
            pace=Pace(),
            metrics=self._metrics,
            capacity=self._capacity,
            devices=self._known_devices,
            gpu_mode=settings.gpu_mode,
            pods=self._pods,
            memory=MemoryMeter(),
            something_leaves=self._something_leaves,
            energy=EnergyMeter().joules,
            links=None if settings.logs is None else Links(signer, proxy_path(settings.namespace)),
        )

    async def run(self) -> None:
        """Until cancelled. Jobs go on without their agent until their deadlines; a later agent finds them again."""
        port = await probes.serve(self._settings.port, ready=self._missing, registry=self._metrics.registry)
        log.info("agent %s of node %s, probes on port %d", self._instance, self._settings.node, port)
        if self._settings.logs is not None:
            port = await self._downloads.serve(self._settings.logs)
            log.info("models and logs on %s port %d", self._settings.logs.host, port)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._runner.watch())
            group.create_task(self._lease.keep())
            group.create_task(self._devices.run())
            if self._pods is not None:
                group.create_task(self._pods.run())
            # Without it a job bound to a GPU of this node would be refused as if the GPU were not here.
            if not await self._devices.first_look(FIRST_LOOK_S):
                log.warning("the GPU driver has not answered within %.0f s; going on without", FIRST_LOOK_S)
            group.create_task(self._registration.keep())
            group.create_task(self._watch_jobs())

    async def _watch_jobs(self) -> None:
        """Jobs bound to this node, the finished excluded, each to its worker."""
        unfinished = ",".join(f"status.phase!={phase}" for phase in sorted(FINAL_PHASES))
        selector = f"status.assignment.node={self._settings.node},{unfinished}"
        async for change in self._kube.watch(paths.training_jobs(), field_selector=selector):
            if change.kind is ChangeKind.SYNCED:
                self._synced = True
                self._on_runner()
                continue
            try:
                job = TrainingJob.model_validate(change.object)
            except ValidationError as error:
                log.warning("a job bound to this node cannot be read: %s", error)
                continue
            if change.kind is ChangeKind.PRESENT:
                self._see(job)
            else:
                for worker in self._workers_of(job):
                    worker.miss()

    def _see(self, job: TrainingJob) -> None:
        assignment = job.status.assignment
        if assignment is not None and assignment.id not in self._workers:
            self._begin(Worker(job, self._node))
        for worker in self._workers_of(job):
            worker.see(job)

    def _workers_of(self, job: TrainingJob) -> list[Worker]:
        """The workers of every attempt of this job: an older one may still be leaving."""
        return [worker for key, worker in self._workers.items() if key.startswith(job.metadata.uid)]

    def _begin(self, worker: Worker) -> None:
        self._workers[worker.assignment_id] = worker
        task = asyncio.get_running_loop().create_task(worker.run(), name=worker.key)
        self._running[worker.assignment_id] = task
        task.add_done_callback(lambda done: self._done(worker, done))
        self._metrics.jobs.set(len(self._workers))

    def _done(self, worker: Worker, task: asyncio.Task[None]) -> None:
        self._workers.pop(worker.assignment_id, None)
        self._running.pop(worker.assignment_id, None)
        self._metrics.jobs.set(len(self._workers))
        if not task.cancelled() and task.exception() is not None:
            log.error("%s: the worker failed, taking it up again", worker.key, exc_info=task.exception())
            if worker.job is not None:
                self._begin(Worker(worker.job, self._node))

    def _on_runner(self) -> None:
        snapshot = self._runner.snapshot
        abilities = (snapshot.torch_version, snapshot.sharing, tuple(snapshot.models)) if snapshot else None
        if abilities != self._abilities:
            self._abilities = abilities
            self._registration.wake()
        for worker in list(self._workers.values()):
            worker.wake()
        self._name_warm_gpus()
        if not self._synced or snapshot is None:
            return
        for process in snapshot.jobs:
            known = process.assignment_id in self._workers or process.assignment_id in self._orphans
            if not known:
                task = self._start_task(self._end_orphan(process))
                self._orphans[process.assignment_id] = task
                task.add_done_callback(lambda _, key=process.assignment_id: self._orphans.pop(key, None))

    def _on_lease(self) -> None:
        self._metrics.lease_epoch.set(self._lease.epoch)
        for worker in list(self._workers.values()):
            worker.wake()
            self._start_task(self._renew(worker))

    async def _renew(self, worker: Worker) -> None:
        try:
            await worker.renew()
        except RunnerUnavailable as error:
            log.warning("%s: deadline not renewed: %s", worker.key, error)

    async def _end_orphan(self, process: JobProcess) -> None:
        """The runner has a job that no unfinished TrainingJob of this node knows: deleted or bound elsewhere while no
        agent was looking. It gets no longer deadline; end it."""
        try:
            if process.state == "Reaped":
                await self._runner.forget(process.assignment_id)
            else:
                log.info("%s is not bound to this node any more: ending it", process.key)
                await self._runner.stop(process.assignment_id, ORPHAN_GRACE_S)
        except RunnerUnavailable as error:
            log.warning("%s: runner: %s", process.key, error)

    def _something_leaves(self) -> bool:
        """True while a job here is on its way out, so that a refusal may lapse by itself."""
        snapshot = self._runner.snapshot
        if snapshot is not None and any(job.state == "Ending" for job in snapshot.jobs):
            return True
        return any(worker.memory_is_coming for worker in self._workers.values()) or any(
            worker.job is not None
            and is_mine(worker.job, worker.assignment_id)
            and wish_for(worker.job) is not None
            and self._runner.job(worker.assignment_id) is not None
            for worker in self._workers.values()
        )

    def _running_jobs(self) -> Iterator[RunningJob]:
        for worker in self._workers.values():
            process = self._runner.job(worker.assignment_id)
            if process is not None and process.state != "Reaped":
                namespace, _, name = worker.key.partition("/")
                yield RunningJob(namespace, name, worker.facts, stalled=worker.is_stalled)

    def _on_devices(self) -> None:
        self._guard = self._guard.after(self._devices.devices, self._runner.snapshot)
        self._tell_devices()

    def _on_pods(self) -> None:
        for worker in list(self._workers.values()):
            worker.wake()
        self._tell_devices()

    def _known_devices(self) -> Devices:
        """The node's devices; where they are dedicated to CyxWiz, those that others use are for no job."""
        devices = self._devices.devices
        if self._pods is None or self._settings.gpu_mode is not GpuMode.DEDICATED:
            return devices
        return in_use(devices, self._guard.foreign(devices, self._pods.holdings or ()))

    def _tell_devices(self) -> None:
        now = still(self._inventory({}))
        if now != self._told:
            self._told = now
            self._registration.wake()
            self._name_warm_gpus()

    def _name_warm_gpus(self) -> None:
        """The runner hears on which GPUs trainers shall wait, where it has asked for that and knows others."""
        snapshot = self._runner.snapshot
        wanted = gpus_to_keep_warm(self._known_devices(), draining=self._registration.draining)
        if snapshot is not None and snapshot.warm_gpus is not None and snapshot.warm_gpus != wanted:
            self._start_task(self._keep_warm_on(wanted))

    async def _keep_warm_on(self, gpus: list[str]) -> None:
        try:
            await self._runner.warm(gpus)
        except RunnerUnavailable as error:  # its next snapshot brings this up again
            log.warning("no trainers kept warm on GPUs: %s", error)

    def _capacity(self) -> Capacity:
        settings, devices = self._settings, self._known_devices()
        uuids = frozenset(device.reading.uuid for device in devices.known)
        return Capacity(uuids, settings.cpus, settings.memory_bytes, settings.max_jobs, devices.unusable)

    def _inventory(self, labels: dict[str, str]) -> Inventory:
        mode = self._settings.gpu_mode
        return inventory(self._known_devices(), self._capacity(), self._runner.snapshot, labels, mode)

    def _missing(self) -> str | None:
        """What keeps the agent from taking jobs, in words; None when nothing does."""
        if not self._lease.valid:
            return "the node's Lease is not held"
        if self._runner.snapshot is None:
            return "the runner does not answer"
        if not (self._registration.registered and self._synced):
            return "not registered yet"
        return None

    def _start_task(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def gpus_to_keep_warm(devices: Devices, *, draining: bool) -> list[str]:
    """UUIDs of those on which trainers shall wait; none where nothing is to hold a device any more. Pure."""
    if draining or devices.simulated:  # on a simulated GPU a trainer would wait on the CPU
        return []
    return sorted({device.reading.uuid for device in devices.known} - devices.unusable.keys())
