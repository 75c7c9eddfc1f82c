"""From the start of a POST to the first finished training step, on a warm trainer and on a cold process.

    python -m benchmarks.start [--repetitions 5]

Everything is real: API server, operator, agent, runner, trainer, each with its own permissions. On a machine with an
NVIDIA GPU the jobs train on the first one, else on the CPU. The first job of a row is not counted: it pays for caches.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from cyxwiz_agent.devices import read_devices
from cyxwiz_devcluster import Cluster, start
from cyxwiz_kube import Kube, paths
from cyxwiz_platform import Platform
from cyxwiz_protocol.job_folder import JobFolder, Tail
from cyxwiz_protocol.records import StartedRecord, parse_record

NODE = "bench"
WITHIN_S = 180.0
SHAPES: tuple[tuple[str, dict[str, Any], str, str, bool], ...] = (
    # model, options, data, precision, worth its time on a CPU
    ("cnn", {}, "builtin://digits", "float32", True),
    ("mlp", {}, "builtin://digits", "float32", True),
    ("resnet18", {"width": 8}, "mock://cifar10?samples=1000", "float32", True),
    ("resnet18", {"width": 64}, "mock://cifar10?samples=1000", "bfloat16", False),
)


@dataclass(frozen=True)
class Way:
    """How the node starts jobs."""

    name: str
    warm: bool


@dataclass(frozen=True)
class Bench:
    """What a measurement needs."""

    kube: Kube
    platform: Platform
    gpus: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=5)
    repetitions = parser.parse_args().repetitions
    gpus = tuple(gpu.uuid for gpu in read_devices().gpus[:1])
    shapes = [shape for shape in SHAPES if gpus or shape[-1]]
    print(f"{describe()}; {read_devices().gpus[0].name if gpus else 'no GPU'}; {repetitions} repetitions", flush=True)
    with tempfile.TemporaryDirectory() as folder, start(Path(folder) / "cluster") as cluster:
        took = {
            way.name: asyncio.run(_measure(cluster, Path(folder) / way.name, way, gpus, shapes, repetitions))
            for way in (Way("warm", True), Way("cold", False))
        }
    print(f"{'model':<12}{'precision':<11}{'warm ms':>9}{'worst':>8}{'cold ms':>10}{'cold / warm':>13}")
    for row, (model, options, _, precision, _) in enumerate(shapes):
        warm, cold = took["warm"][row], took["cold"][row]
        name = f"{model} {options['width']}" if options else model
        ratio = statistics.median(cold) / statistics.median(warm)
        print(
            f"{name:<12}{precision:<11}{statistics.median(warm):>9.0f}{max(warm):>8.0f}"
            f"{statistics.median(cold):>10.0f}{ratio:>12.1f}x"
        )


async def _measure(
    cluster: Cluster, folder: Path, way: Way, gpus: tuple[str, ...], shapes: list[Any], repetitions: int
) -> list[list[float]]:
    """Milliseconds per shape and repetition."""
    with Platform(cluster, folder) as platform:
        platform.install()
        warm_gpus = gpus if way.warm else ()
        platform.add_machine(NODE, cpus=2, memory="16Gi", warm=int(way.warm and not gpus), gpus=warm_gpus)
        platform.start_operator()
        platform.wait_machines()
        async with await Kube.connect(kubeconfig=cluster.kubeconfig, user_agent="benchmark") as kube:
            bench = Bench(kube, platform, len(gpus))
            took: list[list[float]] = []
            for number, shape in enumerate(shapes):
                times = [await _first_step_ms(bench, way, shape, number, again) for again in range(repetitions + 1)]
                took.append(times[1:])
                print(f"  {way.name} {shape[0]}: {', '.join(f'{each:.0f}' for each in times[1:])} ms", flush=True)
        platform.remove_machine(NODE)
    return took


async def _first_step_ms(bench: Bench, way: Way, shape: Any, row: int, repetition: int) -> float:
    model, options, uri, precision, _ = shape
    name = f"{way.name}-{row}-{repetition}"
    if way.warm:
        await _wait(lambda: _warm_trainers(bench.platform) > 0, "a warm trainer")
    body = {
        "apiVersion": "cyxwiz.io/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name},
        "spec": {
            "model": {"name": model, "options": options},
            "dataset": {"uri": uri},
            "epochs": 1,
            "precision": precision,
            "resources": {"gpus": bench.gpus, "cpus": 1, "memory": "2Gi"},
        },
    }
    await bench.kube.get(paths.training_jobs("default"), limit="1")  # the connection is there
    sent = time.time()
    created = await bench.kube.create(paths.training_jobs("default"), body)
    folder = JobFolder.of(bench.platform.machines[NODE].state, f"{created['metadata']['uid']}-1")
    stepped = await _wait(lambda: _first_step_at(folder), f"the first step of {name}")
    await _wait(folder.exit.exists, f"the end of {name}")
    return (stepped - sent) * 1000


def _first_step_at(folder: JobFolder) -> float:
    """Unix time of the first finished step; 0 before it."""
    records = (parse_record(line) for line in Tail(folder.metrics).lines())
    return next((record.t for record in records if isinstance(record, StartedRecord)), 0.0)


def _warm_trainers(platform: Platform) -> int:
    """By the runner's log, which has a line for each that became ready and each that was taken."""
    log = platform.machines[NODE].runner.log.read_text()
    return log.count("trainer ready") - log.count("start=Warm")


async def _wait(condition: Any, what: str) -> Any:
    until = time.monotonic() + WITHIN_S
    while not (value := condition()):
        if time.monotonic() > until:
            raise TimeoutError(f"{what}: not within {WITHIN_S:.0f} s")
        await asyncio.sleep(0.005)
    return value


if __name__ == "__main__":
    main()
