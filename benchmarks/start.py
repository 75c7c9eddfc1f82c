"""From the start of a POST to the first finished training step: on a warm trainer, and beside it in a cold process.

    python -m benchmarks.start [--repetitions 5] [--limit 75] [--models cnn resnet18]

Everything is real: API server, operator, agents, runners, trainers, each with its own permissions. Two machines share
this one: one keeps a trainer warm, the other starts every job in a fresh process. On a machine with an NVIDIA GPU the
jobs train on the first one, else on the CPU. Each repetition has three jobs: of a shape that jobs on the node have had
(known), of a batch size that none has had (new), and of the known shape on the other machine (cold). The first jobs of
a row are not counted: they make the shape known and pay for caches. A row that reaches the limit ends with the
repetitions it has. One line of JSON a row, then a table.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from cyxwiz_agent.devices import read_devices
from cyxwiz_devcluster import Cluster, start
from cyxwiz_kube import Kube, paths
from cyxwiz_platform import Machine, Platform
from cyxwiz_protocol.job_folder import JobFolder, Tail
from cyxwiz_protocol.records import StartedRecord, parse_record
from tests.thread import snapshot_of

WARM, COLD = "bench-warm", "bench-cold"
STEPS = 25
BATCH = 32


@dataclass(frozen=True)
class Shape:
    """One row."""

    model: str
    options: dict[str, Any]
    data: str
    precision: str
    for_cpu: bool
    """Worth its time there."""

    @property
    def words(self) -> str:
        return f"{self.model} {self.options['width']}" if self.options else self.model


SHAPES = (
    Shape("cnn", {}, "builtin://digits", "float32", True),
    Shape("mlp", {}, "builtin://digits", "float32", True),
    Shape("resnet18", {"width": 8}, "mock://cifar10?samples=1000", "float32", True),
    Shape("resnet18", {"width": 64}, "mock://cifar10?samples=1000", "bfloat16", False),
    Shape("vit", {}, "mock://cifar10?samples=1000", "bfloat16", False),
)


@dataclass
class Row:
    """Milliseconds of each repetition."""

    known: list[float] = field(default_factory=list[float])
    new: list[float] = field(default_factory=list[float])
    cold: list[float] = field(default_factory=list[float])
    cut: str | None = None
    """Why it has fewer repetitions."""


class Bench:
    """What a measurement needs."""

    def __init__(self, kube: Kube, platform: Platform, gpus: int) -> None:
        self._kube = kube
        self._platform = platform
        self._gpus = gpus
        self._jobs = 0
        self._batch = BATCH

    async def measure(self, shape: Shape, repetitions: int, limit_s: float) -> Row:
        row, until = Row(), time.monotonic() + limit_s
        try:
            # While a job runs on a CPU the next trainer warms up already, before the job has told its shape.
            for _ in range(1 if self._gpus else 2):
                await self._first_step_ms(WARM, shape, BATCH, until)
            await self._first_step_ms(COLD, shape, BATCH, until)
            for _ in range(repetitions):
                self._batch += 1
                times = [
                    await self._first_step_ms(machine, shape, batch, until)
                    for machine, batch in ((WARM, BATCH), (WARM, self._batch), (COLD, BATCH))
                ]
                for kind, took in zip((row.known, row.new, row.cold), times, strict=True):
                    kind.append(took)
        except TimeoutError as error:
            row.cut = str(error)
        return row

    async def _first_step_ms(self, machine: str, shape: Shape, batch: int, until: float) -> float:
        await _wait(lambda: _is_armed(self._platform.machines[WARM]), until, "a warm trainer")
        self._jobs += 1
        name = f"job-{self._jobs}"
        body = {
            "apiVersion": "cyxwiz.io/v1alpha1",
            "kind": "TrainingJob",
            "metadata": {"name": name},
            "spec": {
                "model": {"name": shape.model, "options": shape.options},
                "dataset": {"uri": shape.data},
                "maxSteps": STEPS,
                "batchSize": batch,
                "precision": shape.precision,
                "resources": {"gpus": self._gpus, "cpus": 1, "memory": "2Gi"},
                "nodeSelector": {"kubernetes.io/hostname": machine},
            },
        }
        await self._kube.get(paths.training_jobs("default"), limit="1")  # the connection is there
        sent = time.time()
        created = await self._kube.create(paths.training_jobs("default"), body)
        folder = JobFolder.of(self._platform.machines[machine].state, f"{created['metadata']['uid']}-1")
        try:
            stepped = await _wait(lambda: _first_step_at(folder), until, f"the first step of {name}")
            await _wait(folder.exit.exists, until, f"the end of {name}")
        except TimeoutError:
            await self._kube.delete(paths.training_job("default", name), uid=created["metadata"]["uid"])
            await _wait(folder.exit.exists, time.monotonic() + 60, f"the end of the deleted {name}")
            raise
        return (stepped - sent) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--limit", type=float, default=75.0, help="seconds for a row (default: %(default)s)")
    parser.add_argument("--models", nargs="+", metavar="MODEL", help="only rows of these")
    options = parser.parse_args()
    devices = read_devices().gpus
    gpus = tuple(gpu.uuid for gpu in devices[:1])
    shapes = [shape for shape in SHAPES if (gpus or shape.for_cpu) and shape.model in (options.models or shape.model)]
    device = devices[0].name if gpus else "no GPU"
    print(f"{describe()}; {device}; at most {options.repetitions} repetitions a row", flush=True)
    with tempfile.TemporaryDirectory() as folder, start(Path(folder) / "cluster") as cluster:
        rows = asyncio.run(_measure(cluster, Path(folder), gpus, shapes, options.repetitions, options.limit))
    heads = f"{'known ms':>9}{'worst':>7}{'new ms':>8}{'worst':>7}{'cold ms':>9}{'cold/known':>12}"
    print(f"{'model':<13}{'precision':<11}{heads}")
    for shape, row in zip(shapes, rows, strict=True):
        if row.known:
            known, new, cold = (statistics.median(times) for times in (row.known, row.new, row.cold))
            warm = f"{known:>9.0f}{max(row.known):>7.0f}{new:>8.0f}{max(row.new):>7.0f}"
            print(f"{shape.words:<13}{shape.precision:<11}{warm}{cold:>9.0f}{cold / known:>11.1f}x")


async def _measure(
    cluster: Cluster, folder: Path, gpus: tuple[str, ...], shapes: Sequence[Shape], repetitions: int, limit_s: float
) -> list[Row]:
    with Platform(cluster, folder / "platform") as platform:
        platform.install()
        platform.add_machine(WARM, cpus=2, memory="16Gi", warm=0 if gpus else 1, gpus=gpus)
        platform.add_machine(COLD, cpus=2, memory="16Gi", warm=0)
        platform.start_operator()
        platform.wait_machines()
        async with await Kube.connect(kubeconfig=cluster.kubeconfig, user_agent="benchmark") as kube:
            bench = Bench(kube, platform, len(gpus))
            rows: list[Row] = []
            for shape in shapes:
                row = await bench.measure(shape, repetitions, limit_s)
                rows.append(row)
                print(json.dumps(_line(shape, row)), flush=True)
        return rows


def _line(shape: Shape, row: Row) -> dict[str, Any]:
    times = {kind: [round(took, 1) for took in getattr(row, kind)] for kind in ("known", "new", "cold")}
    return {"model": shape.words, "precision": shape.precision, "batch": BATCH, "milliseconds": times, "cut": row.cut}


def _first_step_at(folder: JobFolder) -> float:
    """Unix time of the first finished step; 0 before it."""
    records = (parse_record(line) for line in Tail(folder.metrics).lines())
    return next((record.t for record in records if isinstance(record, StartedRecord)), 0.0)


def _is_armed(machine: Machine) -> bool:
    """A trainer is ready, and nothing else is on its way there."""
    snapshot = snapshot_of(machine.state)
    alive = [job for job in snapshot.jobs if job.state != "Reaped"]
    return snapshot.warm > 0 and snapshot.warming == 0 and not alive


async def _wait(condition: Callable[[], Any], until: float, what: str) -> Any:
    while not (value := condition()):
        if time.monotonic() > until:
            raise TimeoutError(f"the row's time ended before {what}")
        await asyncio.sleep(0.005)
    return value


if __name__ == "__main__":
    main()
