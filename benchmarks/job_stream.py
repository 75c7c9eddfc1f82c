"""What one change of a job costs its reader: a bare watch, our stream of parsed views, and kopf's `on.event`.

    python -m benchmarks.job_stream --jobs 300 --pairs 5

All three read the same changes at the same time, each in a process of its own, so that a busy machine slows them alike.
A change is a report of progress of a running job. CPU is counted from the first change to the last.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import kopf

from benchmarks.load import WITHIN_S, connected, in_parallel, installed, make_jobs, sizes
from benchmarks.machine import describe
from benchmarks.simulated_agents import RunningJobs
from cyxwiz_crds import GROUP, VERSION
from cyxwiz_kube import ChangeKind, Kube, paths
from cyxwiz_operator.job_stream import parse_job
from cyxwiz_operator.views import JobView
from cyxwiz_operator.watched import Watched
from cyxwiz_platform import Platform

READERS = ("bare", "ours", "kopf")
CHANGES_A_JOB = 5


def main() -> None:
    parser = sizes(__doc__, jobs=300, pairs=5)
    parser.add_argument("--read-as", choices=READERS, help=argparse.SUPPRESS)
    parser.add_argument("--kubeconfig", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read_as:
        asyncio.run(_read(options.read_as, options.kubeconfig, options.jobs * CHANGES_A_JOB))
        return
    with installed() as platform:
        asyncio.run(_run(platform, options))


async def _run(platform: Platform, options: argparse.Namespace) -> None:
    changes = options.jobs * CHANGES_A_JOB
    print(f"{describe()}; {options.pairs} rounds of {changes} changes of {options.jobs} jobs", flush=True)
    costs: dict[str, list[float]] = {name: [] for name in READERS}
    async with connected(platform) as kube, contextlib.aclosing(RunningJobs(kube)) as running:
        await running.start(await make_jobs(kube, options.jobs, "runs"), ["node-a"])
        for _ in range(options.pairs):
            readers = {name: await _start(platform, name, options.jobs) for name in READERS}
            for reader in readers.values():
                assert reader.stdout is not None
                await reader.stdout.readline()  # it is ready
            for _ in range(CHANGES_A_JOB):
                await in_parallel(running.report(path) for path in running.jobs)
            for name, reader in readers.items():
                async with asyncio.timeout(WITHIN_S):
                    said, _ = await reader.communicate()
                costs[name].append(float(said.split()[-1]))
            print("  " + ", ".join(f"{name} {costs[name][-1]:.3f} ms" for name in READERS), flush=True)
    bare, ours, by_kopf = (statistics.median(costs[name]) for name in READERS)
    print(
        f"job stream: median {ours:.3f} ms a change ({ours / bare:.1f} bare watches), "
        f"kopf {by_kopf:.3f} ms: {by_kopf / ours:.1f} times ours"
    )


async def _start(platform: Platform, name: str, jobs: int) -> asyncio.subprocess.Process:
    flags = ["--read-as", name, "--jobs", str(jobs), "--kubeconfig", str(platform.cluster.kubeconfig)]
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.job_stream", *flags, stdout=asyncio.subprocess.PIPE
    )


async def _read(name: str, kubeconfig: Path, changes: int) -> None:
    """Says that it is ready, then the CPU milliseconds of each of so many changes."""
    async with await Kube.connect(kubeconfig=kubeconfig, user_agent=f"cyxwiz-benchmark-{name}") as kube:
        if name == "kopf":
            await _read_with_kopf(kube, changes)
        else:
            await _read_with_our_watch(kube, changes, parsed=name == "ours")


async def _read_with_our_watch(kube: Kube, changes: int, *, parsed: bool) -> None:
    watched, meter = Watched(), Meter(changes)
    async for change in kube.watch(paths.training_jobs()):
        if change.kind is ChangeKind.SYNCED:
            meter.ready()
            continue
        if parsed:
            job = parse_job(change.object)
            assert isinstance(job, JobView)
            watched.put_job(job)
        if meter.counted():
            return


async def _read_with_kopf(kube: Kube, changes: int) -> None:
    registry, over, meter = kopf.OperatorRegistry(), asyncio.Event(), Meter(changes)

    @kopf.on.login(registry=registry)
    def sign_in(**_: Any) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(**kube.credentials.for_kopf())

    @kopf.on.startup(registry=registry)
    async def tamed(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.posting.enabled = False
        settings.scanning.disabled = True

    @kopf.on.event(GROUP, VERSION, "trainingjobs", registry=registry)
    async def seen(event: kopf.RawEvent, **_: Any) -> None:
        if event["type"] is None:
            return  # of the first list
        if meter.counted():
            over.set()

    task = asyncio.create_task(kopf.operator(registry=registry, clusterwide=True, standalone=True, stop_flag=over))
    await asyncio.sleep(5)  # it does not say when it has listed everything
    meter.ready()
    await task


class Meter:
    """CPU time from the first change to the last."""

    def __init__(self, changes: int) -> None:
        self._changes = changes
        self._seen = 0
        self._ready = False
        self._since = 0.0

    def ready(self) -> None:
        """Whatever comes from now on counts."""
        self._ready = True
        print("ready", flush=True)

    def counted(self) -> bool:
        """One more; True for the last."""
        if not self._ready:
            return False
        self._seen += 1
        if self._seen == 1:
            self._since = time.process_time()
        if self._seen == self._changes:
            print(1000 * (time.process_time() - self._since) / (self._changes - 1), flush=True)
        return self._seen >= self._changes


if __name__ == "__main__":
    main()
