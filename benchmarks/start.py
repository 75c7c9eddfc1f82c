"""From the start of a POST to the first finished training step: on a warm trainer, and beside it in a cold process.

    python -m benchmarks.start [--repetitions 5] [--limit 300] [--models cnn resnet18]

Everything is real: API server, operator, agents, runners, trainers, each with its own permissions. Several machines
share this one and, where there is one, its first NVIDIA GPU; else jobs train on the CPU. First the cold processes: as
many at a time as there are cores for (a third), a first round not counted, which pays for caches. Then the warm ones,
one at a time: a job of a shape that jobs on the node have had (known; a machine is told at its start what the cold ones
have trained) and one of a batch size that none has had (new). With cores for it every row has a machine of its own, so
that their next trainers warm up together between two rounds. Repetitions go round by round, so a row that the limit
cuts has as many as the others. One line of JSON a row, then a table.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
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
from cyxwiz_protocol.job_folder import JobFolder, Tail, write_json
from cyxwiz_protocol.records import StartedRecord, parse_record
from tests.thread import snapshot_of

SHAPES = Path("runner/shapes.json")
STEPS = 25
BATCH = 32


@dataclass(frozen=True)
class Shape:
    """One row."""

    model: str
    options: dict[str, Any] = field(hash=False)
    data: str
    precision: str
    for_cpu: bool
    """Worth its time there."""

    @property
    def words(self) -> str:
        return f"{self.model} {self.options['width']}" if self.options else self.model


ROWS = (
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


class Ended(Exception):
    """No more is measured; says why."""


class Bench:
    """What a measurement needs."""

    def __init__(self, kube: Kube, platform: Platform, gpus: int, until: float) -> None:
        self._kube = kube
        self._platform = platform
        self._gpus = gpus
        self._until = until
        self._jobs = 0
        self._batch = BATCH

    async def cold(self, rows: dict[Shape, Row], machines: Sequence[str], repetitions: int) -> None:
        """Each row has its cold starts, `machines` of them at a time, and the machines know all shapes."""
        jobs = [(shape, number) for number in range(repetitions + 1) for shape in rows]
        for first in range(0, len(jobs), len(machines)):
            group = jobs[first : first + len(machines)]
            starts = zip(machines, group, strict=False)
            times = await asyncio.gather(*(self._first_step_ms(name, shape, BATCH) for name, (shape, _) in starts))
            for (shape, number), took in zip(group, times, strict=True):
                if number:
                    rows[shape].cold.append(took)

    async def warm(self, rows: dict[Shape, Row], machines: Sequence[str], repetitions: int) -> None:
        """Each row has its warm starts, on its own machine where there are as many."""
        for _ in range(repetitions):
            for kind in ("known", "new"):
                self._batch += kind == "new"
                for name in machines:
                    await self._armed(name)
                for number, (shape, row) in enumerate(rows.items()):
                    name = machines[number % len(machines)]
                    await self._armed(name)
                    took = await self._first_step_ms(name, shape, self._batch if kind == "new" else BATCH)
                    (row.new if kind == "new" else row.known).append(took)

    async def _armed(self, name: str) -> None:
        await self._wait(lambda: _is_armed(self._platform.machines[name]), f"a warm trainer on {name}")

    async def _first_step_ms(self, machine: str, shape: Shape, batch: int) -> float:
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
            await self._wait(lambda: _first_step_at(folder) or folder.exit.exists(), f"the first step of {name}")
            stepped = _first_step_at(folder)
            if not stepped:
                raise Ended(f"{name} did not train: {folder.log.read_text()[-500:]}")
            await self._wait(folder.exit.exists, f"the end of {name}")
        except Ended:
            await self._kube.delete(paths.training_job("default", name), uid=created["metadata"]["uid"])
            raise
        return (stepped - sent) * 1000

    async def _wait(self, condition: Callable[[], Any], what: str) -> Any:
        while not (value := condition()):
            if time.monotonic() > self._until:
                raise Ended(f"the time was over before {what}")
            await asyncio.sleep(0.002)
        return value


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for all rows (default: %(default)s)")
    parser.add_argument("--models", nargs="+", metavar="MODEL", help="only rows of these")
    options = parser.parse_args()
    devices = read_devices().gpus
    gpus = tuple(gpu.uuid for gpu in devices[:1])
    shapes = [shape for shape in ROWS if (gpus or shape.for_cpu) and shape.model in (options.models or shape.model)]
    device = devices[0].name if gpus else "no GPU"
    cores = len(os.sched_getaffinity(0))
    together = max(1, min(len(shapes), cores // 3))
    print(f"{describe()}; {device}; {options.repetitions} repetitions; {together} cold starts at a time", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, start(Path(folder) / "cluster") as cluster:
        asyncio.run(
            _measure(cluster, Path(folder), gpus, rows := {shape: Row() for shape in shapes}, together, options)
        )
    heads = f"{'known ms':>9}{'worst':>7}{'new ms':>8}{'worst':>7}{'cold ms':>9}{'cold/known':>12}{'of each':>9}"
    print(f"{'model':<13}{'precision':<11}{heads}")
    for shape, row in rows.items():
        if row.known and row.new and row.cold:
            known, new, cold = (statistics.median(times) for times in (row.known, row.new, row.cold))
            warm = f"{known:>9.0f}{max(row.known):>7.0f}{new:>8.0f}{max(row.new):>7.0f}"
            fewest = min(map(len, (row.known, row.new, row.cold)))
            print(f"{shape.words:<13}{shape.precision:<11}{warm}{cold:>9.0f}{cold / known:>11.1f}x{fewest:>9}")
    print(f"{time.monotonic() - began:.0f} s in all")


async def _measure(
    cluster: Cluster,
    folder: Path,
    gpus: tuple[str, ...],
    rows: dict[Shape, Row],
    together: int,
    options: argparse.Namespace,
) -> None:
    """The rows are filled as far as the limit allows."""
    cut: str | None = None
    with Platform(cluster, folder / "platform") as platform:
        platform.install()
        cold = [f"bench-cold-{number}" for number in range(together)]
        for name in cold:
            platform.add_machine(name, cpus=2, memory="16Gi", warm=0)
        platform.start_operator()
        platform.wait_machines()
        async with await Kube.connect(kubeconfig=cluster.kubeconfig, user_agent="benchmark") as kube:
            bench = Bench(kube, platform, len(gpus), time.monotonic() + options.limit)
            try:
                await bench.cold(rows, cold, options.repetitions)
                warm = [f"bench-warm-{number}" for number in range(len(rows) if together > 1 else 1)]
                shapes = _shapes_of([platform.machines[name] for name in cold])
                for name in cold:
                    platform.remove_machine(name)
                for name in warm:
                    _teach(platform, name, shapes)
                    platform.add_machine(name, cpus=2, memory="16Gi", warm=0 if gpus else 1, gpus=gpus)
                platform.wait_machines()
                await bench.warm(rows, warm, options.repetitions)
            except Ended as error:
                cut = str(error)
    for shape, row in rows.items():
        print(json.dumps(_line(shape, row, cut)), flush=True)


def _shapes_of(machines: Sequence[Machine]) -> list[dict[str, Any]]:
    """What jobs on these machines have trained."""
    told = [each for machine in machines for each in json.loads((machine.state / SHAPES).read_bytes())]
    return [shape for number, shape in enumerate(told) if shape not in told[:number]]


def _teach(platform: Platform, name: str, shapes: list[dict[str, Any]]) -> None:
    """A machine of this name will know them."""
    file = platform.folder / "nodes" / name / SHAPES
    file.parent.mkdir(parents=True)
    write_json(file, shapes)


def _line(shape: Shape, row: Row, cut: str | None) -> dict[str, Any]:
    times = {kind: [round(took, 1) for took in getattr(row, kind)] for kind in ("known", "new", "cold")}
    return {"model": shape.words, "precision": shape.precision, "batch": BATCH, "milliseconds": times, "cut": cut}


def _first_step_at(folder: JobFolder) -> float:
    """Unix time of the first finished step; 0 before it."""
    records = (parse_record(line) for line in Tail(folder.metrics).lines())
    return next((record.t for record in records if isinstance(record, StartedRecord)), 0.0)


def _is_armed(machine: Machine) -> bool:
    """A trainer is ready, and nothing else is on its way there."""
    snapshot = snapshot_of(machine.state)
    alive = [job for job in snapshot.jobs if job.state != "Reaped"]
    return snapshot.warm > 0 and snapshot.warming == 0 and not alive


if __name__ == "__main__":
    main()
