"""Images per second of the training engine against the script people usually write, alternated on one machine.

    python3 benchmarks/training.py [--batch 32 512] [--repetitions 5] [--seconds 400] [--profile]

All train ResNet-18 with a 3x3 stem on the same synthetic 32x32 images with SGD and momentum. A line of JSON per
measurement as it is made, then a table. Rows:

    usual            float32 as torch has it by default, where convolutions may use TF32; images in float32 in host
                     memory, NCHW; DataLoader with 4 workers and pinned memory; loss.item() after each step
    usual, no TF32   the same in true float32
    usual, inline    the same as usual with a DataLoader without workers
    ours             what a job gets at once: data on the GPU, bfloat16, channels last, CUDA graph
    ours compiled    what a long job gets: the same, compiled; what the compiler took with an empty cache is told, too
    example job      ours from before the first step to after the last of 250,000 images with nothing cached,
                     evaluation, checkpoints and compilation included; its rate is those images by that time

The usual rows spend nothing on decoding or augmenting images, which real scripts do in their workers. Times of "usual"
are those of the table's last columns. Steady state: the first steps of each repetition, with the choice of kernels and
the capture, are not timed. After `--seconds` nothing further is begun. `--profile` prints instead which kernels the two
kinds of our step spend their time in.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import itertools
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from cyxwiz_crds import TrainingJobSpec
from cyxwiz_protocol.job_folder import JobFolder
from cyxwiz_protocol.order import JobOrder
from cyxwiz_protocol.records import Record, StartedRecord
from cyxwiz_trainer import data, device, job, models
from cyxwiz_trainer.blueprint import Blueprint
from cyxwiz_trainer.checkpoint import LoopState
from cyxwiz_trainer.compilation import Compilation
from cyxwiz_trainer.compile_policy import Known
from cyxwiz_trainer.fence import Fence, Stop
from cyxwiz_trainer.loop import Training, train
from cyxwiz_trainer.reporter import Reporter

WARM_UP_STEPS = 20
TIMED_STEPS = {"usual": 100, "usual, no TF32": 60, "usual, inline": 60, "ours": 1000, "ours compiled": 1000}
USUAL, STRICT, INLINE = "usual", "usual, no TF32", "usual, inline"
EXAMPLE = "example job"
LOADER_WORKERS = 4
EXAMPLE_IMAGES = 250_000
PROFILED_STEPS = 20


@dataclass(frozen=True)
class Bench:
    """What every repetition shares."""

    spec: dict[str, Any]
    dataset: data.Dataset
    defaults: tuple[Any, Any]
    """torch's own precision of convolutions and products."""
    compiled: Path
    """What was compiled is kept here from repetition to repetition."""

    def steps(self, row: str, batch: int) -> int:
        """Steps to time: not more than an epoch has."""
        return min(TIMED_STEPS[row], len(self.dataset.train) // batch - WARM_UP_STEPS - 1)

    def parse(self, batch: int, **more: Any) -> TrainingJobSpec:
        return TrainingJobSpec.model_validate(self.spec | {"batchSize": batch} | more)


def usual(bench: Bench, batch: int, row: str, steps: int) -> float:
    """Images per second of the usual script."""
    torch.backends.cudnn.benchmark = False
    _set_precision(*(("ieee", "ieee") if row == STRICT else bench.defaults))
    workers = 0 if row == INLINE else LOADER_WORKERS
    target = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    spec = bench.parse(batch)
    options = models.parse_options(spec.model.name, spec.model.options)
    model = models.build(options, bench.dataset.input_shape, bench.dataset.outputs).to(target)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    needed = batch * (WARM_UP_STEPS + steps + 1)
    train_part = bench.dataset.train
    samples = TensorDataset(train_part.inputs[:needed].float() / 255 - 0.5, train_part.labels[:needed])
    loader = DataLoader(samples, batch_size=batch, shuffle=True, num_workers=workers, pin_memory=workers > 0)
    begun = ended = 0.0
    for step, (inputs, labels) in enumerate(loader):
        if step == WARM_UP_STEPS:
            _wait()
            begun = time.perf_counter()
        if step == WARM_UP_STEPS + steps:
            _wait()
            ended = time.perf_counter()
            break  # and the workers end, which is not timed
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(inputs.to(target)), labels.to(target))
        loss.backward()
        optimizer.step()
        loss.item()
    return steps * batch / (ended - begun)


class Stopwatch(Stop):
    """Looks at the clock before two of the loop's steps, within one epoch, and ends it at the second.

    The loop asks once per step whether it is to stop.
    """

    def __init__(self, steps: int, steps_per_epoch: int, profiler: torch.profiler.profile | None = None) -> None:
        self._steps, self._steps_per_epoch = steps, steps_per_epoch
        self._profiler = profiler
        self._step = -1
        self._first: int | None = None
        self.may_begin = True
        self.times: list[float] = []

    @property
    def requested(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]  # read-only here
        """The loop's question before a step."""
        self._step += 1
        if self._first is None and self.may_begin and self._step % self._steps_per_epoch == WARM_UP_STEPS:
            self._first = self._step
            self._look()
            if self._profiler:
                self._profiler.start()
        if self._first is None or self._step < self._first + self._steps:
            return False
        self._look()
        if self._profiler:
            self._profiler.stop()
        return True

    def _look(self) -> None:
        _wait()
        self.times.append(time.perf_counter())


class Listening(Reporter):
    """Calls `heard` with how the job says it runs."""

    def __init__(self, path: Path, heard: Callable[[str], None]) -> None:
        super().__init__(path)
        self._heard = heard

    def write(self, record: Record) -> None:
        super().write(record)
        if isinstance(record, StartedRecord):
            self._heard(record.device)


@dataclass(frozen=True)
class Timed:
    """One measurement of ours."""

    rate: float
    """Images per second."""
    words: str
    """What the job says it ran on."""


def ours(
    bench: Bench, batch: int, steps: int, compile_it: bool, profiler: torch.profiler.profile | None = None
) -> Timed:
    """The engine in steady state."""
    with tempfile.TemporaryDirectory() as folder:
        heard: list[str] = []
        spec = bench.parse(batch, epochs=1000)
        watch = Stopwatch(steps, len(bench.dataset.train) // batch, profiler)
        watch.may_begin = not compile_it

        def hear(words: str) -> None:
            heard.append(words)
            watch.may_begin = watch.may_begin or "compiled" in words

        run, blueprint = _training(bench, spec, Path(folder), watch, hear)
        compilation = Compilation(blueprint, bench.compiled, Path(folder), always=True) if compile_it else None
        try:
            train(dataclasses.replace(run, compilation=compilation), LoopState(), None)
        finally:
            if compilation is not None:
                compilation.end()
        words = heard[-1] + _compiler_words(bench.compiled / f"{blueprint.key}.json" if compile_it else None)
        return Timed(steps * batch / (watch.times[1] - watch.times[0]), words)


def _compiler_words(record: Path | None) -> str:
    if record is None or not record.is_file():
        return ""
    known = Known.model_validate_json(record.read_bytes())
    return f", {known.compile_s:.1f} s to compile, {known.adopt_s:.1f} s to adopt"


def example_job(bench: Bench, batch: int, images: int) -> Timed:
    """The whole way from before the first step to after the last."""
    with tempfile.TemporaryDirectory() as folder, _empty_cache(Path(folder)):
        heard: list[str] = []
        spec = bench.parse(batch, maxSteps=images // batch)
        run, _ = _training(bench, spec, Path(folder), Stop(), heard.append)
        _wait()
        begun = time.perf_counter()
        train(run, LoopState(), None)
        _wait()
        seconds = time.perf_counter() - begun
        if run.compilation is not None:
            run.compilation.end()
        return Timed(images // batch * batch / seconds, f"{heard[-1]}, {seconds:.1f} s")


@contextlib.contextmanager
def _empty_cache(folder: Path) -> Iterator[None]:
    """Inductor finds nothing that an earlier measurement has left."""
    before = os.environ["TORCHINDUCTOR_CACHE_DIR"]
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")
    try:
        yield
    finally:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = before


def _training(
    bench: Bench, spec: TrainingJobSpec, folder: Path, stop: Stop, heard: Callable[[str], None]
) -> tuple[Training, Blueprint]:
    order = JobOrder(assignment_id="a", namespace="n", name="bench", attempt=1, spec=spec, gpus=device.visible_gpus())
    where = device.prepare(order)
    options = models.parse_options(spec.model.name, spec.model.options)
    parts = job.Parts.of(spec, bench.dataset, where)
    files = JobFolder(folder)
    run = parts.on_device(spec, files, where, Listening(files.metrics, heard), Fence(None, stop), stop)
    return run, Blueprint.of(spec, options, bench.dataset, spec.batch_size, where)


def _set_precision(convolutions: Any, products: Any) -> None:
    torch.backends.cudnn.conv.fp32_precision = convolutions  # pyright: ignore[reportAttributeAccessIssue]  # not in its stubs
    torch.backends.cuda.matmul.fp32_precision = products


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _back_to_default() -> None:
    """The next repetition begins with torch's own stream, an empty cache and nothing compiled in this process."""
    gc.collect()
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.set_stream(torch.cuda.default_stream())
        torch.cuda.empty_cache()


def _tell(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


Rates = dict[int, dict[str, list[float]]]
"""Images per second by batch and row, one for each repetition."""


def measure(bench: Bench, batches: list[int], rows: list[str], repetitions: int, images: int, until: float) -> Rates:
    """Repetition by repetition, batches and rows alternated."""
    rates: Rates = {batch: {row: [] for row in rows} for batch in batches}
    for repetition, batch, row in itertools.product(range(repetitions), batches, rows):
        if time.monotonic() > until:
            break
        begun = time.monotonic()
        timed = _measured(bench, batch, row, images)
        rates[batch][row].append(timed.rate)
        took = round(time.monotonic() - begun, 1)
        fields = {"row": row, "batch": batch, "repetition": repetition + 1}
        _tell(**fields, imagesPerSecond=round(timed.rate, 1), seconds=took, words=timed.words)
        _back_to_default()
    return rates


def _measured(bench: Bench, batch: int, row: str, images: int) -> Timed:
    if row == EXAMPLE:
        return example_job(bench, batch, images)
    steps = bench.steps(row, batch)
    if row in (USUAL, STRICT, INLINE):
        return Timed(usual(bench, batch, row, steps), "")
    return ours(bench, batch, steps, compile_it="compiled" in row)


def profile(bench: Bench, batches: list[int]) -> None:
    """Which kernels our steps spend their time in, most first."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    for batch in batches:
        for compile_it in (False, True):
            profiler = torch.profiler.profile(activities=kinds)
            timed = ours(bench, batch, PROFILED_STEPS, compile_it, profiler)
            print(f"\nbatch {batch}, {timed.words}: {PROFILED_STEPS} steps, {timed.rate:,.0f} images/s", flush=True)
            by = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
            print(profiler.key_averages().table(sort_by=by, row_limit=30, max_name_column_width=90))
            _back_to_default()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 512])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=400.0)
    parser.add_argument("--images", type=int, default=EXAMPLE_IMAGES, help="of the example job (default: %(default)s)")
    parser.add_argument("--rows", nargs="+", choices=[*TIMED_STEPS, EXAMPLE], default=[*TIMED_STEPS, EXAMPLE])
    parser.add_argument("--profile", action="store_true", help="print the kernels of our steps instead")
    arguments = parser.parse_args()
    until = time.monotonic() + arguments.seconds
    spec: dict[str, Any] = {
        "model": {"name": "resnet18", "options": {"width": arguments.width}},
        "dataset": {"uri": f"mock://cifar10?samples={arguments.samples}"},
        "resources": {"gpus": int(torch.cuda.is_available()), "cpus": min(os.cpu_count() or 1, 16), "memory": "8Gi"},
    }
    dataset = data.load(TrainingJobSpec.model_validate(spec), None)
    defaults = (torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision)  # pyright: ignore[reportAttributeAccessIssue]  # not in its stubs
    name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else f"{platform.machine()} CPU"
    with tempfile.TemporaryDirectory() as compiled:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(compiled) / "inductor")
        bench = Bench(spec, dataset, defaults, Path(compiled))
        if arguments.profile:
            profile(bench, arguments.batch)
            return
        rates = measure(bench, arguments.batch, arguments.rows, arguments.repetitions, arguments.images, until)

    print(f"\n{name}, {os.cpu_count()} CPU cores, torch {torch.__version__}")
    heads = f"{'median images/s':>16} {'lowest':>10} {'highest':>10} {'times usual':>12} {'times no TF32':>14}"
    print(f"{'batch':>6}  {'row':<15} {'n':>2} {heads}")
    for batch in arguments.batch:
        bases = [statistics.median(rates[batch].get(row) or [float("nan")]) for row in (USUAL, STRICT)]
        for row, values in rates[batch].items():
            if values:
                median = statistics.median(values)
                line = f"{batch:>6}  {row:<15} {len(values):>2} {median:>16,.0f} {min(values):>10,.0f}"
                print(f"{line} {max(values):>10,.0f} {median / bases[0]:>12.2f} {median / bases[1]:>14.2f}")


if __name__ == "__main__":
    main()
