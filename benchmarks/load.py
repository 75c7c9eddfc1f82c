"""What benchmarks of scheduling share: ComputeNodes without machines behind them, jobs, and how fast they are bound."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.machine import ApiServer, cpu_s
from cyxwiz_devcluster import start
from cyxwiz_kube import Conflict, Kube, NotFound, paths
from cyxwiz_platform import Platform
from cyxwiz_platform.platform import NAMESPACE

PARALLEL = 16
"""Requests in flight, as many as the operator has."""
RENEW_S = 10.0
WITHIN_S = 300.0
OPERATOR = "benchmarks.unclaimed_operator"
Object = dict[str, Any]


def sizes(description: str | None, **defaults: int) -> argparse.ArgumentParser:
    """A parser with one option of whole numbers for each default, such as --jobs and --nodes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser


@contextlib.contextmanager
def installed() -> Iterator[Platform]:
    """A control plane with the chart's resources; no operator runs yet."""
    with (
        tempfile.TemporaryDirectory() as folder,
        start(Path(folder) / "cluster") as cluster,
        Platform(cluster, Path(folder) / "platform") as platform,
    ):
        platform.install()
        yield platform


@contextlib.asynccontextmanager
async def connected(platform: Platform) -> AsyncIterator[Kube]:
    """A client with every right."""
    async with await Kube.connect(kubeconfig=platform.cluster.kubeconfig, user_agent="cyxwiz-benchmark") as kube:
        yield kube


class Rate(NamedTuple):
    """How fast jobs were bound, and what one binding cost."""

    a_second: float
    own_ms: float
    """CPU of the operator, whatever it did meanwhile."""
    server_ms: float
    """CPU of the API server."""


async def bind_rate(platform: Platform, kube: Kube, names: list[str], jobs: int) -> Rate:
    """Jobs bound per second by an operator that starts now, from the first binding it tells of to the last."""
    await renew_all(kube, names)
    operator = platform.start_operator(wait=False, module=OPERATOR)
    own, server = Path(f"/proc/{operator.pid}/stat"), ApiServer(platform.cluster)
    first: tuple[float, int, float, float] | None = None
    deadline = time.monotonic() + WITHIN_S
    try:
        while True:
            bound, at = await asyncio.to_thread(bound_so_far, platform.metrics_port), time.perf_counter()
            spent = cpu_s(own), server.cpu_s()
            if first is None and bound:
                first = (at, bound, *spent)
            if first is not None and bound >= jobs:
                since, already, *before = first
                count = bound - already
                if not count:
                    raise RuntimeError(f"all {jobs} jobs were bound between two looks: ask for more --jobs")
                own_ms, server_ms = (1000 * (now - then) / count for now, then in zip(spent, before, strict=True))
                return Rate(count / (at - since), own_ms, server_ms)
            if time.monotonic() > deadline or not operator.running:
                raise RuntimeError(f"{bound} of {jobs} jobs were bound; the operator said: {operator.log}")
            await asyncio.sleep(0.1)  # each look costs the operator a millisecond
    finally:
        operator.stop()


def bound_so_far(port: int) -> int:
    """Bindings so far, by the operator's own count."""
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith('cyxwiz_api_writes_total{kind="bind",result="ok"}'):
                return int(float(line.rpartition(" ")[2]))
    return 0


async def make_node(kube: Kube, name: str, cpus: int = 64, labels: dict[str, str] | None = None) -> None:
    head = {"apiVersion": "cyxwiz.io/v1alpha1", "kind": "ComputeNode", "metadata": {"name": name}}
    await kube.create(paths.compute_nodes(), {**head, "spec": {"labels": labels or {}}})
    inventory = {"cpus": cpus, "memoryMiB": 2**19, "gpus": []}
    await kube.merge_patch(paths.status(paths.compute_node(name)), {"status": {"inventory": inventory}})
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}}
    await kube.create(paths.leases(NAMESPACE), {**lease, "spec": held()})


async def renew_all(kube: Kube, names: Iterable[str]) -> None:
    await in_parallel(_renewed(kube, name, None) for name in names)


@contextlib.asynccontextmanager
async def renewing(kube: Kube, names: list[str]) -> AsyncIterator[None]:
    """Each of the Leases is renewed every 10 s, evenly spread, while the block runs: as agents do it, by a PUT over the
    version that the last one answered."""

    async def beat(name: str, first_s: float) -> None:
        due, last = time.monotonic() + first_s, None
        while True:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            last = await _renewed(kube, name, last)
            due += RENEW_S

    tasks = [asyncio.create_task(beat(name, RENEW_S * number / len(names))) for number, name in enumerate(names)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _renewed(kube: Kube, name: str, last: Object | None) -> Object:
    path = paths.lease(NAMESPACE, name)
    while True:
        try:
            return await kube.replace(path, {**(last or await kube.get(path)), "spec": held()})
        except Conflict:
            last = None  # renewed by the benchmark itself meanwhile, for an operator that starts


async def make_jobs(kube: Kube, count: int, prefix: str) -> list[str]:
    names = [f"{prefix}-{number}" for number in range(count)]
    await in_parallel(kube.create(paths.training_jobs("default"), job(name)) for name in names)
    return [paths.training_job("default", name) for name in names]


async def delete_jobs(kube: Kube, jobs: Iterable[str]) -> None:
    async def one(path: str) -> None:
        with contextlib.suppress(NotFound):
            await kube.delete(path, uid=(await kube.get(path))["metadata"]["uid"])

    await in_parallel(one(path) for path in jobs)


async def in_parallel(requests: Iterable[Awaitable[Any]]) -> None:
    """Every request is answered, PARALLEL at a time."""
    waiting = iter(requests)

    async def worker() -> None:
        for request in waiting:
            await request

    async with asyncio.TaskGroup() as group:
        for _ in range(PARALLEL):
            group.create_task(worker())


def job(name: str, cpus: int = 1, **more: Any) -> Object:
    resources = {"gpus": 0, "cpus": cpus}
    spec = {"model": {"name": "cnn"}, "dataset": {"uri": "builtin://digits"}, "resources": resources, **more}
    return {"apiVersion": "cyxwiz.io/v1alpha1", "kind": "TrainingJob", "metadata": {"name": name}, "spec": spec}


def held() -> Object:
    renewed = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {"holderIdentity": "benchmark", "leaseDurationSeconds": 40, "renewTime": renewed}


def as_if_queued() -> Object:
    """A status as large as a binding's, which leaves the job to be bound."""
    line = "node-00000 0.67 = reputation 0.28 + availability 0.15 + capability 0.19 + uptime 0.05"
    message = "No place: a sentence as long as one of these usually is, with numbers."
    when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {"type": "Scheduled", "status": "False", "reason": "NoNodeFree", "message": message}
    return {
        "phase": "Queued",
        "reason": "NoNodeFree",
        "summary": message,
        "conditions": [condition | {"lastTransitionTime": when, "observedGeneration": 1}],
        "scheduling": {"position": 1, "candidates": [line] * 5},
    }
