"""Orders to a trainer at work: heard, obeyed, acknowledged."""

from __future__ import annotations

import pytest

from cyxwiz_protocol.job_folder import write_json
from cyxwiz_protocol.records import (
    CheckpointedRecord,
    ControlRecord,
    EpochRecord,
    ExitCode,
    ModelRecord,
    ProgressRecord,
)

from .conftest import Job, Trainers


def steer(job: Job, generation: int, **control: object) -> ControlRecord:
    """The acknowledgement of this order."""
    write_json(job.folder.control, {"generation": generation, **control}, for_all=True)
    job.until(lambda job: any(record.generation == generation for record in job.of(ControlRecord)))
    return next(record for record in job.of(ControlRecord) if record.generation == generation)


def training(job: Job) -> bool:
    return len(job.of(EpochRecord)) > 0


def test_a_job_under_way_saves_slows_down_and_stops_after_its_epoch_as_it_is_told(trainers: Trainers) -> None:
    job = trainers.run(trainers.folder("steered", epochs=10_000))
    job.until(training)

    said = steer(job, 1, checkpointNow=True)
    assert "checkpoint saved" in said.message
    records = job.records()
    position = records.index(said)
    assert any(isinstance(record, CheckpointedRecord) for record in records[:position])

    said = steer(job, 2, learningRate=0.0005)
    assert "learning rate 0.0005" in said.message
    job.until(lambda job: job.of(ProgressRecord)[-1].learning_rate == pytest.approx(0.0005))

    said = steer(job, 3, learningRate=0.0005, stopAfterEpoch=True)
    assert job.wait() == ExitCode.SUCCEEDED
    last = job.of(ProgressRecord)[-1]
    assert f"ends after epoch {last.epoch}" in said.message
    assert (last.step, last.epochs) == (last.total_steps, last.epoch)
    assert len(job.of(ModelRecord)) == 1


def test_a_job_gets_more_epochs_and_later_fewer(trainers: Trainers) -> None:
    job = trainers.run(trainers.folder("longer", epochs=9_000))
    job.until(training)
    assert "epoch 9500" in steer(job, 1, epochs=9_500).message
    job.until(lambda job: job.of(ProgressRecord)[-1].epochs == 9_500)
    steer(job, 2, epochs=1)
    assert job.wait() == ExitCode.SUCCEEDED
    assert job.of(ProgressRecord)[-1].epoch == job.of(EpochRecord)[-1].epoch > 0


def test_a_checkpoint_ordered_by_hand_is_gone_on_from(trainers: Trainers) -> None:
    job = trainers.run(trainers.folder("saved-midway", epochs=10_000))
    job.until(training)
    steer(job, 1, checkpointNow=True)
    ordered = job.of(CheckpointedRecord)[-1]
    source = job.folder.path / ordered.folder
    assert job.stop() == ExitCode.STOPPED
    again = trainers.run(trainers.folder("from-midway", epochs=10_000, restore_from=source))
    again.until(training)
    assert again.of(ProgressRecord)[0].step > ordered.step
    again.stop()
