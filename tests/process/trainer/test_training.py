"""Jobs from their folder to their end, as a runner starts them."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from typing import Any

import pytest
from safetensors import safe_open

from cyxwiz_protocol.records import (
    ActivityRecord,
    CheckpointedRecord,
    EpochRecord,
    ExitCode,
    FailureRecord,
    ModelRecord,
    ProgressRecord,
    StartedRecord,
)

SEED = {"seed": 7}


@pytest.fixture(scope="module")
def digits(trainers: Any) -> Any:
    """A finished job on real digits."""
    job = trainers.run(trainers.folder("digits", epochs=8, hyperparameters=SEED))
    assert job.wait() == ExitCode.SUCCEEDED, job.log()
    return job


def test_digits_are_learned_within_a_few_epochs(digits: Any) -> None:
    accuracies = [record.validation_accuracy for record in digits.of(EpochRecord)]
    assert len(accuracies) == 8
    assert max(accuracies[:5]) > 0.95


def test_the_model_is_the_one_its_record_names(digits: Any) -> None:
    (record,) = digits.of(ModelRecord)
    content = (digits.folder.path / record.path).read_bytes()
    assert (hashlib.sha256(content).hexdigest(), len(content)) == (record.sha256, record.bytes)
    config = json.loads((digits.folder.model / "config.json").read_text())
    assert config["model"] == {"name": "cnn", "options": {"width": 8}}
    assert config["input"]["shape"] == [1, 8, 8]
    with safe_open(digits.folder.path / record.path, framework="numpy") as weights:
        assert weights.get_tensor("head.weight").shape == (config["outputs"], 32)


def test_progress_only_grows_and_ends_at_the_last_step(digits: Any) -> None:
    progress = digits.of(ProgressRecord)
    assert all(before.step <= after.step for before, after in itertools.pairwise(progress))
    assert progress[-1].step == progress[-1].total_steps == 8 * 50
    assert progress[-1].remaining_seconds == 0
    assert isinstance(digits.records()[0], StartedRecord)


def test_records_say_what_training_waits_for_and_when_no_step_is_to_be_expected(digits: Any) -> None:
    waits = digits.of(ProgressRecord)[-1].waits
    assert waits is not None
    assert waits.data + waits.device + waits.host == pytest.approx(1)
    assert waits.device > waits.data, "on the CPU a small network takes longer than fetching its batches"
    assert [record.activity for record in digits.of(ActivityRecord)].count("evaluating") == 8


def test_the_first_record_says_what_the_job_was_made_with(digits: Any) -> None:
    started = digits.of(StartedRecord)[0]
    assert started.seed == SEED["seed"]
    assert started.software is not None
    assert len(started.software.code_sha256 or "") == 64


def test_the_newest_checkpoints_and_the_best_are_kept_and_are_what_was_reported(digits: Any) -> None:
    reported = digits.of(CheckpointedRecord)
    best = [record for record in reported if record.best][-1]
    accuracies = [record.validation_accuracy for record in digits.of(EpochRecord)]
    assert accuracies[best.epoch - 1] == max(accuracies)
    kept = {record.folder: record for record in (*reported[-2:], best)}
    assert {f"checkpoints/{path.name}" for path in digits.folder.checkpoints.iterdir()} == set(kept)
    for record in kept.values():
        content = (digits.folder.path / record.folder / "state.safetensors").read_bytes()
        assert record.digest == f"sha256:{hashlib.sha256(content).hexdigest()[:16]}"


def test_a_stopped_job_goes_on_elsewhere_as_if_it_had_never_stopped(trainers: Any, digits: Any) -> None:
    first = trainers.run(trainers.folder("stopped", epochs=8, hyperparameters=SEED))
    first.until(lambda job: bool(job.of(CheckpointedRecord)))
    assert first.stop() == ExitCode.STOPPED, first.log()
    checkpoint = first.of(CheckpointedRecord)[-1]
    assert checkpoint.step < 400

    second = trainers.run(
        trainers.folder("resumed", epochs=8, hyperparameters=SEED, restore_from=first.folder.path / checkpoint.folder)
    )
    assert second.wait() == ExitCode.SUCCEEDED, second.log()
    (started,) = second.of(StartedRecord)
    assert (started.restored_step, started.note) == (checkpoint.step, None)
    assert started.replay is not None
    assert started.replay.verified
    assert started.replay.saved_loss == started.replay.replayed_loss
    assert _losses(first) + _losses(second) == _losses(digits)
    assert second.of(ModelRecord)[0].sha256 == digits.of(ModelRecord)[0].sha256


EVERYTHING = {
    "optimizer": "adamw",
    "learningRate": 0.005,
    "schedule": "onecycle",
    "accumulateSteps": 2,
    "gradientClip": 1.0,
    "ema": 0.99,
    "labelSmoothing": 0.1,
    "augment": {"flip": True, "crop": 1},
    "earlyStopping": {"patience": 50},
}


def test_a_stopped_job_that_uses_everything_goes_on_as_if_it_had_never_stopped(trainers: Any) -> None:
    whole = trainers.run(trainers.folder("everything", epochs=3, hyperparameters=EVERYTHING))
    assert whole.wait() == ExitCode.SUCCEEDED, whole.log()
    first = trainers.run(trainers.folder("everything-first", epochs=3, hyperparameters=EVERYTHING))
    first.until(lambda job: bool(job.of(CheckpointedRecord)))
    assert first.stop() == ExitCode.STOPPED, first.log()
    checkpoint = first.folder.path / first.of(CheckpointedRecord)[-1].folder
    second = trainers.run(
        trainers.folder("everything-second", epochs=3, hyperparameters=EVERYTHING, restore_from=checkpoint)
    )
    assert second.wait() == ExitCode.SUCCEEDED, second.log()
    assert second.of(StartedRecord)[0].note is None
    assert _losses(first) + _losses(second) == _losses(whole)
    assert second.of(ModelRecord)[0].sha256 == whole.of(ModelRecord)[0].sha256


def test_a_job_that_learns_nothing_more_ends_early_and_whole(trainers: Any) -> None:
    hyper = {"learningRate": 1e-9, "earlyStopping": {"patience": 2}}
    job = trainers.run(trainers.folder("early", epochs=50, hyperparameters=hyper))
    assert job.wait() == ExitCode.SUCCEEDED, job.log()
    last = job.of(ProgressRecord)[-1]
    assert last.step == last.total_steps < 50 * 50
    assert last.epochs == len(job.of(EpochRecord)) >= 3
    assert job.of(ModelRecord)
    assert "ended early" in job.log()


def _losses(job: Any) -> list[tuple[int, float, float | None]]:
    return [(record.epoch, record.loss, record.validation_loss) for record in job.of(EpochRecord)]


def test_an_unknown_model_fails_with_the_one_that_was_meant(trainers: Any) -> None:
    job = trainers.run(trainers.folder("unknown", model="resnet8"))
    assert job.wait() == ExitCode.FAILED
    (failure,) = job.records()
    assert isinstance(failure, FailureRecord)
    assert failure.failure == "UserError"
    assert "did you mean resnet18?" in failure.message


def test_a_bug_leaves_its_traceback_in_the_log_and_no_record(trainers: Any) -> None:
    folder = trainers.folder("bug")
    folder.order.write_text("{}")
    job = trainers.run(folder)
    assert job.wait() not in set(ExitCode)
    assert "Traceback" in job.log()
    assert job.records() == []


def test_help_answers_without_a_job(trainers: Any) -> None:
    assert trainers.spawn("--help").wait(90) == os.EX_OK
