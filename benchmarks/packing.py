"""Throughput of jobs packed on one GPU against one job there, through MPS and by time slices; on a CPU, one core each.

    python -m benchmarks.packing [--jobs 4] [--seconds 6] [--repetitions 5] [--uids 200000-200999] [--mixes 0]

A real runner and real trainers, no cluster. Each job is a ResNet-18 at batch 32, which waits for launches more than
for arithmetic; `--uids` gives each a user of its own, as on a node. Rates are training samples a second in one window
in which all run; the share is that of the slowest against an equal part. One line of JSON for each row as it is there;
a row whose jobs do not begin within `--limit` is left out and says so.

`--mixes N` runs N random mixes of jobs, each with a `gpuMemory` just above the peak it had alone, and counts those that
ran out of memory.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
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
GIB = 2**30
CONTEXT_GIB = 1
"""Under MPS the limit counts what a process holds besides its tensors, too."""
MIXED = (("cnn", {}, 64), ("mlp", {}, 256), ("resnet18", {"width": 64}, 32), ("resnet18", {"width": 64}, 256))
"""Models, options and batches of the random mixes."""
MIX_SEED = 0


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

    def __init__(self, state: Path, limit_s: float) -> None:
        self.state = state
        self.limit_s = limit_s

    def ask(self, **request: Any) -> Any:
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection:
            connection.connect(str(socket_path(self.state)))
            connection.sendall(json.dumps(request).encode() + b"\n")
            return json.loads(connection.makefile("rb").readline())

    def run(
        self,
        name: str,
        gpus: list[str],
        gpu_memory: int | None,
        kind: tuple[str, dict[str, Any], int] | None = None,
    ) -> JobFolder:
        model, widths, batch = kind or ("resnet18", {"width": 64 if gpus else 8}, BATCH)
        folder = JobFolder.of(self.state, name)
        folder.path.mkdir(parents=True)
        resources = {"gpus": len(gpus), "cpus": 1, "memory": "2Gi"}
        if gpu_memory is not None:
            resources["gpuMemory"] = f"{gpu_memory}Gi"
        spec = {
            "model": {"name": model, "options": widths},
            "dataset": {"uri": "mock://cifar10?samples=2000"},
            "batchSize": batch,
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
        _wait(lambda: all(folder.exit.exists() for folder in folders), "the end of the jobs", self.limit_s)


@contextlib.contextmanager
def node(limit_s: float, *flags: str) -> Iterator[Node]:
    """A runner that serves."""
    folder = Path(tempfile.mkdtemp(prefix="cyxwiz-packing-"))
    folder.chmod(0o755)
    state = folder / "state"
    command = [sys.executable, "-m", "cyxwiz_runner", "--state", str(state), "--warm", "0", *flags]
    with (folder / "runner.log").open("wb") as log:
        runner = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait(lambda: socket_path(state).exists() or runner.poll() is not None, "the runner", limit_s)
        assert runner.poll() is None, (folder / "runner.log").read_text()
        yield Node(state, limit_s)
    finally:
        runner.terminate()
        runner.wait()
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=0, help="packed jobs (default: 4 on a GPU, one a core else)")
    parser.add_argument("--seconds", type=float, default=6.0, help="of a window (default: %(default)s)")
    parser.add_argument("--repetitions", type=int, default=5, help="windows of a row (default: %(default)s)")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for jobs to begin, and to end")
    parser.add_argument("--uids", metavar="FIRST-LAST", help="for a uid per job; needs root")
    parser.add_argument("--mixes", type=int, default=0, help="random mixes after the rows; needs a GPU")
    options = parser.parse_args()
    gpus = [gpu.uuid for gpu in read_devices().gpus[:1]]
    count = options.jobs or (4 if gpus else len(os.sched_getaffinity(0)))
    separate = ["--uids", options.uids] if options.uids else []
    device = read_devices().gpus[0].name if gpus else "no GPU"
    print(f"{describe()}; {device}; {count} jobs; {options.repetitions} windows of {options.seconds:.0f} s", flush=True)
    with node(options.limit, "--mps-command", "[]", *separate) as plain:
        one = _row(plain, "one", 1, gpus, None, options, [])
        _row(plain, "time slices" if gpus else "a core each", count, gpus, 8 if gpus else None, options, one)
        if gpus and options.mixes:
            _mixes(plain, gpus, options.mixes)
    if not gpus:
        return
    if shutil.which(CONTROL_PROGRAM) is None:
        print(f"{CONTROL_PROGRAM} is not on PATH: no row for MPS")
        return
    with node(options.limit, *separate) as mps:
        _row(mps, "MPS", count, gpus, 8, options, one)
        if options.mixes:
            _mixes(mps, gpus, options.mixes)


def _row(
    on: Node,
    name: str,
    count: int,
    gpus: list[str],
    gpu_memory: int | None,
    options: argparse.Namespace,
    one: list[Packed],
) -> list[Packed]:
    folders = [on.run(f"{name.replace(' ', '-')}-{number}", gpus, gpu_memory) for number in range(count)]
    rows: list[Packed] = []
    try:
        _wait_for_steps(on, folders)
        rows += [_window(folders, options.seconds) for _ in range(options.repetitions)]
        _tell(on, name, rows, one or rows)
    except TimeoutError as error:
        print(json.dumps({"row": name, "cut": str(error)}), flush=True)
    on.end(folders)
    return rows


def _wait_for_steps(on: Node, folders: list[JobFolder]) -> None:
    for folder in folders:
        begun = lambda folder=folder: _newest(folder)[1] or folder.exit.exists()  # noqa: E731  # one job's
        _wait(begun, f"steps of {folder.assignment_id}", on.limit_s)
        assert not folder.exit.exists(), folder.log.read_text()[-2000:]


def _mixes(on: Node, gpus: list[str], count: int) -> None:
    """Jobs of a mix that ran out of memory although each had as much as it needed alone."""
    peaks: list[int] = []
    for number, kind in enumerate(MIXED):
        alone = [on.run(f"alone-{number}", gpus, 32, kind)]
        _wait_for_steps(on, alone)
        newest = _newest(alone[0])[1]
        assert newest is not None
        peaks.append(-(-(newest.gpu_memory_peak or 0) // GIB))
        on.end(alone)
    chance, ran_out = random.Random(MIX_SEED), 0  # a draw that can be repeated, no secret
    for mix in range(count):
        kinds = [chance.randrange(len(MIXED)) for _ in range(chance.randint(2, 4))]
        folders = [
            on.run(f"mix-{mix}-{place}", gpus, peaks[kind] + CONTEXT_GIB, MIXED[kind])
            for place, kind in enumerate(kinds)
        ]
        for folder in folders:
            _wait(lambda folder=folder: _newest(folder)[1] or folder.exit.exists(), "steps of a mix", on.limit_s)
        ran_out += sum(folder.exit.exists() for folder in folders)
        on.end(folders)
        print(json.dumps({"mix": mix, "jobs": len(kinds), "ended": ran_out}), flush=True)
    print(json.dumps({"mixes": count, "gibibytes": peaks, "jobs that ended by themselves": ran_out}), flush=True)


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


def _tell(on: Node, name: str, rows: list[Packed], one: list[Packed]) -> None:
    total = statistics.median(sum(row.rates) for row in rows)
    alone = statistics.median(sum(row.rates) for row in one)
    jobs = Snapshot.model_validate(on.ask(verb="list")).jobs
    line = {
        "row": name,
        "jobs": len(rows[0].rates),
        "samplesPerSecond": round(total, 1),
        "againstOneJob": round(total / alone, 3),
        "leastShare": round(min(row.share for row in rows), 3),
        "sharing": sorted({str(job.start.sharing) for job in jobs if job.start and not job.exit}),
        "device": rows[0].device,
    }
    print(json.dumps(line), flush=True)


def _wait(condition: Callable[[], Any], what: str, within_s: float) -> None:
    until = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"{what}: not within {within_s:.0f} s")
        time.sleep(0.02)


if __name__ == "__main__":
    main()
