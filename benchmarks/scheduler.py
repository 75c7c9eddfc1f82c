"""The operator against a real API server on the same machine: how much of what the server can take it uses.

    python -m benchmarks.scheduler drain      # bound jobs per second over raw status patches per second
    python -m benchmarks.scheduler heartbeat  # bound jobs per second while every node's Lease is renewed, over without
    python -m benchmarks.scheduler submit     # from POST to bound on an idle operator, over the POST's median

Both sides of a pair run on the same server one after the other; ratios are medians over the pairs. ComputeNodes are
objects without machines behind them: no job runs. A pair of 300 jobs and 100 nodes takes about 10 s where the server
takes 300 writes a second; `--jobs 3000 --nodes 1000` about ten times as long.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.machine import ApiServer, cpu_s, describe
from cyxwiz_devcluster import start
from cyxwiz_kube import ChangeKind, Kube, NotFound, paths
from cyxwiz_platform import Platform
from cyxwiz_platform.platform import NAMESPACE

PARALLEL = 16
"""Requests in flight, as many as the operator has."""
RENEW_S = 10.0
WITHIN_S = 300.0
Object = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("drain", "heartbeat", "submit"))
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        start(Path(folder) / "cluster") as cluster,
        Platform(cluster, Path(folder) / "platform") as platform,
    ):
        platform.install()
        asyncio.run(_run(platform, options))


async def _run(platform: Platform, options: argparse.Namespace) -> None:
    print(f"{describe()}; {options.jobs} jobs, {options.nodes} nodes, {options.pairs} pairs", flush=True)
    async with await Kube.connect(kubeconfig=platform.cluster.kubeconfig, user_agent="cyxwiz-benchmark") as kube:
        names = [f"node-{number:05}" for number in range(options.nodes)]
        await _in_parallel(_make_node(kube, name) for name in names)
        match options.what:
            case "drain":
                await _drain(platform, kube, names, options)
            case "heartbeat":
                await _heartbeat(platform, kube, names, options)
            case _:
                await _submit(platform, kube, names, options)


async def _drain(platform: Platform, kube: Kube, names: list[str], options: argparse.Namespace) -> None:
    ratios: list[float] = []
    server = ApiServer(platform.cluster)
    for pair in range(options.pairs):
        jobs = await _make_jobs(kube, options.jobs, f"pair-{pair}")
        started, own_s, server_s = time.perf_counter(), time.process_time(), server.cpu_s()
        await _in_parallel(kube.merge_patch(paths.status(path), {"status": _as_if_queued()}) for path in jobs)
        raw = len(jobs) / (time.perf_counter() - started)
        own_ms = 1000 * (time.process_time() - own_s) / len(jobs)
        server_ms = 1000 * (server.cpu_s() - server_s) / len(jobs)
        bound = await _bind_rate(platform, kube, names, len(jobs))
        ratios.append(bound.a_second / raw)
        print(
            f"  bound {bound.a_second:.0f}/s ({bound.own_ms:.2f} ms of CPU each, server {bound.server_ms:.2f}), "
            f"raw patches {raw:.0f}/s ({own_ms:.2f}, server {server_ms:.2f}): {ratios[-1]:.2f}",
            flush=True,
        )
        await _delete(kube, jobs)
    print(f"drain: median {statistics.median(ratios):.2f} of the raw patch rate (goal 0.85)")


async def _heartbeat(platform: Platform, kube: Kube, names: list[str], options: argparse.Namespace) -> None:
    ratios: list[float] = []
    for pair in range(options.pairs):
        rates: dict[bool, float] = {}
        for beating in (True, False) if pair % 2 else (False, True):
            jobs = await _make_jobs(kube, options.jobs, f"pair-{pair}-{beating}".lower())
            async with _renewing(kube, names if beating else []):
                rates[beating] = (await _bind_rate(platform, kube, names, len(jobs))).a_second
            await _delete(kube, jobs)
        ratios.append(rates[True] / rates[False])
        print(f"  with {rates[True]:.0f}/s, without {rates[False]:.0f}/s: {ratios[-1]:.2f}", flush=True)
    print(f"heartbeat: median {statistics.median(ratios):.2f} of the rate without (goal 0.85)")


async def _submit(platform: Platform, kube: Kube, names: list[str], options: argparse.Namespace) -> None:
    await _renew_all(kube, names)
    operator = platform.start_operator()
    posts_ms: list[float] = []
    bound_ms: list[float] = []
    async with _renewing(kube, names):
        changes = kube.watch(paths.training_jobs("default"))
        async for change in changes:
            if change.kind is ChangeKind.SYNCED:
                break
        for number in range(min(options.jobs, 200)):
            started = time.perf_counter()
            await kube.create(paths.training_jobs("default"), _job(f"single-{number}"))
            posts_ms.append(1000 * (time.perf_counter() - started))
            async for change in changes:
                seen = change.object.get("metadata", {}).get("name") == f"single-{number}"
                if seen and change.object.get("status", {}).get("assignment"):
                    break
            bound_ms.append(1000 * (time.perf_counter() - started))
            await asyncio.sleep(0.05)
    operator.stop()
    post, bound = statistics.median(posts_ms), statistics.median(bound_ms)
    p99 = sorted(bound_ms)[int(0.99 * len(bound_ms))]
    print(f"submit: POST {post:.1f} ms, bound {bound:.1f} ms, {bound / post:.2f} POSTs (goal 2.2); p99 {p99:.1f} (50)")


class Rate(NamedTuple):
    """How fast jobs were bound, and what one binding cost."""

    a_second: float
    own_ms: float
    """CPU of the operator, whatever it did meanwhile."""
    server_ms: float
    """CPU of the API server."""


async def _bind_rate(platform: Platform, kube: Kube, names: list[str], jobs: int) -> Rate:
    """Jobs bound per second by an operator that starts now, from the first binding it tells of to the last."""
    await _renew_all(kube, names)
    operator = platform.start_operator(wait=False)
    own, server = Path(f"/proc/{operator.pid}/stat"), ApiServer(platform.cluster)
    first: tuple[float, int, float, float] | None = None
    deadline = time.monotonic() + WITHIN_S
    try:
        while True:
            bound, at = await asyncio.to_thread(_bound, platform.metrics_port), time.perf_counter()
            spent = cpu_s(own), server.cpu_s()
            if first is None and bound:
                first = (at, bound, *spent)
            if first is not None and bound >= jobs:
                since, already, *before = first
                count = max(1, bound - already)
                own_ms, server_ms = (1000 * (now - then) / count for now, then in zip(spent, before, strict=True))
                return Rate(count / (at - since), own_ms, server_ms)
            if time.monotonic() > deadline or not operator.running:
                raise RuntimeError(f"{bound} of {jobs} jobs were bound; the operator said: {operator.log}")
            await asyncio.sleep(0.05)
    finally:
        operator.stop()


def _bound(port: int) -> int:
    """Bindings so far, by the operator's own count."""
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith('cyxwiz_api_writes_total{kind="bind",result="ok"}'):
                return int(float(line.rpartition(" ")[2]))
    return 0


async def _make_node(kube: Kube, name: str) -> None:
    head = {"apiVersion": "cyxwiz.io/v1alpha1", "kind": "ComputeNode", "metadata": {"name": name}}
    await kube.create(paths.compute_nodes(), {**head, "spec": {}})
    inventory = {"cpus": 64, "memoryMiB": 2**19, "gpus": []}
    await kube.merge_patch(paths.status(paths.compute_node(name)), {"status": {"inventory": inventory}})
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}}
    await kube.create(paths.leases(NAMESPACE), {**lease, "spec": _held()})


async def _renew_all(kube: Kube, names: Iterable[str]) -> None:
    await _in_parallel(kube.merge_patch(paths.lease(NAMESPACE, name), {"spec": _held()}) for name in names)


@contextlib.asynccontextmanager
async def _renewing(kube: Kube, names: list[str]) -> AsyncIterator[None]:
    """Each of the Leases is renewed every 10 s, evenly spread, while the block runs."""

    async def beat() -> None:
        while names:
            for name in names:
                await kube.merge_patch(paths.lease(NAMESPACE, name), {"spec": _held()})
                await asyncio.sleep(RENEW_S / len(names))

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _make_jobs(kube: Kube, count: int, prefix: str) -> list[str]:
    names = [f"{prefix}-{number}" for number in range(count)]
    await _in_parallel(kube.create(paths.training_jobs("default"), _job(name)) for name in names)
    return [paths.training_job("default", name) for name in names]


async def _delete(kube: Kube, jobs: Iterable[str]) -> None:
    async def one(path: str) -> None:
        with contextlib.suppress(NotFound):
            await kube.delete(path, uid=(await kube.get(path))["metadata"]["uid"])

    await _in_parallel(one(path) for path in jobs)


async def _in_parallel(requests: Iterable[Awaitable[Any]]) -> None:
    """Every request is answered, PARALLEL at a time."""
    waiting = iter(requests)

    async def worker() -> None:
        for request in waiting:
            await request

    async with asyncio.TaskGroup() as group:
        for _ in range(PARALLEL):
            group.create_task(worker())


def _job(name: str) -> Object:
    spec = {"model": {"name": "cnn"}, "dataset": {"uri": "builtin://digits"}, "resources": {"gpus": 0, "cpus": 1}}
    return {"apiVersion": "cyxwiz.io/v1alpha1", "kind": "TrainingJob", "metadata": {"name": name}, "spec": spec}


def _held() -> Object:
    renewed = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {"holderIdentity": "benchmark", "leaseDurationSeconds": 40, "renewTime": renewed}


def _as_if_queued() -> Object:
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


if __name__ == "__main__":
    main()
