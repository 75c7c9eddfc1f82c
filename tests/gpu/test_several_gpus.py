"""Jobs on two GPUs of one machine, by NCCL: what they learn, how they stop, how they end, and the whole thread."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from cyxwiz_agent.devices import Devices, read_devices
from cyxwiz_crds import TrainingJobSpec
from cyxwiz_devcluster import start
from cyxwiz_platform import Platform
from cyxwiz_protocol.job_folder import JobFolder, Tail, write_json
from cyxwiz_protocol.order import JobOrder
from cyxwiz_protocol.records import (
    CheckpointedRecord,
    EpochRecord,
    ExitCode,
    ModelRecord,
    ProgressRecord,
    Record,
    StartedRecord,
    parse_record,
)
from cyxwiz_runner.process_tree import all_processes
from tests.thread import apply_and_wait, digits, finished, status_of

DEVICES: Devices = read_devices()
UUIDS = [gpu.uuid for gpu in DEVICES.gpus[:2]]
PATIENCE_S = 180.0
STEPS = 50
T = TypeVar("T", bound=Record)

pytestmark = pytest.mark.skipif(
    len(UUIDS) < 2, reason=f"needs two NVIDIA GPUs in one machine, and there are {len(UUIDS)}"
)

EXACT = {"precision": "float32", "deterministic": True, "resources": {"cpus": 4}}
LONG = {
    "model": {"name": "resnet18", "options": {"width": 16}},
    "dataset": {"uri": "mock://cifar10?samples=20000"},
    "batchSize": 256,
    "epochs": 100_000,
}


class Job:
    """A job folder and the process that works on it."""

    def __init__(self, folder: JobFolder, gpus: list[str]) -> None:
        self.folder = folder
        environment = {
            **os.environ,
            "CUDA_VISIBLE_DEVICES": ",".join(gpus),
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
            "CYXWIZ_DATA_ROOT": str(folder.path.parent),
        }
        command = [sys.executable, "-m", "cyxwiz_trainer", "--folder", str(folder.path)]
        self.process = subprocess.Popen(command, env=environment, start_new_session=True)

    def of(self, kind: type[T]) -> list[T]:
        parsed = [parse_record(line) for line in Tail(self.folder.metrics).lines()]
        return [record for record in parsed if isinstance(record, kind)]

    def log(self) -> str:
        return self.folder.log.read_text() if self.folder.log.exists() else ""

    def wait(self) -> int:
        return self.process.wait(PATIENCE_S)

    def until(self, condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert self.process.poll() is None, f"it left with {self.process.returncode}: {self.log()}"
            assert time.monotonic() < deadline, f"it never came true: {self.log()}"
            time.sleep(0.05)

    def steps(self) -> int:
        return max((record.step for record in self.of(ProgressRecord)), default=0)

    def ranks(self) -> list[int]:
        pid = self.process.pid
        return sorted(process.pid for process in all_processes() if process.parent == pid and not process.is_dead)

    def losses(self) -> list[float]:
        return [record.loss for record in self.of(EpochRecord)]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Job]]:
    """Starts the job of a spec on that many GPUs; what is left of it ends with the test."""
    jobs: list[Job] = []

    def begin(spec: dict[str, Any], gpus: int = 2, restore_from: Path | None = None) -> Job:
        folder = JobFolder(tmp_path / f"job-{len(jobs)}")
        folder.path.mkdir()
        order = JobOrder(
            assignment_id=folder.path.name,
            namespace="team",
            name="job",
            attempt=1,
            spec=TrainingJobSpec.model_validate(spec),
            gpus=UUIDS[:gpus],
            ranks=gpus,
            restore_from=None if restore_from is None else str(restore_from),
        )
        write_json(folder.order, order.wire())
        jobs.append(Job(folder, UUIDS[:gpus]))
        return jobs[-1]

    yield begin
    for job in jobs:
        job.process.kill()
        job.process.wait()


def test_a_job_with_batch_norm_runs_as_a_graph_on_both_and_learns(run: Callable[..., Job]) -> None:
    job = run(LONG | {"epochs": 3})
    assert job.wait() == ExitCode.SUCCEEDED, job.log()
    started = [record.device for record in job.of(StartedRecord)]
    print(started, [(record.loss, record.validation_accuracy) for record in job.of(EpochRecord)])
    assert started[0].startswith("2 x ")
    assert started[-1].endswith(", CUDA graph")
    assert job.losses()[-1] < job.losses()[0]
    assert len(job.of(ModelRecord)) == 1
    assert job.of(ProgressRecord)[-1].gpu_memory_peak


# One step an epoch, so that the epochs' losses are those of the steps.
ONE_STEP = {
    "mlp": {"dataset": {"uri": "builtin://digits"}, "batchSize": 1616},
    "vit": {"dataset": {"uri": "mock://cifar10?samples=500"}, "batchSize": 500},
    "gpt": {"dataset": {"uri": "file://book.txt", "contextLength": 64}, "batchSize": 256},
    "resnet18": {"dataset": {"uri": "mock://cifar10?samples=500"}, "batchSize": 500},
}


@pytest.mark.parametrize("model", list(ONE_STEP))
def test_two_gpus_learn_what_one_does_over_50_float32_steps(
    run: Callable[..., Job], tmp_path: Path, model: str
) -> None:
    """resnet18 has batch norm: that its losses agree says that the statistics are those of the whole batch."""
    (tmp_path / "book.txt").write_bytes(b"the quick brown fox jumps over the lazy dog. " * 500)
    spec = {"model": {"name": model}, "epochs": STEPS, "hyperparameters": {"learningRate": 0.01}}
    jobs = [run(spec | ONE_STEP[model] | EXACT, gpus=gpus) for gpus in (1, 2)]
    for job in jobs:
        assert job.wait() == ExitCode.SUCCEEDED, job.log()
    alone, together = (job.losses() for job in jobs)
    print(model, "largest difference", max(abs(a - b) for a, b in zip(alone, together, strict=True)))
    assert len(alone) == STEPS
    # A network without norms over the batch differs by rounding alone; batch norm over 50 steps makes more of it.
    assert together == pytest.approx(alone, abs=1e-2 if model == "resnet18" else 1e-3)
    assert alone[-1] < alone[0]


def test_a_frozen_job_goes_on_where_it_stood_and_saves_when_told_to_stop(run: Callable[..., Job]) -> None:
    job = run(LONG)
    job.until(lambda: job.steps() > 200)
    os.killpg(job.process.pid, signal.SIGSTOP)
    time.sleep(0.5)  # for what is queued on the devices
    seen = job.steps()
    time.sleep(5)
    assert job.steps() == seen
    os.killpg(job.process.pid, signal.SIGCONT)
    job.until(lambda: job.steps() > seen + 200)
    os.killpg(job.process.pid, signal.SIGTERM)
    assert job.wait() == ExitCode.STOPPED, job.log()
    saved = job.of(CheckpointedRecord)[-1]

    stopped_at = saved.step
    after = run(LONG, restore_from=job.folder.path / saved.folder)
    after.until(lambda: after.steps() > stopped_at + 50)
    started = after.of(StartedRecord)[0]
    assert (started.restored_step, started.note) == (stopped_at, None)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_all_at_once_and_leaves_both_gpus(run: Callable[..., Job], rank: int) -> None:
    job = run(LONG)
    job.until(lambda: job.steps() > 100)
    os.kill(job.ranks()[rank], signal.SIGKILL)
    begun = time.monotonic()
    assert job.wait() == -signal.SIGKILL
    print("ended after", time.monotonic() - begun)
    assert job.log().splitlines()[-1] == f"rank {rank} of 2 was killed by SIGKILL: all were ended"
    assert not [process for process in all_processes() if process.session == job.process.pid and not process.is_dead]


def test_a_job_on_two_gpus_goes_through_the_whole_thread(tmp_path: Path) -> None:
    with start(tmp_path / "c") as cluster, Platform(cluster, tmp_path / "t") as platform:
        platform.install()
        platform.add_machine("two", cpus=8, memory="32Gi", warm=0, gpus=tuple(UUIDS))
        platform.start_operator()
        platform.wait_machines()
        job = apply_and_wait(platform, digits("on-two", gpus=2, cpus=4, epochs=20), finished, "a final phase")
        status = status_of(job)
        print(yaml.safe_dump(status))
        assert status["phase"] == "Succeeded", status.get("summary")
        assert sorted(status["assignment"]["gpus"]) == sorted(UUIDS)
        assert status["execution"]["device"].startswith("2 x ")
        assert status["execution"]["start"].startswith("Cold")
        assert status["execution"]["start"].endswith(": 2 GPUs")
