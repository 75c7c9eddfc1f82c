"""What agent and runner cost their node while four jobs train there: CPU time and memory.

    python -m benchmarks.agent_cost [--gpus 8] [--repetitions 5] [--seconds 30]

Goals: the agent 2 % of a core and 120 MB, the runner 60 MB, its trainers not counted. A real control plane, four real
trainers that report as fast as they may. The agent pays for its watch, the Lease, four workers and their reports, and
the look at its (simulated) devices.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import urllib.request
from pathlib import Path

from benchmarks.machine import cpu_s, describe
from cyxwiz_devcluster import start
from cyxwiz_platform import Machine, Platform
from tests.thread import endless, stepping

NODE = "measured"
JOBS = 4
EVERY_BEAT_S = 30.0
"""Every beat of the agent falls into it at least once."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--gpus", type=int, default=8, help="simulated GPUs of the node (default: %(default)s)")
    parser.add_argument("--repetitions", type=int, default=5, help="of each row (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=EVERY_BEAT_S, help="of one (default: %(default)s)")
    options = parser.parse_args()
    gpus, repetitions, interval_s = options.gpus, options.repetitions, options.seconds
    with (
        tempfile.TemporaryDirectory() as folder,
        start(Path(folder) / "cluster") as cluster,
        Platform(cluster, Path(folder) / "platform") as platform,
    ):
        platform.install()
        machine = platform.add_machine(NODE, cpus=JOBS, memory="4Gi", warm=0, simulated_gpus=gpus)
        platform.start_operator()
        platform.wait_machines()
        print(f"{describe()}; {gpus} simulated GPUs, {repetitions} times {interval_s:.0f} s, medians and largest")
        _measure(machine, "no job", repetitions, interval_s)
        names = [f"job-{number}" for number in range(JOBS)]
        platform.apply(*(endless(name) for name in names))
        for name in names:
            platform.wait_for("trainingjob", name, stepping, what="training", within_s=300)
        _measure(machine, f"{JOBS} jobs", repetitions, interval_s)


def _measure(machine: Machine, what: str, repetitions: int, interval_s: float) -> None:
    processes = {"agent": Path(f"/proc/{machine.agent.pid}"), "runner": Path(f"/proc/{machine.runner.pid}")}
    shares: dict[str, list[float]] = {name: [] for name in processes}
    sizes: dict[str, list[float]] = {name: [] for name in processes}
    reports, started = _reports(machine), time.perf_counter()
    for _ in range(repetitions):
        before = {name: cpu_s(process / "stat") for name, process in processes.items()}
        began = time.perf_counter()
        time.sleep(interval_s)
        for name, process in processes.items():
            shares[name].append(100 * (cpu_s(process / "stat") - before[name]) / (time.perf_counter() - began))
            sizes[name].append(_rss_mb(process))
    rate = 60 * (_reports(machine) - reports) / (time.perf_counter() - started)
    for name in processes:
        share = f"{statistics.median(shares[name]):.2f} % of a core (at most {max(shares[name]):.2f})"
        rss = f"RSS {statistics.median(sizes[name]):.0f} MB (at most {max(sizes[name]):.0f})"
        print(f"{what:8} {name:8} {share:40} {rss:26} {rate:.0f} reports a minute", flush=True)


def _reports(machine: Machine) -> float:
    """Accepted by the API server so far. Their rate follows its latency, and the agent's cost follows their rate."""
    with urllib.request.urlopen(f"http://127.0.0.1:{machine.agent_port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("cyxwiz_agent_reports_total"))


def _rss_mb(process: Path) -> float:
    lines = (process / "status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmRSS"))


if __name__ == "__main__":
    main()
