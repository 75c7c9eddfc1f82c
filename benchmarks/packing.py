"""Throughput of jobs packed on one GPU against one job there, through MPS and by time slices; on a CPU, one core each.

    python -m benchmarks.packing [--jobs 4] [--seconds 20] [--repetitions 5] [--uids 200000-200999]

A real runner and real trainers, no cluster. Each job is a ResNet-18 at batch 32, which waits for launches more than
for arithmetic; `--uids` gives each a user of its own, as on a node. Rates are training samples a second in one window
in which all run; the share is that of the slowest against an equal part.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from cyxwiz_agent.devices import read_devices
from cyxwiz_crds import TrainingJobSpec
from cyxwiz_protocol.clock import boottime
from cyxwiz_protocol.job_folder import JobFolder, Tail, write_json
from cyxwiz_protocol.order import JobOrder
from cyxwiz_protocol.records import ProgressRecord, StartedRecord, parse_record
from cyxwiz_protocol.runner_api import Snapshot, socket_path
from cyxwiz_runner.mps import CONTROL_PROGRAM

BATCH = 32
WITHIN_S = 300.0
GIB = 2**30


@dataclass(frozen=True)
class Packed:
    """One window."""

    rates: list[float]
    """Samples a second, of each job."""
    device: str

    @property
    def share(self) -> float:
        """Of the slowest, against an equal part."""
        return min(self.rates) * len(self.rates) / sum(self.rates)


class Node:
    """A runner, asked as an agent asks it."""

    def __init__(self, state: Path) -> None:
        self.state = state

    def ask(self, **request: Any) -> Any:
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection:
            connection.connect(str(socket_path(self.state)))
            connection.sendall(json.dumps(request).encode() + b"\n")
            return json.loads(connection.makefile("rb").readline())

    def run(self, name: str, gpus: list[str], gpu_memory: int | None) -> JobFolder:
        folder = JobFolder.of(self.state, name)
        folder.path.mkdir(parents=True)
        resources = {"gpus": len(gpus), "cpus": 1, "memory": "2Gi"}
        if gpu_memory is not None:
            resources["gpuMemory"] = f"{gpu_memory}Gi"
        spec = {
            "model": {"name": "resnet18", "options": {"width": 64 if gpus else 8}},
            "dataset": {"uri": "mock://cifar10?samples=2000"},
            "batchSize": BATCH,
            "epochs": 100_000,
            "checkpoint": {"everyEpochs": 10_000},
            "resources": resources,
        }
        order = JobOrder(
            assignment_id=name,
            namespace="bench",
            name=name,
            attempt=1,
            spec=TrainingJobSpec.model_validate(spec),
            gpus=gpus,
        )
        write_json(folder.order, order.wire())
        request = {"assignmentId": name, "jobUid": name, "attempt": 1, "key": f"bench/{name}", "gpus": gpus}
        request |= {"memoryBytes": 2 * GIB, "deadline": boottime() + 3600}
        if gpu_memory is not None:
            request["gpuMemoryBytes"] = gpu_memory * GIB
        answer = self.ask(verb="run", **request)
        assert answer["ok"], answer
        return folder

    def end(self, folders: list[JobFolder]) -> None:
        for folder in folders:
            self.ask(verb="stop", assignmentId=folder.assignment_id, graceSeconds=0)
        _wait(lambda: all(folder.exit.exists() for folder in folders), "the end of the jobs")


@contextlib.contextmanager
def node(*flags: str) -> Iterator[Node]:
    """A runner that serves."""
    folder = Path(tempfile.mkdtemp(prefix="cyxwiz-packing-"))
    folder.chmod(0o755)
    state = folder / "state"
    command = [sys.executable, "-m", "cyxwiz_runner", "--state", str(state), "--warm", "0", *flags]
    with (folder / "runner.log").open("wb") as log:
        runner = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait(lambda: socket_path(state).exists() or runner.poll() is not None, "the runner")
        assert runner.poll() is None, (folder / "runner.log").read_text()
        yield Node(state)
    finally:
        runner.terminate()
        runner.wait()
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=0, help="packed jobs (default: 4 on a GPU, one a core else)")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--uids", metavar="FIRST-LAST", help="for a uid per job; needs root")
    options = parser.parse_args()
    gpus = [gpu.uuid for gpu in read_devices().gpus[:1]]
    count = options.jobs or (4 if gpus else len(os.sched_getaffinity(0)))
    separate = ["--uids", options.uids] if options.uids else []
    device = read_devices().gpus[0].name if gpus else "no GPU"
    print(f"{describe()}; {device}; {count} jobs; {options.repetitions} windows of {options.seconds:.0f} s", flush=True)
    with node("--mps-command", "[]", *separate) as plain:
        one = _rows(plain, "one", 1, gpus, None, options)
        if not gpus:
            _tell("a core each", _rows(plain, "packed", count, gpus, None, options), one)
            return
        _tell("whole GPU, one job", one, one)
        _tell("time slices", _rows(plain, "sliced", count, gpus, 8, options), one)
    if shutil.which(CONTROL_PROGRAM) is None:
        print(f"{CONTROL_PROGRAM} is not on PATH: no row for MPS")
        return
    with node(*separate) as mps:
        _tell("MPS", _rows(mps, "mps", count, gpus, 8, options), one)


def _rows(
    on: Node, name: str, count: int, gpus: list[str], gpu_memory: int | None, options: argparse.Namespace
) -> list[Packed]:
    folders = [on.run(f"{name}-{number}", gpus, gpu_memory) for number in range(count)]
    for folder in folders:
        _wait(lambda folder=folder: _newest(folder)[1] or folder.exit.exists(), f"steps of {folder.assignment_id}")
        assert not folder.exit.exists(), folder.log.read_text()[-2000:]
    rows = [_window(folders, options.seconds) for _ in range(options.repetitions)]
    jobs = Snapshot.model_validate(on.ask(verb="list")).jobs
    print(f"  {name}: {', '.join(sorted({str(job.start.sharing) for job in jobs if job.start and not job.exit}))}")
    on.end(folders)
    return rows


def _window(folders: list[JobFolder], seconds: float) -> Packed:
    began = [_newest(folder)[1] for folder in folders]
    time.sleep(seconds)
    rates: list[float] = []
    device = ""
    for folder, first in zip(folders, began, strict=True):
        device, last = _newest(folder)
        assert first is not None
        assert last is not None
        rates.append((last.step - first.step) * BATCH / (last.t - first.t))
    return Packed(rates, device)


def _newest(folder: JobFolder) -> tuple[str, ProgressRecord | None]:
    """What it trains on, and its newest progress."""
    device, newest = "", None
    for line in Tail(folder.metrics).lines():
        record = parse_record(line)
        if isinstance(record, StartedRecord):
            device = record.device
        elif isinstance(record, ProgressRecord):
            newest = record
    return device, newest


def _tell(name: str, rows: list[Packed], one: list[Packed]) -> None:
    total = statistics.median(sum(row.rates) for row in rows)
    alone = statistics.median(sum(row.rates) for row in one)
    share = min(row.share for row in rows)
    print(f"{name:<20}{total:>10.0f} samples/s{total / alone:>7.2f}x one job, least share {share:.2f}", rows[0].device)


def _wait(condition: Callable[[], Any], what: str) -> None:
    until = time.monotonic() + WITHIN_S
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"{what}: not within {WITHIN_S:.0f} s")
        time.sleep(0.02)


if __name__ == "__main__":
    main()
