"""The operator against a real API server on the same machine: how much of what the server can take it uses.

    python -m benchmarks.scheduler drain      # bound jobs per second over raw status patches per second
    python -m benchmarks.scheduler heartbeat  # bound jobs per second while every node's Lease is renewed, over without
    python -m benchmarks.scheduler progress   # bound jobs per second while --running jobs report progress, over without
    python -m benchmarks.scheduler submit     # from POST to bound on an idle operator, over the POST's median

Both sides of a pair run on the same server one after the other; ratios are medians over the pairs. ComputeNodes are
objects without machines behind them: no job runs, and agents that report progress are simulated. A pair of 300 jobs and
100 nodes takes about 10 s where the server takes 300 writes a second; `--jobs 3000 --nodes 1000` about ten times as
long.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import time

from benchmarks.load import (
    OPERATOR,
    as_if_queued,
    bind_rate,
    connected,
    delete_jobs,
    in_parallel,
    installed,
    job,
    make_jobs,
    make_node,
    renew_all,
    renewing,
    sizes,
)
from benchmarks.machine import ApiServer, describe
from benchmarks.simulated_agents import RunningJobs
from cyxwiz_kube import ChangeKind, Kube, paths
from cyxwiz_platform import Platform

SETTLES_S = 20.0
"""Until agents that begin to report have found the pace that the server can take."""


def main() -> None:
    parser = sizes(__doc__, jobs=300, nodes=100, pairs=5, running=1000)
    parser.add_argument("what", choices=("drain", "heartbeat", "progress", "submit"))
    options = parser.parse_args()
    with installed() as platform:
        asyncio.run(_run(platform, options))


async def _run(platform: Platform, options: argparse.Namespace) -> None:
    print(f"{describe()}; {options.jobs} jobs, {options.nodes} nodes, {options.pairs} pairs", flush=True)
    async with connected(platform) as kube:
        names = [f"node-{number:05}" for number in range(options.nodes)]
        await in_parallel(make_node(kube, name) for name in names)
        match options.what:
            case "drain":
                await _drain(platform, kube, names, options)
            case "heartbeat":
                await _heartbeat(platform, kube, names, options)
            case "progress":
                await _progress(platform, kube, names, options)
            case _:
                await _submit(platform, kube, names, options)


async def _drain(platform: Platform, kube: Kube, names: list[str], options: argparse.Namespace) -> None:
    ratios: list[float] = []
    server = ApiServer(platform.cluster)
    for pair in range(options.pairs):
        jobs = await make_jobs(kube, options.jobs, f"pair-{pair}")
        own_s, server_s = time.process_time(), server.cpu_s()
        raw = await _patch_rate(kube, jobs)
        own_ms = 1000 * (time.process_time() - own_s) / len(jobs)
        server_ms = 1000 * (server.cpu_s() - server_s) / len(jobs)
        bound = await bind_rate(platform, kube, names, len(jobs))
        ratios.append(bound.a_second / raw)
        print(
            f"  bound {bound.a_second:.0f}/s ({bound.own_ms:.2f} ms of CPU each, server {bound.server_ms:.2f}), "
            f"raw patches {raw:.0f}/s ({own_ms:.2f}, server {server_ms:.2f}): {ratios[-1]:.2f}",
            flush=True,
        )
        await delete_jobs(kube, jobs)
    print(f"drain: median {statistics.median(ratios):.2f} of the raw patch rate (goal 0.85)")


async def _heartbeat(platform: Platform, kube: Kube, names: list[str], options: argparse.Namespace) -> None:
    """Raw patches of the same jobs beside: what the renewals alone take from whoever writes."""
    ratios: list[float] = []
    raw_ratios: list[float] = []
    for pair in range(options.pairs):
        rates: dict[bool, float] = {}
        raw: dict[bool, float] = {}
        for beating in (True, False) if pair % 2 else (False, True):
            jobs = await make_jobs(kube, options.jobs, f"pair-{pair}-{beating}".lower())
            async with renewing(kube, names if beating else []):
                raw[beating] = await _patch_rate(kube, jobs)
                rates[beating] = (await bind_rate(platform, kube, names, len(jobs))).a_second
            await delete_jobs(kube, jobs)
        ratios.append(rates[True] / rates[False])
        raw_ratios.append(raw[True] / raw[False])
        print(
            f"  with {rates[True]:.0f}/s, without {rates[False]:.0f}/s: {ratios[-1]:.2f}; "
            f"raw patches {raw[True]:.0f}/s and {raw[False]:.0f}/s: {raw_ratios[-1]:.2f}",
            flush=True,
        )
    print(
        f"heartbeat: median {statistics.median(ratios):.2f} of the rate without (goal 0.85); "
        f"raw patches {statistics.median(raw_ratios):.2f}"
    )


async def _patch_rate(kube: Kube, jobs: list[str]) -> float:
    """Status patches per second, as large as a binding's."""
    started = time.perf_counter()
    await in_parallel(kube.merge_patch(paths.status(path), {"status": as_if_queued()}) for path in jobs)
    return len(jobs) / (time.perf_counter() - started)


async def _progress(platform: Platform, kube: Kube, names: list[str], options: argparse.Namespace) -> None:
    """Simulated agents, each report at its adaptive interval; on the other side the same jobs run and say nothing."""
    ratios: list[float] = []
    async with contextlib.aclosing(RunningJobs(kube)) as running, renewing(kube, names):
        await running.start(await make_jobs(kube, options.running, "runs"), names)
        for pair in range(options.pairs):
            rates: dict[bool, float] = {}
            for telling in (True, False) if pair % 2 else (False, True):
                jobs = await make_jobs(kube, options.jobs, f"pair-{pair}-{telling}".lower())
                async with running.reporting() if telling else contextlib.nullcontext():
                    await asyncio.sleep(SETTLES_S)
                    before, started = running.reports, time.perf_counter()
                    rates[telling] = (await bind_rate(platform, kube, names, len(jobs))).a_second
                    if telling:
                        a_second = (running.reports - before) / (time.perf_counter() - started)
                        print(f"  {a_second:.0f} reports/s, each job every {running.interval_s:.1f} s", flush=True)
                await delete_jobs(kube, jobs)
            ratios.append(rates[True] / rates[False])
            print(f"  with {rates[True]:.0f}/s, without {rates[False]:.0f}/s: {ratios[-1]:.2f}", flush=True)
    print(
        f"progress of {options.running} jobs by simulated agents: "
        f"median {statistics.median(ratios):.2f} of the rate without (goal 0.85)"
    )


async def _submit(platform: Platform, kube: Kube, names: list[str], options: argparse.Namespace) -> None:
    await renew_all(kube, names)
    operator = platform.start_operator(module=OPERATOR)
    posts_ms: list[float] = []
    bound_ms: list[float] = []
    async with renewing(kube, names):
        changes = kube.watch(paths.training_jobs("default"))
        async for change in changes:
            if change.kind is ChangeKind.SYNCED:
                break
        for number in range(min(options.jobs, 200)):
            started = time.perf_counter()
            await kube.create(paths.training_jobs("default"), job(f"single-{number}"))
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


if __name__ == "__main__":
    main()
