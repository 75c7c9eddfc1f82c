"""Jobs of several ranks, by gloo on the CPU: what they learn, how they stop, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cyxwiz_protocol.records import (
    CheckpointedRecord,
    EpochRecord,
    ExitCode,
    FailureRecord,
    ModelRecord,
    ProgressRecord,
    StartedRecord,
)
from cyxwiz_runner.process_tree import all_processes

TRAIN_FOLDERS = Path(__file__).with_name("train_folders.py")
ALIKE = 1e-3
STEPS = 50


def ranks_of(job: Any) -> list[int]:
    """Pids of the job's ranks that live, in their order."""
    main = job.process.pid
    return sorted(process.pid for process in all_processes() if process.parent == main and not process.is_dead)


def losses(job: Any) -> list[tuple[float, float | None]]:
    return [(record.loss, record.validation_loss) for record in job.of(EpochRecord)]


# One step an epoch, so that the epochs' losses are those of the steps.
ONE_STEP = {
    "mlp": {"uri": "builtin://digits", "batch_size": 1616, "options": {"hidden": 64}},
    "vit": {
        "uri": "mock://cifar10?samples=70",
        "batch_size": 60,
        "options": {"patch": 8, "dim": 32, "depth": 2, "heads": 2},
    },
    "gpt": {"uri": "file://book.txt", "batch_size": 64, "options": {"dim": 32, "depth": 2, "heads": 2, "dropout": 0}},
}


@pytest.fixture(scope="module")
def alone_and_together(trainers: Any) -> dict[str, tuple[Any, Any]]:
    """Model to the jobs that trained it in one process and in two."""
    (trainers.root / "book.txt").write_bytes(b"the quick brown fox jumps over the lazy dog. " * 224)
    jobs: dict[str, tuple[Any, Any]] = {}
    for model, order in ONE_STEP.items():
        more = {"epochs": STEPS, "hyperparameters": {"learningRate": 0.05, "gradientClip": 1.0}, **order}
        folders = [trainers.folder(f"{model}-{ranks}", model=model, ranks=ranks, **more) for ranks in (1, 2)]
        jobs[model] = tuple(trainers.watch(folder, None) for folder in folders)
    paths = [str(job.folder.path) for pair in jobs.values() for job in pair]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "CYXWIZ_DATA_ROOT": str(trainers.root)}
    subprocess.run([sys.executable, str(TRAIN_FOLDERS), *paths], env=environment, check=True)
    return jobs


@pytest.mark.parametrize("model", list(ONE_STEP))
def test_two_ranks_learn_what_one_process_does(alone_and_together: Any, model: str) -> None:
    alone, together = alone_and_together[model]
    for job in (alone, together):
        assert job.of(ProgressRecord)[-1].step == STEPS
    expected, found = losses(alone), losses(together)
    assert len(expected) == STEPS
    for (loss, held_out), (their_loss, their_held_out) in zip(expected, found, strict=True):
        assert their_loss == pytest.approx(loss, abs=ALIKE)
        assert their_held_out == pytest.approx(held_out, abs=ALIKE)
    assert expected[-1][0] < 0.9 * expected[0][0]


def test_they_are_one_job_in_all_records(alone_and_together: Any) -> None:
    alone, together = alone_and_together["mlp"]
    for kind in (EpochRecord, CheckpointedRecord, ModelRecord):
        assert len(together.of(kind)) == len(alone.of(kind))
    assert together.of(StartedRecord)[0].device == "CPU, 2 ranks of 1 thread, float32"
    mine, theirs = together.of(ProgressRecord)[-1], alone.of(ProgressRecord)[-1]
    assert (mine.samples_processed, mine.accuracy) == (theirs.samples_processed, pytest.approx(theirs.accuracy))


SHAKY = {"seed": 7, "learningRate": 0.002, "optimizer": "adamw", "accumulateSteps": 2, "ema": 0.9}


def test_stopped_ranks_go_on_elsewhere_as_if_they_had_never_stopped(trainers: Any) -> None:
    (trainers.root / "tale.txt").write_bytes(b"once upon a time there was a small model. " * 200)
    order = {"model": "gpt", "uri": "file://tale.txt", "ranks": 2, "epochs": 12, "hyperparameters": SHAKY}
    order["options"] = {"dim": 32, "depth": 1, "heads": 2, "dropout": "0.2"}  # drawn by each rank for itself
    whole = trainers.run(trainers.folder("whole", **order))
    assert whole.wait() == ExitCode.SUCCEEDED, whole.log()
    first = trainers.run(trainers.folder("first", **order))
    first.until(lambda job: bool(job.of(CheckpointedRecord)))
    assert first.stop() == ExitCode.STOPPED, first.log()
    checkpoint = first.of(CheckpointedRecord)[-1]
    second = trainers.run(trainers.folder("second", restore_from=first.folder.path / checkpoint.folder, **order))
    assert second.wait() == ExitCode.SUCCEEDED, second.log()
    assert second.of(StartedRecord)[0].restored_step == checkpoint.step < whole.of(ProgressRecord)[-1].step
    assert losses(first) + losses(second) == losses(whole)
    assert second.of(ModelRecord)[0].sha256 == whole.of(ModelRecord)[0].sha256


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_all_at_once_and_is_the_cause_that_is_told(trainers: Any, rank: int) -> None:
    job = trainers.run(trainers.folder(f"killed-{rank}", model="mlp", epochs=100_000, ranks=2))
    job.until(lambda job: bool(job.of(ProgressRecord)))
    pids = ranks_of(job)
    assert len(pids) == 2
    os.kill(pids[rank], signal.SIGKILL)
    assert job.wait() == -signal.SIGKILL
    assert not set(pids) & {process.pid for process in all_processes() if not process.is_dead}
    assert job.log().splitlines()[-1] == f"rank {rank} of 2 was killed by SIGKILL: all were ended"
    assert "Traceback" not in job.log()
    assert not job.of(FailureRecord)


@pytest.mark.parametrize(
    ("name", "order", "words"),
    [
        ("uneven", {"batch_size": 33}, "set batchSize: 32 or 34"),
        ("unknown", {"model": "mpl"}, "did you mean mlp?"),
        ("diverging", {"hyperparameters": {"learningRate": 100, "momentum": 0.99}}, "learning"),
    ],
)
def test_what_is_wrong_is_told_once(trainers: Any, name: str, order: dict[str, Any], words: str) -> None:
    job = trainers.run(trainers.folder(name, ranks=2, **{"model": "mlp", **order}))
    assert job.wait() == ExitCode.FAILED, job.log()
    (failure,) = job.of(FailureRecord)
    assert words in failure.message
    assert job.log().count(failure.message) == 1
