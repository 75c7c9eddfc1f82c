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
        assert weights.get_tensor("head.weight").shape == (config["classes"], 32)


def test_progress_only_grows_and_ends_at_the_last_step(digits: Any) -> None:
    progress = digits.of(ProgressRecord)
    assert all(before.step <= after.step for before, after in itertools.pairwise(progress))
    assert progress[-1].step == progress[-1].total_steps == 8 * 50
    assert progress[-1].remaining_seconds == 0
    assert isinstance(digits.records()[0], StartedRecord)


def test_the_newest_checkpoints_are_kept_and_are_what_was_reported(digits: Any) -> None:
    reported = digits.of(CheckpointedRecord)[-2:]
    assert sorted(path.name for path in digits.folder.checkpoints.iterdir()) == ["step-350", "step-400"]
    for record in reported:
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
    assert _losses(first) + _losses(second) == _losses(digits)
    assert second.of(ModelRecord)[0].sha256 == digits.of(ModelRecord)[0].sha256


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
