"""Records, devices and the checks around a job, without a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cyxwiz_crds import TrainingJobSpec
from cyxwiz_crds.training_job import Hyperparameters
from cyxwiz_protocol import handshake
from cyxwiz_protocol.clock import boottime
from cyxwiz_protocol.job_folder import JobFolder, write_deadline, write_json
from cyxwiz_protocol.records import EpochRecord, ExitCode, FailureRecord, StartedRecord, parse_record
from cyxwiz_trainer import device, job, models
from cyxwiz_trainer.checkpoint import Checkpoints, Identity, LoopState, Restored, Saved
from cyxwiz_trainer.data import Part
from cyxwiz_trainer.device import Device
from cyxwiz_trainer.failures import WrongDevices
from cyxwiz_trainer.fence import Stop
from cyxwiz_trainer.optimizer import Optimizer
from cyxwiz_trainer.rehearsal import usual_shapes
from cyxwiz_trainer.replay import agrees, replayed_loss
from cyxwiz_trainer.reporter import Reporter
from cyxwiz_trainer.tasks import Classification
from cyxwiz_trainer.totals import Sums

SPEC = TrainingJobSpec.model_validate({"model": {"name": "mlp"}, "dataset": {"uri": "builtin://digits"}})


def test_what_is_reported_can_be_parsed_line_by_line(tmp_path: Path) -> None:
    records = [
        EpochRecord(t=1.0, epoch=1, loss=0.5, validation_accuracy=1 / 3),
        FailureRecord(t=2.0, failure="UserError", message="line\nbreak “quoted”"),
    ]
    reporter = Reporter(tmp_path / "metrics.jsonl")
    for record in records:
        reporter.write(record)
    assert [parse_record(line) for line in (tmp_path / "metrics.jsonl").read_bytes().splitlines()] == records


def test_the_handshake_survives_its_encoding() -> None:
    ready = handshake.Ready(pid=7, torch_version="2.15", models=["cnn"], device="cpu")
    assert handshake.parse_ready(handshake.encode_ready(ready)) == ready
    prepare = handshake.Prepare(rehearse=True, shapes=usual_shapes(on_gpu=True)[:8], environment={"A": "b"})
    assert handshake.parse_prepare(handshake.encode_prepare(prepare)) == prepare
    assert len(handshake.encode_prepare(prepare)) < handshake.LONGEST_LINE_BYTES
    start = handshake.Start(folder="/jobs/a")
    assert handshake.parse_start(handshake.encode_start(start)) == start
    assert handshake.parse_start(handshake.STARTED_LINE) is None
    assert handshake.parse_ready(b"\xff") is None


@pytest.mark.parametrize("visible", [[], ["bbb"], ["aaa", "bbb"]])
def test_a_job_never_runs_on_gpus_it_was_not_given(visible: list[str]) -> None:
    with pytest.raises(WrongDevices):
        device.check_visible(["GPU-aaa"], visible)


def test_gpus_are_the_same_with_and_without_the_drivers_prefix() -> None:
    device.check_visible(["GPU-AAA"], ["aaa"])


def order_in(folder: JobFolder, spec: dict[str, Any], restore_from: Path | None = None) -> JobFolder:
    order: dict[str, Any] = {"assignmentId": "a", "namespace": "n", "name": "j", "attempt": 1}
    if restore_from is not None:
        order["restoreFrom"] = str(restore_from)
    write_json(folder.order, order | {"spec": {"resources": {"gpus": 0}} | spec})
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[JobFolder]:
    """A job folder; this process has as many threads afterwards as before."""
    threads = torch.get_num_threads()
    yield JobFolder(tmp_path)
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("spec", "failure", "words"),
    [
        ({"model": {"name": "mlp"}, "hyperparameters": {"learningRate": 100, "momentum": 0.99}}, "Diverged", "epoch 1"),
        ({"model": {"name": "cnn"}, "batchSize": 1}, "UserError", "batchSize: 2"),
        ({"model": {"name": "cnn"}, "dataset": {"uri": "file://nowhere.npz"}}, "UserError", "data folder"),
    ],
)
def test_a_job_that_cannot_go_on_fails_with_a_record_that_says_why(
    folder: JobFolder, spec: dict[str, Any], failure: str, words: str
) -> None:
    code = job.run(order_in(folder, {"dataset": {"uri": "builtin://digits"}} | spec), Stop())
    record = parse_record(folder.metrics.read_bytes().splitlines()[-1])
    assert code == ExitCode.FAILED
    assert isinstance(record, FailureRecord)
    assert record.failure == failure
    assert words in record.message
    assert not folder.checkpoints.exists()
    assert not folder.model.exists()


def test_a_job_told_to_stop_before_its_first_step_leaves_nothing_behind(folder: JobFolder) -> None:
    stop = Stop()
    stop.request()
    assert job.run(order_in(folder, {"model": {"name": "mlp"}, "dataset": {"uri": "builtin://digits"}}), stop) == 20
    assert not folder.metrics.read_bytes()
    assert not folder.checkpoints.exists()


def test_a_job_told_to_stop_after_its_deadline_computes_and_saves_nothing(folder: JobFolder) -> None:
    stop = Stop()
    stop.request()
    write_deadline(folder, boottime() - 1)
    assert job.run(order_in(folder, {"model": {"name": "mlp"}, "dataset": {"uri": "builtin://digits"}}), stop) == 20
    assert not folder.metrics.read_bytes()


def test_a_corrupt_checkpoint_means_a_new_beginning_that_is_told(folder: JobFolder) -> None:
    spec = {"model": {"name": "mlp", "options": {"hidden": 8}}, "dataset": {"uri": "builtin://digits"}, "epochs": 1}
    assert job.run(order_in(folder, spec), Stop()) == ExitCode.SUCCEEDED
    (checkpoint,) = folder.checkpoints.iterdir()
    tensors = checkpoint / "state.safetensors"
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(content)

    folder.metrics.unlink()
    assert job.run(order_in(folder, spec, restore_from=checkpoint), Stop()) == ExitCode.SUCCEEDED
    started = parse_record(folder.metrics.read_bytes().splitlines()[0])
    assert isinstance(started, StartedRecord)
    assert started.restored_step == 0
    assert "corrupt" in (started.note or "")


@pytest.mark.parametrize(("width", "layout"), [(4, torch.contiguous_format), (8, torch.channels_last)])
def test_a_very_narrow_resnet_does_not_crash_the_trainer_on_a_cpu(width: int, layout: torch.memory_format) -> None:
    model = models.build(models.parse_options("resnet18", {"width": width}), (3, 8, 8), 2)
    assert device.image_layout(model, torch.device("cpu")) == layout
    assert device.image_layout(model, torch.device("cuda")) == torch.channels_last


def _model(seed: int) -> tuple[nn.Module, Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    optimizer = Optimizer(model, Hyperparameters())
    model(torch.randn(5, 4)).sum().backward()
    optimizer.set_learning_rate(0.1)
    optimizer.step()
    return model, optimizer


def test_a_restored_state_is_the_saved_one(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2, identity=Identity.of(SPEC, "data"))
    model, optimizer = _model(seed=1)
    checkpoints.save(LoopState(9, Sums(3, 0.1, 2.0, 3.0)), model, optimizer, replayed_loss=torch.tensor(0.5))
    random = torch.rand(3)
    with torch.no_grad():
        kept = {name: value.clone() for name, value in model.state_dict().items()}
        model[0].weight.zero_()  # pyright: ignore[reportIndexIssue]  # the first of a sequence
    [saved] = checkpoints.wait()
    other, other_optimizer = _model(seed=2)
    state = LoopState()
    assert checkpoints.restore(saved.path, state, other, other_optimizer) == Restored(None, 0.5)
    assert state == LoopState(9, Sums(3, 0.1, 2.0, 3.0))
    assert torch.equal(torch.rand(3), random)
    for name, value in kept.items():
        assert torch.equal(other.state_dict()[name], value)
    for name, value in optimizer.state().items():
        assert torch.equal(other_optimizer.state()[name], value)


def test_only_the_newest_checkpoints_stay(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2, identity=Identity.of(SPEC, "data"))
    for step in (5, 10, 15):
        checkpoints.save(LoopState(step), *_model(seed=1))
    checkpoints.wait()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-10", "step-15"]


@pytest.mark.parametrize(
    ("identity", "words"),
    [
        (Identity.of(SPEC.model_copy(update={"batch_size": 7}), "data"), "another model"),
        (Identity.of(SPEC, "other"), "the data has changed"),
    ],
)
def test_a_foreign_checkpoint_is_refused_and_nothing_is_touched(tmp_path: Path, identity: Identity, words: str) -> None:
    saved = _saved(tmp_path, 5)
    model, optimizer = _model(seed=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = LoopState()
    restored = Checkpoints(tmp_path, 2, identity).restore(saved.path, state, model, optimizer)
    assert words in (restored.note or "")
    assert state == LoopState()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_checkpoint_that_is_gone_is_told(tmp_path: Path) -> None:
    restored = Checkpoints(tmp_path, 2, Identity.of(SPEC, "data")).restore(tmp_path / "step-3", LoopState(), *_model(1))
    assert "step-3 could not be used" in (restored.note or "")
    assert "began anew" in (restored.note or "")


def _saved(folder: Path, *steps: int) -> Saved:
    """The last of the checkpoints that were saved after `steps`."""
    checkpoints = Checkpoints(folder, 9, Identity.of(SPEC, "data"))
    for step in steps:
        checkpoints.save(LoopState(step), *_model(seed=step))
    return checkpoints.wait()[-1]


def test_a_corrupt_checkpoint_is_passed_over_for_the_one_before_and_that_is_said(tmp_path: Path) -> None:
    newest = _saved(tmp_path, 5, 10, 15)
    weights = bytearray((newest.path / "state.safetensors").read_bytes())
    weights[-1] ^= 1
    (newest.path / "state.safetensors").write_bytes(weights)
    (tmp_path / "step-10" / "state.json").write_text("{")
    state = LoopState()
    restored = Checkpoints(tmp_path, 2, Identity.of(SPEC, "data")).restore(newest.path, state, *_model(seed=2))
    assert state.step == 5
    assert restored.note == (
        "the checkpoint step-15 could not be used (its digest does not match: it is corrupt); "
        "the checkpoint step-10 could not be used (its state.json is corrupt): training goes on from step 5"
    )


def test_a_checkpoint_that_cannot_be_written_ends_the_job_where_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    checkpoints = Checkpoints(tmp_path / "file" / "checkpoints", 2, Identity.of(SPEC, "data"))
    checkpoints.save(LoopState(5), *_model(seed=1))
    with pytest.raises(OSError, match="file"):
        checkpoints.wait()


def test_a_recorded_batch_is_answered_the_same_by_the_same_weights_only() -> None:
    part = Part(torch.randn(100, 4, generator=torch.Generator().manual_seed(3)), torch.arange(100) % 3)
    where = Device(torch.device("cpu"), None, "CPU")
    (model, _), (same, _), (other, _) = _model(1), _model(1), _model(2)
    losses = [replayed_loss(each, part, Classification(), where, 64).item() for each in (model, same, other)]
    assert losses[0] == losses[1]
    assert agrees(losses[0], losses[1], where)
    assert not agrees(losses[0], losses[2], where)
    in_parts = replayed_loss(model, part, Classification(), where, 10).item()
    assert agrees(losses[0], in_parts, where)
    assert model.training
