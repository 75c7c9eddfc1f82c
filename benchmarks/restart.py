"""A restart in front of a long queue: from the operator's start to its first bind, over a raw LIST of the same jobs.

    python -m benchmarks.restart --jobs 50000 --nodes 100 --pairs 5

What the process takes to start and bind with a single job waiting is taken off both times and memory. The jobs are of
eight shapes; each pair is one raw LIST, page by page as the operator asks for it, and one start.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from pathlib import Path

from benchmarks.load import bound_so_far, connected, in_parallel, installed, job, make_node, renew_all, sizes
from benchmarks.machine import describe
from cyxwiz_kube import Kube, paths
from cyxwiz_kube.listing import PAGE
from cyxwiz_platform import Platform

SHAPES = 8
WITHIN_S = 600.0


def main() -> None:
    options = sizes(__doc__, jobs=5000, nodes=100, pairs=5).parse_args()
    with installed() as platform:
        asyncio.run(_run(platform, options))


async def _run(platform: Platform, options: argparse.Namespace) -> None:
    print(f"{describe()}; {options.jobs} jobs, {options.nodes} nodes, {options.pairs} pairs", flush=True)
    names = [f"node-{number:05}" for number in range(options.nodes)]
    async with connected(platform) as kube:
        await in_parallel(make_node(kube, name) for name in names)
        await kube.create(paths.training_jobs("default"), job("alone"))
        await _first_bind(platform, kube, names)  # the second start finds its files in the page cache
        await kube.create(paths.training_jobs("default"), job("alone-again"))
        alone_s, alone_kib = await _first_bind(platform, kube, names)
        print(f"  with one job: first bind after {alone_s:.2f} s, {alone_kib / 1024:.0f} MiB", flush=True)
        await in_parallel(
            kube.create(paths.training_jobs("default"), job(f"job-{number:06}", cpus=1 + number % SHAPES, epochs=5))
            for number in range(options.jobs)
        )
        ratios: list[float] = []
        kib_a_job: list[float] = []
        for _ in range(options.pairs):
            raw_s = await _raw_list(kube)
            first_s, kib = await _first_bind(platform, kube, names)
            ratios.append((first_s - alone_s) / raw_s)
            kib_a_job.append((kib - alone_kib) / options.jobs)
            print(
                f"  raw LIST {raw_s:.2f} s, first bind {first_s:.2f} s after the start: {ratios[-1]:.2f}; "
                f"{kib_a_job[-1]:.2f} KiB of memory a job",
                flush=True,
            )
    print(
        f"restart: first bind after {statistics.median(ratios):.2f} raw LISTs (goal 1.5), "
        f"{statistics.median(kib_a_job):.2f} KiB a job (goal 4)"
    )


async def _raw_list(kube: Kube) -> float:
    """Seconds for every page, parsed as JSON and dropped."""
    started, page = time.perf_counter(), ""
    while True:
        answer = await kube.list(paths.training_jobs(), limit=PAGE, continue_from=page)
        page = answer["metadata"].get("continue", "")
        if not page:
            return time.perf_counter() - started


async def _first_bind(platform: Platform, kube: Kube, names: list[str]) -> tuple[float, int]:
    """(seconds from the start of the operator's process to its first bind, KiB it holds then)"""
    await renew_all(kube, names)
    started = time.perf_counter()
    operator = platform.start_operator(wait=False)
    try:
        while not await asyncio.to_thread(bound_so_far, platform.metrics_port):
            if time.perf_counter() - started > WITHIN_S or not operator.running:
                raise RuntimeError(f"nothing was bound; the operator said: {operator.last_words()}")
            await asyncio.sleep(0.05)
        return time.perf_counter() - started, _resident_kib(operator.pid)
    finally:
        operator.kill()


def _resident_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise RuntimeError("no VmRSS")


if __name__ == "__main__":
    main()
