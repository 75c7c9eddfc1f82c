"""The training engine on a real GPU: its graph, what it waits for, resume, and what it says when memory ends."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cyxwiz_crds import TrainingJobSpec
from cyxwiz_protocol.job_folder import JobFolder, write_json
from cyxwiz_protocol.order import JobOrder
from cyxwiz_protocol.records import (
    EpochRecord,
    ExitCode,
    ExportRecord,
    FailureRecord,
    ModelRecord,
    Record,
    StartedRecord,
    parse_record,
)
from cyxwiz_trainer import data, device, job, models
from cyxwiz_trainer.blueprint import Blueprint
from cyxwiz_trainer.checkpoint import LoopState
from cyxwiz_trainer.compilation import Compilation
from cyxwiz_trainer.feed import Feed, PinnedFeed, feed_for
from cyxwiz_trainer.fence import Fence, Stop
from cyxwiz_trainer.graph import EAGER_STEPS, Repeated
from cyxwiz_trainer.loop import Training, step_of, train
from cyxwiz_trainer.reporter import Reporter
from cyxwiz_trainer.totals import Totals
from tests.gpu.trace import Trace

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic products; read when CUDA starts

pytestmark = pytest.mark.skipif(torch.cuda.device_count() != 1, reason="needs exactly one visible NVIDIA GPU")

SMALL = {"model": {"name": "resnet18", "options": {"width": 16}}, "dataset": {"uri": "mock://cifar10?samples=4000"}}
EXACT = {"precision": "float32", "deterministic": True}


@pytest.fixture(autouse=True)
def whole_gpu() -> Iterator[None]:
    """The next test may use all of the GPU's memory, and computes where and how torch does by default."""
    yield
    torch.cuda.set_sync_debug_mode("default")
    torch.set_deterministic_debug_mode("default")
    torch.cuda.set_stream(torch.cuda.default_stream())
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1.0)


def order_of(spec: dict[str, Any], restore_from: Path | None = None) -> JobOrder:
    return JobOrder(
        assignment_id="a",
        namespace="team",
        name="job",
        attempt=1,
        spec=TrainingJobSpec.model_validate({"batchSize": 64} | SMALL | spec),
        gpus=device.visible_gpus(),
        restore_from=None if restore_from is None else str(restore_from),
    )


def run_job(path: Path, spec: dict[str, Any]) -> tuple[int, list[Record]]:
    """The exit code and the records of a whole job."""
    folder = folder_at(path)
    write_json(folder.order, order_of(spec).wire())
    code = job.run(folder, Stop())
    return code, records_of(folder)


def test_a_model_trained_on_the_gpu_is_exported_beside_it_and_answers_as_it_does(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    code, records = run_job(tmp_path, {"epochs": 1, "output": {"formats": ["onnx"]}})
    assert code == ExitCode.SUCCEEDED
    (onnx,) = [record for record in records if isinstance(record, ExportRecord)]
    assert onnx.message.startswith("onnxruntime answers as torch: largest difference"), onnx


def folder_at(path: Path) -> JobFolder:
    path.mkdir(exist_ok=True)
    return JobFolder(path)


def records_of(folder: JobFolder) -> list[Record]:
    parsed = [parse_record(line) for line in folder.metrics.read_bytes().splitlines()]
    return [record for record in parsed if record is not None]


def make_training(path: Path, spec: dict[str, Any], fence: Fence | None = None, stop: Stop | None = None) -> Training:
    """Everything the loop works on, on the GPU, as a job would have it."""
    order, folder, stop = order_of(spec), folder_at(path), stop or Stop()
    where = device.prepare(order)
    parts = job.Parts.of(order.spec, data.load(order.spec, None), where)
    return parts.on_device(order.spec, folder, where, Reporter(folder.metrics), fence or Fence(None, stop), stop)


class CountingFence(Fence):
    """Calls `at_step` with the number of the step that is about to be queued, from 0."""

    def __init__(self, stop: Stop, at_step: Callable[[int], None]) -> None:
        super().__init__(None, stop)
        self._at_step = at_step
        self._steps = 0

    def wait(self) -> None:
        self._at_step(self._steps)
        self._steps += 1


def step_losses(run: Training, steps: int, repeated: bool, feed: Feed | None = None) -> list[float]:
    """The loss of each step: through a graph or, eager, step by step."""
    hyper, plan = run.spec.hyperparameters, run.plan
    feed = feed or feed_for(run.data.train, plan.batch_size, hyper, run.device)
    totals = Totals(run.device.torch_device, LoopState().epoch_sums)
    step = step_of(run, feed, totals)
    call = Repeated(step, run.device, steps) if repeated else step
    run.optimizer.set_learning_rate(hyper.learning_rate)
    feed.begin_epoch(0)
    sums = [0.0]
    for position in range(steps):
        if run.average is not None:
            run.average.set_step(position)
        feed.fill(position)
        call()
        sums.append(totals.read().loss)
    if isinstance(call, Repeated):
        assert call.words == "CUDA graph"
    return [after - before for before, after in itertools.pairwise(sums)]


def test_a_job_runs_as_a_graph_and_says_so(tmp_path: Path) -> None:
    code, records = run_job(tmp_path, {"epochs": 2, "hyperparameters": {"learningRate": 0.05}})
    assert code == ExitCode.SUCCEEDED
    started = [record for record in records if isinstance(record, StartedRecord)]
    assert [record.device.endswith(", CUDA graph") for record in started] == [False, True]
    losses = [record.loss for record in records if isinstance(record, EpochRecord)]
    assert losses[1] < losses[0]


def test_a_job_of_few_steps_stays_eager_and_says_so(tmp_path: Path) -> None:
    code, records = run_job(tmp_path, {"maxSteps": 8})
    assert code == ExitCode.SUCCEEDED
    assert isinstance(records[0], StartedRecord)
    assert records[0].device.endswith("eager: 8 steps are too few for a CUDA graph")


EVERYTHING = {
    "gradientClip": 1.0,
    "accumulateSteps": 2,
    "ema": 0.99,
    "augment": {"flip": True, "crop": 4},
    "labelSmoothing": 0.1,
    "optimizer": "adamw",
    "learningRate": 0.001,
}


@pytest.mark.parametrize("hyper", [{"learningRate": 0.01}, EVERYTHING], ids=["sgd", "everything"])
def test_graph_and_eager_losses_agree_over_50_float32_steps(tmp_path: Path, hyper: dict[str, Any]) -> None:
    spec = {"hyperparameters": hyper, **EXACT}
    eager = step_losses(make_training(tmp_path, spec), 50, repeated=False)
    graphed = step_losses(make_training(tmp_path, spec), 50, repeated=True)
    print("largest difference", max(abs(a - b) for a, b in zip(eager, graphed, strict=True)))
    assert graphed == pytest.approx(eager, abs=1e-3)
    assert graphed[-1] < graphed[0]


IMAGES = "mock://cifar10?samples=2000"
REPEATABLE: dict[str, tuple[dict[str, int | str], str]] = {
    "mlp": ({}, IMAGES),
    "cnn": ({}, IMAGES),
    "resnet18": ({"width": 16}, IMAGES),
    "resnet18, wide stem": ({"width": 16, "stem": 7}, IMAGES),
    "resnet34": ({"width": 8}, IMAGES),
    "resnet50": ({"width": 8}, IMAGES),
    "vit": ({"dim": 48, "depth": 2}, IMAGES),
    "gpt": ({"dim": 48, "depth": 2, "dropout": "0.1"}, "file://book.txt"),
}


def test_every_built_in_model_has_a_row() -> None:
    assert {row.partition(",")[0] for row in REPEATABLE} == set(models.REGISTRY)


@pytest.mark.parametrize("precision", ["float32", "auto"])
@pytest.mark.parametrize("row", REPEATABLE)
def test_a_deterministic_job_gives_the_same_bytes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: str, precision: str
) -> None:
    (tmp_path / "book.txt").write_bytes(b"the quick brown fox jumps over the lazy dog. " * 400)
    monkeypatch.setenv("CYXWIZ_DATA_ROOT", str(tmp_path))
    options, uri = REPEATABLE[row]
    spec = {
        "model": {"name": row.partition(",")[0], "options": options},
        "dataset": {"uri": uri, "contextLength": 32},
        "maxSteps": 30,
        "batchSize": 32,
        "deterministic": True,
        "precision": precision,
    }
    digests: list[str] = []
    for attempt in ("first", "second"):
        code, records = run_job(tmp_path / attempt, spec)
        assert code == ExitCode.SUCCEEDED, records[-1]
        digests.append(records[-1].sha256 if isinstance(records[-1], ModelRecord) else "")
    assert digests[0] == digests[1] != ""


def test_text_and_tables_are_captured_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "book.txt").write_bytes(b"the quick brown fox jumps over the lazy dog. " * 400)
    (tmp_path / "table.csv").write_text("a,b,y\n" + "".join(f"{i % 7},{i % 5},{i % 7 + 0.5}\n" for i in range(500)))
    monkeypatch.setenv("CYXWIZ_DATA_ROOT", str(tmp_path))
    for model, uri in (("gpt", "file://book.txt"), ("mlp", "file://table.csv")):
        spec = {"model": {"name": model}, "dataset": {"uri": uri, "contextLength": 32}, "batchSize": 32, "maxSteps": 60}
        code, records = run_job(tmp_path / model, spec)
        assert code == ExitCode.SUCCEEDED, records[-1]
        assert [r.device.endswith(", CUDA graph") for r in records if isinstance(r, StartedRecord)] == [False, True]


def test_the_loop_never_waits_for_the_gpu_between_its_marked_places(tmp_path: Path) -> None:
    stop = Stop()

    def watch(step: int) -> None:
        if step in (EAGER_STEPS + 3, 50):
            torch.cuda.set_sync_debug_mode("error" if step < 50 else "default")

    run = make_training(tmp_path, {"maxSteps": 55}, CountingFence(stop, watch), stop)
    assert train(run, LoopState(), None)


def traced(path: Path, spec: dict[str, Any], at_step: Callable[[int], object], first: int, last: int) -> Trace:
    """What the profiler saw of a job's loop from step `first` to step `last`, both within one epoch."""
    stop = Stop()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    profiler = torch.profiler.profile(activities=activities)

    def watch(step: int) -> None:
        if step == first:
            profiler.start()
        if first < step < last:
            at_step(step)
        if step == last:
            profiler.stop()
            stop.request()

    run = make_training(path, spec, CountingFence(stop, watch), stop)
    assert last < run.plan.steps_per_epoch
    assert not train(run, LoopState(), None)
    profiler.export_chrome_trace(str(path / "trace.json"))
    return Trace.of(json.loads((path / "trace.json").read_text())["traceEvents"])


MANY_STEPS = {"dataset": {"uri": "mock://cifar10?samples=20000"}, "batchSize": 32, "epochs": 1}


def test_a_trace_shows_that_the_loop_never_waits_for_its_newest_step(tmp_path: Path) -> None:
    seen = traced(tmp_path, MANY_STEPS, lambda step: None, first=60, last=460)
    print(seen)
    assert seen.launches >= 399
    assert seen.caught_up == ()


def test_such_a_trace_shows_a_loop_that_does_wait(tmp_path: Path) -> None:
    value = torch.zeros(1, device="cuda")
    seen = traced(tmp_path, MANY_STEPS, lambda step: value.add_(1).item() if step % 10 == 0 else None, 60, 160)
    print(seen)
    assert len(seen.caught_up) >= 9


def test_a_step_is_compiled_beside_training_and_what_was_timed_faster_stays(tmp_path: Path) -> None:
    stop, metrics = Stop(), folder_at(tmp_path).metrics

    def watch(step: int) -> None:
        if step % 200 == 0 and metrics.exists() and b"compiled" in metrics.read_bytes():
            stop.request()

    run = make_training(tmp_path, {"maxSteps": 1_000_000}, CountingFence(stop, watch), stop)
    parts = job.Parts.of(run.spec, run.data, run.device)
    blueprint = Blueprint.of(run.spec, parts.options, run.data, run.plan.batch_size, run.device)
    compilation = Compilation(blueprint, tmp_path / "compiled", tmp_path / "scratch", always=True)
    state = LoopState()
    try:
        assert not train(dataclasses.replace(run, compilation=compilation), state, None)
    finally:
        compilation.end()
    told = [record.device for record in records_of(JobFolder(tmp_path)) if isinstance(record, StartedRecord)][-1]
    print(told)
    assert told.endswith("compiled, CUDA graph") or "not compiled: that took" in told
    assert (tmp_path / "compiled" / f"{blueprint.key}.json").is_file()


def test_data_in_host_memory_is_fed_as_data_on_the_gpu_is(tmp_path: Path) -> None:
    run = make_training(tmp_path, EXACT)
    whole = step_losses(run, 50, repeated=True)
    run = make_training(tmp_path, EXACT)
    pinned = PinnedFeed(
        run.data.to(torch.device("cpu")).train, run.plan.batch_size, run.spec.hyperparameters, run.device
    )
    assert step_losses(run, 50, repeated=True, feed=pinned) == pytest.approx(whole, abs=1e-3)


def test_a_resumed_job_goes_on_as_the_one_that_was_never_stopped(tmp_path: Path) -> None:
    spec = {"epochs": 2, "hyperparameters": {"learningRate": 0.01, "ema": 0.9}, **EXACT}
    whole = make_training(tmp_path / "whole", spec)
    assert train(whole, LoopState(), None)

    stop = Stop()
    stops = CountingFence(stop, lambda step: stop.request() if step == 80 else None)
    first = make_training(tmp_path / "first", spec, stops, stop)
    state = LoopState()
    assert not train(first, state, None)
    saved = first.checkpoints.newest
    assert saved is not None
    assert 0 < state.step < whole.plan.total_steps

    second = make_training(tmp_path / "second", spec)
    assert train(second, LoopState(), saved.path)
    (expected,) = [r for r in records_of(JobFolder(tmp_path / "whole")) if isinstance(r, EpochRecord) and r.epoch == 2]
    (resumed,) = [r for r in records_of(JobFolder(tmp_path / "second")) if isinstance(r, EpochRecord) and r.epoch == 2]
    print("uninterrupted", expected.loss, "resumed", resumed.loss)
    assert resumed.loss == pytest.approx(expected.loss, rel=1e-3)
    assert resumed.validation_loss == pytest.approx(expected.validation_loss, rel=1e-2)


def test_a_job_too_large_for_its_share_of_memory_says_what_would_do(tmp_path: Path) -> None:
    code, records = run_job(
        tmp_path,
        {
            "model": {"name": "resnet18", "options": {"width": 64}},
            "batchSize": 2048,
            "resources": {"gpus": 1, "gpuMemory": "1Gi"},
        },
    )
    failure = records[-1]
    assert code == ExitCode.FAILED
    assert isinstance(failure, FailureRecord)
    assert failure.failure == "OutOfGPUMemory"
    assert "resources.gpuMemory: 2Gi or batchSize: 1024" in failure.message


@pytest.mark.parametrize("sync", ["item", "event"])
def test_a_step_that_waits_for_the_gpu_stays_eager_and_says_why(tmp_path: Path, sync: str) -> None:
    where = make_training(tmp_path, {}).device
    event, counter = torch.cuda.Event(), torch.zeros((), device="cuda")

    def step() -> None:
        torch.rand(3, device="cuda")  # a generator caught in a failed capture would refuse this afterwards
        counter.add_(1)
        if sync == "item":
            counter.item()  # torch's sync debug mode knows this one
        else:
            event.record()
            event.synchronize()  # this one is found by the capture alone

    repeated = Repeated(step, where, steps=100)
    for _ in range(10):
        repeated()
    print(repeated.words)
    assert (repeated.words or "").startswith("eager: ")
    assert counter.item() >= 10
