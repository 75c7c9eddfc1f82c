"""Jobs bound by the operator over pods bound by kube-scheduler: same API server, same creator, no client limits.

    python -m benchmarks.against_kube_scheduler --jobs 3000 --nodes 1000 --pairs 5

Pods and jobs are made first and counted, by a watch, from the first that is bound to the last. Nodes are objects
without machines: nothing is ever started. Pods tolerate what the node controller thinks of such nodes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.load import (
    OPERATOR,
    WITHIN_S,
    Object,
    connected,
    delete_jobs,
    in_parallel,
    installed,
    make_jobs,
    make_node,
    renew_all,
    sizes,
)
from benchmarks.machine import ApiServer, cpu_s, describe
from cyxwiz_devcluster import find_or_build
from cyxwiz_kube import ChangeKind, Kube, paths
from cyxwiz_platform import Platform
from cyxwiz_platform.children import PlatformProcess

NAMESPACE = "pods"


class Side(NamedTuple):
    """What one of the two made of it."""

    a_second: float
    own_ms: float
    """CPU of the scheduler per item."""
    server_ms: float


def main() -> None:
    options = sizes(__doc__, jobs=300, nodes=100, pairs=5).parse_args()
    find_or_build("kube-scheduler")  # before anything is measured
    with installed() as platform:
        asyncio.run(_run(platform, options))


async def _run(platform: Platform, options: argparse.Namespace) -> None:
    print(f"{describe()}; {options.jobs} jobs and pods, {options.nodes} nodes, {options.pairs} pairs", flush=True)
    names = [f"node-{number:05}" for number in range(options.nodes)]
    async with connected(platform) as kube:
        await kube.create("/api/v1/namespaces", {"kind": "Namespace", "metadata": {"name": NAMESPACE}})
        await in_parallel(make_node(kube, name) for name in names)
        await in_parallel(_make_machine(kube, name) for name in names)
        pairs: list[tuple[Side, Side]] = []
        for pair in range(options.pairs):
            sides = {}
            for ours in (True, False) if pair % 2 else (False, True):
                side = _ours if ours else _theirs
                sides[ours] = await side(platform, kube, names, options.jobs, pair)
                what = "jobs by cyxwiz" if ours else "pods by kube-scheduler"
                rate, own_ms, server_ms = sides[ours]
                print(f"  {rate:.0f} {what}/s, CPU {own_ms:.2f} ms each, server {server_ms:.2f}", flush=True)
            pairs.append((sides[True], sides[False]))
    rate = statistics.median(ours.a_second / theirs.a_second for ours, theirs in pairs)
    cpu = statistics.median(ours.own_ms / theirs.own_ms for ours, theirs in pairs)
    print(f"against kube-scheduler: median {rate:.2f} of its rate (goal 1, aim 1.2), {cpu:.2f} of its CPU (goal 0.3)")


async def _ours(platform: Platform, kube: Kube, names: list[str], count: int, pair: int) -> Side:
    jobs = await make_jobs(kube, count, f"pair-{pair}")
    await renew_all(kube, names)

    @contextmanager
    def deciding() -> Iterator[PlatformProcess]:
        operator = platform.start_operator(wait=False, module=OPERATOR)
        try:
            yield operator
        finally:
            operator.stop()

    side = await _counted(platform, kube, paths.training_jobs("default"), count, _has_assignment, deciding)
    await delete_jobs(kube, jobs)
    return side


async def _theirs(platform: Platform, kube: Kube, names: list[str], count: int, pair: int) -> Side:
    pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
    await in_parallel(kube.create(pods, _pod(f"pair-{pair}-{number}")) for number in range(count))

    @contextmanager
    def deciding() -> Iterator[PlatformProcess]:
        config = platform.folder / "kube-scheduler.json"
        connection = {"kubeconfig": str(platform.cluster.kubeconfig), "qps": 100_000, "burst": 100_000}
        content = {"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration"}
        content |= {"clientConnection": connection, "leaderElection": {"leaderElect": False}}
        config.write_text(json.dumps(content))
        command = [str(find_or_build("kube-scheduler")), f"--config={config}", "--secure-port=0"]
        scheduler = PlatformProcess("kube-scheduler", command, platform.logs / "kube-scheduler.log")
        try:
            yield scheduler
        finally:
            scheduler.stop()

    side = await _counted(platform, kube, pods, count, lambda pod: bool(pod["spec"].get("nodeName")), deciding)
    flags = ["--all", "--force", "--grace-period=0", "--wait=false"]
    await asyncio.to_thread(platform.cluster.run_kubectl, "delete", "pods", "-n", NAMESPACE, *flags, timeout=600)
    return side


async def _counted(
    platform: Platform, kube: Kube, path: str, count: int, is_bound: Callable[[Object], bool], deciding: Any
) -> Side:
    """From the first object that the scheduler started by `deciding` binds, to the last."""
    server, bound = ApiServer(platform.cluster), 0
    changes = kube.watch(path)
    async for change in changes:
        if change.kind is ChangeKind.SYNCED:
            break
    seen: set[str] = set()
    with deciding() as process:
        own = Path(f"/proc/{process.pid}/stat")
        started, spent = 0.0, (0.0, 0.0)
        async with asyncio.timeout(WITHIN_S):
            async for change in changes:
                uid = change.object["metadata"]["uid"]
                if change.kind is not ChangeKind.PRESENT or uid in seen or not is_bound(change.object):
                    continue
                seen.add(uid)
                bound += 1
                if bound == 1:
                    started, spent = time.perf_counter(), (cpu_s(own), server.cpu_s())
                if bound == count:
                    break
        took_s, items = time.perf_counter() - started, count - 1
        own_ms, server_ms = 1000 * (cpu_s(own) - spent[0]) / items, 1000 * (server.cpu_s() - spent[1]) / items
    return Side(items / took_s, own_ms, server_ms)


def _has_assignment(job: Object) -> bool:
    return bool((job.get("status") or {}).get("assignment"))


async def _make_machine(kube: Kube, name: str) -> None:
    await kube.create("/api/v1/nodes", {"kind": "Node", "metadata": {"name": name}})
    room = {"cpu": "64", "memory": "512Gi", "pods": "110"}
    ready = {"type": "Ready", "status": "True", "reason": "Benchmark", "message": "no machine behind it"}
    status = {"capacity": room, "allocatable": room, "conditions": [ready]}
    await kube.merge_patch(f"/api/v1/nodes/{name}/status", {"status": status})


def _pod(name: str) -> Object:
    container = {"name": "main", "image": "none", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}
    spec = {"containers": [container], "tolerations": [{"operator": "Exists"}], "automountServiceAccountToken": False}
    return {"kind": "Pod", "metadata": {"name": name}, "spec": spec}


if __name__ == "__main__":
    main()
