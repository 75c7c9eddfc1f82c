"""The generator of Kueue's scheduler benchmark: makespan over the ideal, on simulated agents.

    python -m benchmarks.kueue_workloads --cohorts 1 --percent 20 --slower 2 --pairs 5

Its whole is 5 cohorts of 6 queues; a queue gets 350 small, 100 medium and 50 large workloads of 1, 5 and 20 units that
take 0.2, 0.5 and 1 s, one every 0.1, 0.5 and 1.2 s, and has 20 units of its own and the idle ones of its cohort. Here a
unit is a CPU, a queue a namespace, and a cohort six nodes of 20 CPUs that its queues alone may use. 15,000 workloads
within 66 s are 1,400 writes a second: `--cohorts` takes fewer cohorts, `--percent` that share of each queue's
workloads, `--slower` stretches runtimes and intervals; what the ideal and the measured makespan are of is printed.

The ideal is the longer of the work over the capacity and the arrival of the last workload with its runtime. A simulated
agent reports a job as running when it sees the binding, and as succeeded after its runtime.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.load import connected, delete_jobs, in_parallel, installed, job, make_node, renewing, sizes
from benchmarks.machine import describe
from benchmarks.simulated_agents import run_all
from cyxwiz_kube import Kube, paths
from cyxwiz_platform import Platform

QUEUES = 6
QUOTA = 20
WHOLE = 15_000


class Workloads(NamedTuple):
    """One class of the generator's, per queue."""

    name: str
    jobs: int
    units: int
    runtime_s: float
    interval_s: float
    priority: int


CLASSES = (
    Workloads("small", 350, 1, 0.2, 0.1, 50),
    Workloads("medium", 100, 5, 0.5, 0.5, 100),
    Workloads("large", 50, 20, 1.0, 1.2, 200),
)


class Planned(NamedTuple):
    """One workload to come."""

    at_s: float
    name: str
    cohort: int
    queue: int
    kind: Workloads


def main() -> None:
    options = sizes(__doc__, cohorts=1, percent=20, slower=2, pairs=3).parse_args()
    with installed() as platform:
        asyncio.run(_run(platform, options))


async def _run(platform: Platform, options: argparse.Namespace) -> None:
    names = [f"cohort-{cohort}-node-{node}" for cohort in range(options.cohorts) for node in range(QUEUES)]
    async with connected(platform) as kube:
        await in_parallel(make_node(kube, name, QUOTA, {"cohort": name.split("-")[1]}) for name in names)
        for cohort in range(options.cohorts):
            for queue in range(QUEUES):
                namespace = {"kind": "Namespace", "metadata": {"name": f"cohort-{cohort}-queue-{queue}"}}
                await kube.create("/api/v1/namespaces", namespace)
        async with renewing(kube, names):
            platform.start_operator()
            ratios = [await _makespan(kube, options, repetition) for repetition in range(options.pairs)]
    print(f"Kueue's workloads on simulated agents: makespan {statistics.median(ratios):.2f} of the ideal (goal 2)")


async def _makespan(kube: Kube, options: argparse.Namespace, repetition: int) -> float:
    planned = sorted(_generated(options, repetition))
    runtime_s = {each.name: each.kind.runtime_s * options.slower for each in planned}
    ideal_s = _ideal_s(planned, options.slower)
    agents = asyncio.create_task(run_all(kube, runtime_s))
    started = time.perf_counter()
    async with asyncio.TaskGroup() as creating:
        for each in planned:
            await asyncio.sleep(max(0.0, started + each.at_s - time.perf_counter()))
            creating.create_task(kube.create(paths.training_jobs(_namespace(each)), _job(each)))
    created_s = time.perf_counter() - started
    makespan_s = await agents - started
    print(
        f"  {describe()}: {len(planned)} workloads ({len(planned) / WHOLE:.0%} of Kueue's, {options.slower} times as "
        f"slow), created within {created_s:.0f} s: makespan {makespan_s:.1f} s, ideal {ideal_s:.1f} s, "
        f"{makespan_s / ideal_s:.2f} of it",
        flush=True,
    )
    await delete_jobs(kube, [paths.training_job(_namespace(each), each.name) for each in planned])
    return makespan_s / ideal_s


def _generated(options: argparse.Namespace, repetition: int) -> Iterator[Planned]:
    for cohort in range(options.cohorts):
        for queue in range(QUEUES):
            for kind in CLASSES:
                for number in range(max(1, kind.jobs * options.percent // 100)):
                    name = f"{kind.name}-{repetition}-{cohort}-{queue}-{number}"
                    yield Planned(number * kind.interval_s * options.slower, name, cohort, queue, kind)


def _ideal_s(planned: list[Planned], slower: int) -> float:
    cohorts = {each.cohort for each in planned}
    work = sum(each.kind.units * each.kind.runtime_s * slower for each in planned)
    last_s = max(each.at_s + each.kind.runtime_s * slower for each in planned)
    return max(work / (QUOTA * QUEUES * len(cohorts)), last_s)


def _namespace(planned: Planned) -> str:
    return f"cohort-{planned.cohort}-queue-{planned.queue}"


def _job(planned: Planned) -> dict[str, object]:
    kind = planned.kind
    selector = {"cohort": str(planned.cohort)}
    return job(planned.name, cpus=kind.units, priority=kind.priority, nodeSelector=selector)


if __name__ == "__main__":
    main()
