"""Throughput of jobs packed on one GPU against one job there, through MPS and by time slices; on a CPU, one core each.

    python -m benchmarks.packing [--jobs 4] [--seconds 4] [--repetitions 5] [--uids 200000-200999] [--mixes 0]

A real runner and real trainers, no cluster. Each job is a ResNet-18 at batch 32, which waits for launches more than for
arithmetic: eager, as a program without CUDA graphs is, and graphed, as a built-in job is. No step is compiled, which
would come in the middle of a window. Run as root every job has a user of its own, as on a node: `uids` are those that
the processes had. Rates are training samples a second in one window in which all run; the share is that of the slowest
against an equal part. One line of JSON for each row as it is there; a row whose jobs do not begin within `--limit` is
left out and says so.

`--mixes N` runs N random mixes of 2 to 4 jobs of 30 steps, each with a `gpuMemory` just above the peak it had alone, as
many mixes beside each other as the cores can start and the GPU's memory takes by the agent's ledger, and counts the
jobs that ran out of memory; after `--mix-seconds` none begins any more. `--repetitions 0` leaves the rows out.
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
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from cyxwiz_agent.devices import read_devices
from cyxwiz_agent.gpu_room import CONTEXT_MIB, GpuRoom, context_mib
from cyxwiz_crds import TrainingJobSpec
from cyxwiz_crds.compute_node import Gpu
from cyxwiz_protocol.clock import boottime
from cyxwiz_protocol.job_folder import JobFolder, Tail, write_json
from cyxwiz_protocol.order import JobOrder
from cyxwiz_protocol.records import ExitCode, ExitRecord, FailureRecord, ProgressRecord, StartedRecord, parse_record
from cyxwiz_protocol.runner_api import JobProcess, Snapshot, socket_path
from cyxwiz_runner.mps import CONTROL_PROGRAM

BATCH = 32
GIB = 2**30
MIXED = (("cnn", {}, 64), ("mlp", {}, 256), ("resnet18", {"width": 64}, 32), ("resnet18", {"width": 64}, 256))
"""Models, options and batches of the random mixes."""
MIX_SEED = 0
MIX_STEPS, ALONE_STEPS = 30, 120
NEVER_COMPILED = "from cyxwiz_trainer import compile_policy; compile_policy.WORTH_TIMES = float('inf'); "
NEVER_GRAPHED = "from cyxwiz_trainer import graph; graph.FEWEST_STEPS = sys.maxsize; "
TRAIN = "from cyxwiz_trainer.__main__ import main; sys.exit(main())"


@dataclass(frozen=True)
class Packed:
    """One window."""

    rates: list[float]
    """Samples a second, of each job."""
    device: str
    uids: list[int]
    """Of the jobs' processes."""

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
        steps: int | None = None,
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
            **({"maxSteps": steps} if steps else {}),
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

    def jobs(self) -> dict[str, JobProcess]:
        """Those that run, by name."""
        jobs = Snapshot.model_validate(self.ask(verb="list")).jobs
        return {job.assignment_id: job for job in jobs if job.exit is None}

    def end(self, folders: list[JobFolder]) -> None:
        for folder in folders:
            self.ask(verb="stop", assignmentId=folder.assignment_id, graceSeconds=0)
        _wait(lambda: all(folder.exit.exists() for folder in folders), "the end of the jobs", self.limit_s)


def _listens(state: Path) -> bool:
    """Its socket lies there a moment before it is listened to."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection:
        return connection.connect_ex(str(socket_path(state))) == 0


@contextlib.contextmanager
def node(options: argparse.Namespace, *flags: str, eager: bool = False) -> Iterator[Node]:
    """A runner that serves."""
    folder = Path(tempfile.mkdtemp(prefix="cyxwiz-packing-"))
    folder.chmod(0o755)
    state = folder / "state"
    trainer = "import sys; " + NEVER_COMPILED + NEVER_GRAPHED * eager + TRAIN
    command = [sys.executable, "-m", "cyxwiz_runner", "--state", str(state), "--warm", "0", *flags]
    command += ["--trainer-command", json.dumps([sys.executable, "-s", "-P", "-c", trainer])]
    if options.uids:
        command += ["--uids", options.uids]
    with (folder / "runner.log").open("wb") as log:
        runner = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait(lambda: _listens(state) or runner.poll() is not None, "the runner", options.limit)
        assert runner.poll() is None, (folder / "runner.log").read_text()
        yield Node(state, options.limit)
    finally:
        runner.terminate()
        runner.wait()
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    own = "200000-200999" if os.geteuid() == 0 else None
    parser.add_argument("--jobs", type=int, default=0, help="packed jobs (default: 4 on a GPU, one a core else)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of a window (default: %(default)s)")
    parser.add_argument("--repetitions", type=int, default=5, help="windows of a row (default: %(default)s)")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for jobs to begin, and to end")
    parser.add_argument("--uids", metavar="FIRST-LAST", default=own, help="for a uid per job (default: %(default)s)")
    parser.add_argument("--mixes", type=int, default=0, help="random mixes after the rows")
    parser.add_argument("--mix-seconds", type=float, default=270.0, help="for all of them (default: %(default)s)")
    options = parser.parse_args()
    gpus = read_devices().gpus[:1]
    uuids = [gpu.uuid for gpu in gpus]
    count = options.jobs or (4 if gpus else len(os.sched_getaffinity(0)))
    device = gpus[0].name if gpus else "no GPU"
    print(f"{describe()}; {device}; {count} jobs; {options.repetitions} windows of {options.seconds:.0f} s", flush=True)
    has_mps = bool(gpus) and shutil.which(CONTROL_PROGRAM) is not None
    without_mps = ("--mps-command", "[]")
    with node(options, *without_mps) as plain:
        print(json.dumps({"isolation": Snapshot.model_validate(plain.ask(verb="list")).isolation}), flush=True)
    for eager in (True, False) if gpus and options.repetitions else (False,) * bool(options.repetitions):
        kind = ("eager, " if eager else "graphed, ") if gpus else ""
        with node(options, *without_mps, eager=eager) as plain:
            one = _row(plain, f"{kind}one", 1, uuids, None, options, [])
            packed = f"{kind}{'time slices' if gpus else 'a core each'}"
            _row(plain, packed, count, uuids, 8 if gpus else None, options, one)
        if has_mps:
            with node(options, eager=eager) as mps:
                _row(mps, f"{kind}MPS", count, uuids, 8, options, one)
    if gpus and not has_mps:
        print(f"{CONTROL_PROGRAM} is not on PATH: no rows for MPS")
    if options.mixes:
        with node(options, *(() if has_mps else without_mps)) as mixing:
            Mixes(mixing, gpus, "MPS" if has_mps else "time slices").run(options.mixes, options.mix_seconds)


def _row(
    on: Node,
    name: str,
    count: int,
    gpus: list[str],
    gpu_memory: int | None,
    options: argparse.Namespace,
    one: list[Packed],
) -> list[Packed]:
    base = name.replace(", ", "-").replace(" ", "-").lower()
    folders = [on.run(f"{base}-{number}", gpus, gpu_memory) for number in range(count)]
    rows: list[Packed] = []
    try:
        _wait_for_steps(on, folders)
        rows += [_window(on, folders, options.seconds) for _ in range(options.repetitions)]
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


class Mixes:
    """Random mixes beside each other on one GPU, within the ledger by which an agent admits."""

    def __init__(self, on: Node, gpus: Sequence[Gpu], sharing: str) -> None:
        self._on = on
        self._uuids = [gpu.uuid for gpu in gpus]
        self._sharing = sharing
        self._room_mib = sum(GpuRoom.of(gpus, sharing).shareable_mib.values()) if gpus else 2**40
        self._context_gib = -(-CONTEXT_MIB // 1024)
        self._ends: Counter[str] = Counter()
        self._uids: set[int] = set()
        self._kinds = MIXED if gpus else MIXED[:2]  # the others take minutes on a CPU
        self._words: list[str] = []
        self._mixes_done: list[int] = []

    def run(self, count: int, within_s: float) -> None:
        began = time.monotonic()
        alone = [self._start(f"alone-{number}", number, 16, ALONE_STEPS) for number in range(len(self._kinds))]
        _wait(lambda: all(folder.exit.exists() for folder in alone), "the jobs alone", self._on.limit_s)
        peaks = [_peak_gib(folder) for folder in alone]
        # Under MPS the limit counts the context; by time slices the ledger does.
        sizes = [peak + (self._context_gib if self._sharing == "MPS" else 0) for peak in peaks]
        charges_mib = [size * 1024 + context_mib(self._sharing) for size in sizes]
        chance = random.Random(MIX_SEED)  # a draw that can be repeated, no secret
        drawn = [[chance.randrange(len(self._kinds)) for _ in range(chance.randint(2, 4))] for _ in range(count)]
        waiting, running = deque(enumerate(drawn)), dict[int, list[JobFolder]]()
        most = max(1, len(os.sched_getaffinity(0)) // 3)
        while waiting or running:
            if time.monotonic() > began + within_s:
                waiting.clear()
            taken_mib = sum(charges_mib[kind] for mix in running for kind in drawn[mix])
            while waiting and len(running) < most:
                number, kinds = waiting[0]
                taken_mib += sum(charges_mib[kind] for kind in kinds)
                if taken_mib > self._room_mib:
                    break
                waiting.popleft()
                running[number] = [
                    self._start(f"mix-{number}-{place}", kind, sizes[kind], MIX_STEPS)
                    for place, kind in enumerate(kinds)
                ]
            self._look(running)
            time.sleep(0.1)
        done = sum(self._ends.values())
        line = {
            "mixes": len(self._mixes_done),
            "of": count,
            "jobs": done,
            "ends": dict(self._ends),
            "outOfMemory": self._ends["OutOfGPUMemory"],
            "gibibytes": dict(zip([f"{model} at {batch}" for model, _, batch in self._kinds], sizes, strict=True)),
            "sharing": self._sharing if self._uuids else "none",
            "uids": len(self._uids),
            "seconds": round(time.monotonic() - began),
            "words": self._words[:3],
        }
        print(json.dumps(line), flush=True)

    def _start(self, name: str, kind: int, gibibytes: int, steps: int) -> JobFolder:
        return self._on.run(name, self._uuids, gibibytes if self._uuids else None, self._kinds[kind], steps)

    def _look(self, running: dict[int, list[JobFolder]]) -> None:
        """Mixes of which every job has ended are counted."""
        self._uids |= set(_uids(self._on, [folder for folders in running.values() for folder in folders]))
        for number, folders in list(running.items()):
            if all(folder.exit.exists() for folder in folders):
                self._mixes_done.append(number)
                for folder in running.pop(number):
                    self._ends[self._end(folder)] += 1
                    self._on.ask(verb="forget", assignmentId=folder.assignment_id)

    def _end(self, folder: JobFolder) -> str:
        ended = ExitRecord.model_validate_json(folder.exit.read_bytes())
        if ended.exit_code == ExitCode.SUCCEEDED:
            return "Succeeded"
        failures = [record for record in _records(folder) if isinstance(record, FailureRecord)]
        self._words += [failure.message for failure in failures] or [folder.log.read_text()[-500:]]
        return failures[-1].failure if failures else f"{ended.cause} {ended.exit_code} {ended.signal}"


def _peak_gib(folder: JobFolder) -> int:
    """Most GPU memory it held, rounded up."""
    assert ExitRecord.model_validate_json(folder.exit.read_bytes()).exit_code == ExitCode.SUCCEEDED, (
        folder.log.read_text()[-2000:]
    )
    peaks = [record.gpu_memory_peak or 0 for record in _records(folder) if isinstance(record, ProgressRecord)]
    return max(1, -(-max(peaks, default=0) // GIB))


def _uids(on: Node, folders: Sequence[JobFolder]) -> list[int]:
    """Whose the jobs' processes are."""
    jobs, found = on.jobs(), set[int]()
    for folder in folders:
        job = jobs.get(folder.assignment_id)
        if job is not None and job.pid is not None:
            with contextlib.suppress(OSError):
                found.add(Path(f"/proc/{job.pid}").stat().st_uid)
    return sorted(found)


def _window(on: Node, folders: list[JobFolder], seconds: float) -> Packed:
    began = [_newest(folder)[1] for folder in folders]
    time.sleep(seconds)
    rates: list[float] = []
    device = ""
    for folder, first in zip(folders, began, strict=True):
        device, last = _newest(folder)
        assert first is not None
        assert last is not None
        rates.append((last.step - first.step) * BATCH / (last.t - first.t))
    return Packed(rates, device, _uids(on, folders))


def _newest(folder: JobFolder) -> tuple[str, ProgressRecord | None]:
    """What it trains on, and its newest progress."""
    device, newest = "", None
    for record in _records(folder):
        if isinstance(record, StartedRecord):
            device = record.device
        elif isinstance(record, ProgressRecord):
            newest = record
    return device, newest


def _records(folder: JobFolder) -> Iterator[Any]:
    return (parse_record(line) for line in Tail(folder.metrics).lines())


def _tell(on: Node, name: str, rows: list[Packed], one: list[Packed]) -> None:
    total = statistics.median(sum(row.rates) for row in rows)
    alone = statistics.median(sum(row.rates) for row in one)
    line = {
        "row": name,
        "jobs": len(rows[0].rates),
        "samplesPerSecond": round(total, 1),
        "againstOneJob": round(total / alone, 3),
        "leastShare": round(min(row.share for row in rows), 3),
        "sharing": sorted({str(job.start.sharing) for job in on.jobs().values() if job.start}),
        "uids": rows[0].uids,
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
