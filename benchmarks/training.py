"""Images per second of the training engine against the script people usually write, alternated on one machine.

    python3 benchmarks/training.py [--batch 32 512] [--repetitions 5]

Steady state: the first steps of each repetition, with the choice of kernels and the capture, are not timed; nothing is
compiled. Both train ResNet-18 with a 3x3 stem on the same synthetic 32x32 images with SGD and momentum. Rows:

    usual          float32 as torch has it by default, DataLoader without workers, loss.item() after each step
    usual, loader  the same with 4 workers and pinned memory
    ours           what a job gets: data on the GPU, bfloat16, channels last, CUDA graph, loss summed on the device
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from cyxwiz_crds import TrainingJobSpec
from cyxwiz_protocol.job_folder import JobFolder
from cyxwiz_protocol.order import JobOrder
from cyxwiz_protocol.records import StartedRecord, parse_record
from cyxwiz_trainer import data, device, job, models
from cyxwiz_trainer.checkpoint import LoopState
from cyxwiz_trainer.fence import Fence, Stop
from cyxwiz_trainer.loop import train
from cyxwiz_trainer.reporter import Reporter

WARM_UP_STEPS = 20
TIMED_STEPS = {"usual": 100, "usual, loader": 200, "ours": 1000}
LOADER_WORKERS = 4


@dataclass(frozen=True)
class Bench:
    """What every repetition shares."""

    spec: dict[str, Any]
    dataset: data.Dataset
    defaults: tuple[Any, Any]
    """torch's own precision of convolutions and products."""

    def steps(self, row: str, batch: int) -> int:
        """Steps to time: not more than the epoch has."""
        return min(TIMED_STEPS[row], len(self.dataset.train) // batch - WARM_UP_STEPS - 1)

    def parse(self, batch: int) -> TrainingJobSpec:
        return TrainingJobSpec.model_validate(self.spec | {"batchSize": batch})


def usual(bench: Bench, batch: int, workers: int, steps: int) -> float:
    """Images per second of the usual script."""
    torch.backends.cudnn.benchmark = False
    _set_precision(*bench.defaults)
    target = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    spec = bench.parse(batch)
    options = models.parse_options(spec.model.name, spec.model.options)
    model = models.build(options, bench.dataset.input_shape, bench.dataset.outputs).to(target)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    needed = batch * (WARM_UP_STEPS + steps + 1)
    train_part = bench.dataset.train
    samples = TensorDataset(train_part.inputs[:needed].float() / 255 - 0.5, train_part.labels[:needed])
    loader = DataLoader(samples, batch_size=batch, shuffle=True, num_workers=workers, pin_memory=workers > 0)
    begun = 0.0
    for step, (inputs, labels) in enumerate(loader):
        if step == WARM_UP_STEPS:
            _wait()
            begun = time.perf_counter()
        if step == WARM_UP_STEPS + steps:
            break
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(inputs.to(target)), labels.to(target))
        loss.backward()
        optimizer.step()
        loss.item()
    _wait()
    return steps * batch / (time.perf_counter() - begun)


class Stopwatch(Fence):
    """Looks at the clock before two of the loop's steps and ends it at the second."""

    def __init__(self, stop: Stop, first: int, last: int) -> None:
        super().__init__(None, stop)
        self._job_stop = stop
        self._places = (first, last)
        self._step = 0
        self.times: list[float] = []

    def wait(self) -> None:
        if self._step in self._places:
            _wait()
            self.times.append(time.perf_counter())
        if self._step == self._places[1]:
            self._job_stop.request()
        self._step += 1


def ours(bench: Bench, batch: int, steps: int, folder: Path) -> tuple[float, str]:
    """Images per second of the engine, and what it says it ran on."""
    spec, stop = bench.parse(batch), Stop()
    order = JobOrder(assignment_id="a", namespace="n", name="bench", attempt=1, spec=spec, gpus=device.visible_gpus())
    where = device.prepare(order)
    parts = job.Parts.of(spec, bench.dataset, where)
    watch = Stopwatch(stop, WARM_UP_STEPS, WARM_UP_STEPS + steps)
    files = JobFolder(folder)
    run = parts.on_device(spec, files, where, Reporter(files.metrics), watch, stop)
    train(run, LoopState(), None)
    records = [parse_record(line) for line in files.metrics.read_bytes().splitlines()]
    words = [record.device for record in records if isinstance(record, StartedRecord)][-1]
    return steps * batch / (watch.times[1] - watch.times[0]), words


def _set_precision(convolutions: Any, products: Any) -> None:
    torch.backends.cudnn.conv.fp32_precision = convolutions  # pyright: ignore[reportAttributeAccessIssue]  # not in its stubs
    torch.backends.cuda.matmul.fp32_precision = products


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _back_to_default() -> None:
    """The next repetition begins with torch's own stream and an empty cache."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.set_stream(torch.cuda.default_stream())
        torch.cuda.empty_cache()


def measure(bench: Bench, batch: int, repetitions: int) -> tuple[dict[str, list[float]], str]:
    """Images per second of each row, repetition by repetition, the rows alternated."""
    rates: dict[str, list[float]] = {row: [] for row in TIMED_STEPS}
    words = ""

    def engine(steps: int) -> float:
        nonlocal words
        with tempfile.TemporaryDirectory() as folder:
            rate, words = ours(bench, batch, steps, Path(folder))
        return rate

    rows: dict[str, Callable[[int], float]] = {
        "usual": lambda steps: usual(bench, batch, 0, steps),
        "usual, loader": lambda steps: usual(bench, batch, LOADER_WORKERS, steps),
        "ours": engine,
    }
    for repetition in range(repetitions):
        for row, run in rows.items():
            rates[row].append(run(bench.steps(row, batch)))
            print(f"batch {batch}, repetition {repetition + 1}, {row}: {rates[row][-1]:,.0f} images/s", flush=True)
            _back_to_default()
    return rates, words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 512])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--samples", type=int, default=200_000)
    parser.add_argument("--width", type=int, default=64)
    arguments = parser.parse_args()
    spec: dict[str, Any] = {
        "model": {"name": "resnet18", "options": {"width": arguments.width}},
        "dataset": {"uri": f"mock://cifar10?samples={arguments.samples}"},
        "resources": {"gpus": int(torch.cuda.is_available()), "cpus": min(os.cpu_count() or 1, 16), "memory": "8Gi"},
    }
    dataset = data.load(TrainingJobSpec.model_validate(spec), None)
    defaults = (torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision)  # pyright: ignore[reportAttributeAccessIssue]  # not in its stubs
    bench = Bench(spec, dataset, defaults)
    results = {batch: measure(bench, batch, arguments.repetitions) for batch in arguments.batch}

    name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else f"{platform.machine()} CPU"
    print(f"\n{name}, {os.cpu_count()} CPU cores, torch {torch.__version__}, {arguments.repetitions} repetitions")
    print(f"{'batch':>6}  {'row':<14} {'median images/s':>16} {'lowest':>10} {'highest':>10} {'ours, times':>12}")
    for batch, (rates, words) in results.items():
        best = statistics.median(rates["ours"])
        for row, values in rates.items():
            median = statistics.median(values)
            line = f"{batch:>6}  {row:<14} {median:>16,.0f} {min(values):>10,.0f} {max(values):>10,.0f}"
            print(f"{line} {best / median:>12.2f}")
        print(f"        ours ran on {words}")


if __name__ == "__main__":
    main()
