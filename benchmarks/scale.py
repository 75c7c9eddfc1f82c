"""What a large fleet costs the API server and the operator: simulated agents on a real control plane.

    python -m benchmarks.scale --nodes 200 1000 --jobs 200 1000     # a point each, growing on one server
    python -m benchmarks.scale --nodes 5000 --jobs 5000             # some minutes on two cores

A simulated agent has the real one's traffic and nothing else: a ComputeNode, a Lease renewed every 10 s, its own watch
of TrainingJobs by `status.assignment.node`, a first report for each job that it is given, then progress. The operator
is the real one. Everything shares this machine, and the agents have the administrator's token, so the policies on
agents' tokens cost nothing here. Each point tells

- how long the fleet took to be registered, and the jobs from POST to the first report of the last one;
- CPU of the API server for the Leases alone, and for one progress report with every watch open and with none;
- resident memory of the API server, etcd and the operator, and the size of a job as a watch sends it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.load import held, in_parallel, job, make_node
from benchmarks.machine import cpu_s, describe
from cyxwiz_devcluster import Cluster, start
from cyxwiz_kube import ChangeKind, Kube, paths
from cyxwiz_platform import Platform
from cyxwiz_platform.platform import NAMESPACE

RENEW_S = 10.0
WATCHES_PER_CLIENT = 50
"""A client has 64 connections."""
REPORTS_PER_S = 40.0
MEASURE_S = 5.0
REPETITIONS = 3
SETTLE_S = 3.0
QUIET_WITHIN_S = 40.0
WITHIN_S = 900.0
Object = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[200, 1000])
    parser.add_argument("--jobs", type=int, nargs="+", default=[200, 1000])
    options = parser.parse_args()
    logging.getLogger("cyxwiz_kube").setLevel(logging.ERROR)  # the first watches meet a server that still begins
    if len(options.nodes) != len(options.jobs):
        parser.error("give as many --jobs as --nodes")
    with (
        tempfile.TemporaryDirectory() as folder,
        start(Path(folder) / "cluster") as cluster,
        Platform(cluster, Path(folder) / "platform") as platform,
    ):
        platform.install()
        asyncio.run(_run(platform, list(zip(options.nodes, options.jobs, strict=True))))


async def _run(platform: Platform, points: list[tuple[int, int]]) -> None:
    print(f"{describe()}; reports at {REPORTS_PER_S:.0f}/s", flush=True)
    async with await _client(platform.cluster) as kube:
        with Process(platform.cluster, "kube-apiserver").costing() as nothing:
            await asyncio.sleep(MEASURE_S)
        idle_share = nothing.cpu_s / nothing.wall_s
        print(f"API server without a fleet: {100 * idle_share:.1f} % of a core", flush=True)
        fleet = Fleet(platform.cluster, kube)
        operator_runs = False
        try:
            for nodes, jobs in points:
                registered_s = await fleet.grow(nodes)  # those of an earlier point watch again
                if not operator_runs:
                    await asyncio.to_thread(platform.start_operator)
                    operator_runs = True
                started_s = await fleet.submit(jobs)
                await _point(platform, fleet, idle_share, registered_s, started_s)
        finally:
            await fleet.close()


async def _point(platform: Platform, fleet: Fleet, idle_share: float, registered_s: float, started_s: float) -> None:
    server, etcd = Process(platform.cluster, "kube-apiserver"), Process(platform.cluster, "etcd")
    assert platform.operator is not None
    operator = Process.of(platform.operator.pid)
    await _quiet(platform.metrics_port)
    renewals, watches = len(fleet.nodes) / RENEW_S, len(fleet.watches)
    memory = f"API server {server.rss_mb:.0f} MB, etcd {etcd.rss_mb:.0f}, operator {operator.rss_mb:.0f}"
    watched, beat = await _cost_of_a_report(fleet, server)
    with operator.costing() as idle:
        await asyncio.sleep(MEASURE_S)
    await fleet.stop_watching()
    await asyncio.sleep(SETTLE_S)
    alone, _ = await _cost_of_a_report(fleet, server)
    with operator.costing() as reading:
        reports = await fleet.report(MEASURE_S)
    size = len(json.dumps(await fleet.kube.get(fleet.running[0])))
    lease_ms = 1000 * (beat - idle_share) / renewals
    read_ms = 1000 * (reading.cpu_s - idle.cpu_s) / reports
    print(f"{len(fleet.nodes)} nodes, {len(fleet.running)} jobs running, {watches} watches", flush=True)
    print(f"  registered in {registered_s:.0f} s; jobs from POST to the last first report {started_s:.1f} s")
    print(f"  Leases: {renewals:.0f}/s, API server {100 * beat:.0f} % of a core, {lease_ms:.2f} ms each")
    print(f"  a report: API server {watched:.2f} ms with the watches, {alone:.2f} ms with the operator's alone:")
    print(f"    {1000 * (watched - alone) / watches:.2f} us for each watch")
    print(f"  operator: {100 * idle.cpu_s / idle.wall_s:.1f} % of a core for the Leases, {read_ms:.2f} ms for a report")
    print(f"  memory: {memory}; a job as a watch sends it {size} bytes", flush=True)


async def _cost_of_a_report(fleet: Fleet, server: Process) -> tuple[float, float]:
    """(ms of the server's CPU for one report, its share of a core without any): medians of blocks that alternate."""
    costs: list[float] = []
    shares: list[float] = []
    for _ in range(REPETITIONS):
        with server.costing() as without:
            await asyncio.sleep(MEASURE_S)
        with server.costing() as busy:
            reports = await fleet.report(MEASURE_S)
        shares.append(without.cpu_s / without.wall_s)
        costs.append(1000 * (busy.cpu_s - shares[-1] * busy.wall_s) / reports)
    return statistics.median(costs), statistics.median(shares)


async def _quiet(metrics_port: int) -> None:
    """The operator has told what there was to tell: it has written nothing for some seconds, or never ends to write."""
    deadline, before = time.monotonic() + QUIET_WITHIN_S, -1.0
    while (now := await asyncio.to_thread(_writes, metrics_port)) != before and time.monotonic() < deadline:
        before = now
        await asyncio.sleep(SETTLE_S)


def _writes(port: int) -> float:
    """Of the operator so far, of every kind."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("cyxwiz_api_writes_total{"))


class Fleet:
    """Simulated agents and the jobs that they run."""

    def __init__(self, cluster: Cluster, kube: Kube) -> None:
        self.kube = kube
        self.nodes: list[str] = []
        self.running: list[str] = []
        """Paths of jobs whose first report was accepted."""
        self.watches: list[asyncio.Task[None]] = []
        self._cluster = cluster
        self._clients: list[Kube] = []
        self._sequences: dict[str, int] = {}
        self._assignments: dict[str, str] = {}
        self._first_reports: set[asyncio.Task[None]] = set()
        self._claims = asyncio.Semaphore(32)
        self._beat = asyncio.create_task(self._renew())

    async def grow(self, nodes: int) -> float:
        """So many nodes are registered, and each has its watch; the seconds that took."""
        began = time.perf_counter()
        new = [f"node-{number:05}" for number in range(len(self.nodes), nodes)]
        await in_parallel(make_node(self.kube, name) for name in new)
        self.nodes += new
        await self.watch_all()
        return time.perf_counter() - began

    async def watch_all(self) -> None:
        """Every node has its watch, and has seen its list."""
        synced: list[asyncio.Event] = []
        for number, name in enumerate(self.nodes[len(self.watches) :]):
            if number % WATCHES_PER_CLIENT == 0:
                self._clients.append(await _client(self._cluster))
            synced.append(asyncio.Event())
            self.watches.append(asyncio.create_task(self._watch(self._clients[-1], name, synced[-1])))
            if number % 16 == 15:
                await asyncio.wait_for(synced[-1].wait(), WITHIN_S)
        for event in synced:
            await asyncio.wait_for(event.wait(), WITHIN_S)

    async def stop_watching(self) -> None:
        for task in self.watches:
            task.cancel()
        await asyncio.gather(*self.watches, return_exceptions=True)
        for client in self._clients:
            await client.close()
        self.watches, self._clients = [], []

    async def submit(self, jobs: int) -> float:
        """So many jobs run in all; the seconds from the first POST to the last first report."""
        began = time.perf_counter()
        known = len(self.running)
        names = [f"job-{number:05}" for number in range(known, jobs)]
        await in_parallel(self.kube.create(paths.training_jobs("default"), job(name)) for name in names)
        while len(self.running) < jobs:
            if time.perf_counter() - began > WITHIN_S:
                raise RuntimeError(f"{len(self.running)} of {jobs} jobs were started within {WITHIN_S:.0f} s")
            await asyncio.sleep(0.05)
        return time.perf_counter() - began

    async def report(self, for_s: float) -> int:
        """Progress of one job after the other at the benchmark's rate; how many were accepted."""
        began = time.perf_counter()
        due = int(for_s * REPORTS_PER_S)
        for number in range(due):
            await self._tell(self.running[number % len(self.running)])
            await asyncio.sleep(max(0.0, began + (number + 1) / REPORTS_PER_S - time.perf_counter()))
        return due

    async def close(self) -> None:
        self._beat.cancel()
        await self.stop_watching()

    async def _watch(self, client: Kube, node: str, synced: asyncio.Event) -> None:
        """As `cyxwiz_agent.agent` does it."""
        async for change in client.watch(paths.training_jobs(), field_selector=f"status.assignment.node={node}"):
            if change.kind is ChangeKind.SYNCED:
                synced.set()
            elif change.kind is ChangeKind.PRESENT:
                metadata, status = change.object["metadata"], change.object["status"]
                path = paths.training_job(metadata["namespace"], metadata["name"])
                if path not in self._assignments:
                    self._assignments[path] = status["assignment"]["id"]
                    task = asyncio.create_task(self._claim(path))
                    self._first_reports.add(task)
                    task.add_done_callback(self._first_reports.discard)

    async def _claim(self, path: str) -> None:
        async with self._claims:
            await self._tell(path)
        self.running.append(path)

    async def _tell(self, path: str) -> None:
        sequence = self._sequences[path] = self._sequences.get(path, 0) + 1
        progress = {"step": sequence, "epoch": 1, "loss": f"{1 / sequence:.4f}", "samplesProcessed": 32 * sequence}
        report = {
            "assignmentID": self._assignments[path],
            "sequence": sequence,
            "state": "Running",
            "progress": progress,
        }
        await self.kube.merge_patch(paths.status(path), {"status": {"execution": report}})

    async def _renew(self) -> None:
        """Every Lease every 10 s, evenly spread."""
        while True:
            began, names = time.perf_counter(), list(self.nodes)
            for number, name in enumerate(names):
                await self.kube.merge_patch(paths.lease(NAMESPACE, name), {"spec": held()})
                await asyncio.sleep(max(0.0, began + RENEW_S * (number + 1) / len(names) - time.perf_counter()))
            if not names:
                await asyncio.sleep(0.1)


async def _client(cluster: Cluster) -> Kube:
    return await Kube.connect(kubeconfig=cluster.kubeconfig, user_agent="cyxwiz-benchmark", request_timeout_s=60)


class Cost:
    """CPU and wall seconds of a block."""

    cpu_s = 0.0
    wall_s = 0.0


class Process:
    """One whose CPU and memory are read from /proc."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        record = cluster.record()
        if record is None:
            raise RuntimeError("a control plane of our own is needed")
        [pid] = [process.pid for process in record.processes if process.name == name]
        self._folder = Path(f"/proc/{pid}")

    @classmethod
    def of(cls, pid: int) -> Process:
        process = cls.__new__(cls)
        process._folder = Path(f"/proc/{pid}")
        return process

    @property
    def rss_mb(self) -> float:
        lines = (self._folder / "status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmRSS"))

    @contextlib.contextmanager
    def costing(self) -> Iterator[Cost]:
        cost, cpu, wall = Cost(), cpu_s(self._folder / "stat"), time.perf_counter()
        yield cost
        cost.cpu_s, cost.wall_s = cpu_s(self._folder / "stat") - cpu, time.perf_counter() - wall


if __name__ == "__main__":
    main()
