"""Records folded into reports, endings told, and how often."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyxwiz_agent.ending import ending_of, wish_of
from cyxwiz_agent.facts import Facts, curve, duration_text, model_report, progress_report, resumption_report, thinned
from cyxwiz_protocol.records import (
    EpochRecord,
    ExitCode,
    ExitRecord,
    ExportRecord,
    FailureRecord,
    ModelRecord,
    ProgressRecord,
    ReplayRecord,
    StartedRecord,
    encode_record,
    parse_record,
)
from cyxwiz_protocol.storing import StoredFile, StoreOutcome

PROGRESS = ProgressRecord(
    t=1.0,
    epoch=3,
    epochs=5,
    step=130,
    total_steps=250,
    loss=0.51239,
    accuracy=0.8,
    learning_rate=0.01,
    samples_processed=4160,
    samples_per_second=1234.56,
    elapsed_seconds=3.4,
    remaining_seconds=100.2,
)
MODEL = ModelRecord(t=9.0, path="model/model.safetensors", sha256="ab" * 32, bytes=1000)


def exited(code: int | None = None, signal: int | None = None, cause: str = "Exited") -> ExitRecord:
    return ExitRecord.model_validate(
        {"assignmentId": "u-1", "cause": cause, "exitCode": code, "signal": signal, "endedAt": 10.0}
    )


def test_progress_is_told_as_people_read_it() -> None:
    told = progress_report(Facts().after(PROGRESS))
    assert told is not None
    assert (told.epochs, told.percent, told.loss, told.eta) == ("3/5", "52%", "0.5124", "1m40s")


def test_accuracy_on_held_out_data_and_the_best_of_it_are_kept() -> None:
    facts = Facts().after(PROGRESS)
    for epoch, accuracy in enumerate([0.7, 0.9, 0.8], start=1):
        facts = facts.after(EpochRecord(t=1.0, epoch=epoch, loss=1 / epoch, validation_accuracy=accuracy))
    told = progress_report(facts)
    assert told is not None
    assert (told.validation_accuracy, told.best) == ("0.8000", "0.9000")
    assert told.loss_history == "1.0000 0.5000 0.3333"
    assert told.curve == "█▃▁"


def test_a_resumed_job_tells_the_loss_of_the_recorded_batch_then_and_now() -> None:
    started = StartedRecord(t=1.0, device="CPU", parameters=3, train_samples=4, validation_samples=5)
    assert resumption_report(Facts().after(started)) is None
    replay = ReplayRecord(saved_loss=0.25, replayed_loss=0.2500001, verified=True)
    told = resumption_report(Facts().after(started.model_copy(update={"restored_step": 90, "replay": replay})))
    assert told is not None
    assert (told.step, told.verified, told.saved_loss, told.replayed_loss) == (90, True, "0.25", "0.25")


def test_a_model_says_where_it_lies() -> None:
    told = model_report(Facts().after(MODEL), "node-a", "u-1")
    assert told is not None
    assert told.uri == "node://node-a/u-1/model/model.safetensors"


def test_a_job_that_ended_well_has_succeeded_whatever_was_wished_meanwhile() -> None:
    wish = wish_of("Stop", "CancelledByUser", 30, cancelled=True)
    assert ending_of(exited(ExitCode.SUCCEEDED), Facts(model=MODEL), wish, "").state == "Succeeded"


def test_a_model_says_what_became_of_each_format_that_was_asked_for() -> None:
    onnx = ExportRecord(t=9.5, format="onnx", message="agrees", path="model/model.onnx", sha256="cd" * 32, bytes=2000)
    curves = ExportRecord(t=9.6, format="tensorboard", message="not written: " + "x" * 500)
    told = model_report(Facts().after(MODEL).after(curves).after(onnx).after(curves), "node-a", "u-1")
    assert told is not None
    first, second = told.exports
    assert first.uri == "node://node-a/u-1/model/model.onnx"
    assert (first.sha256, first.bytes, first.message) == ("cd" * 32, 2000, "agrees")
    assert (second.format, second.sha256, second.uri) == ("tensorboard", None, None)
    assert len(second.message) == 256


def put(name: str = "model.safetensors", sha256: str = MODEL.sha256, message: str | None = None) -> ExitRecord:
    """The exit of a job whose model was to be stored."""
    file = StoredFile(name=name, sha256=sha256, bytes=1000)
    stored = StoreOutcome(uri="s3://models/team/job", files=[file], message=message)
    return exited(ExitCode.SUCCEEDED).model_copy(update={"stored": stored})


def test_a_model_that_was_stored_lies_there_and_is_still_brought_from_its_node() -> None:
    told = model_report(Facts().after(MODEL), "node-a", "u-1", put().stored)
    assert told is not None
    assert (told.uri, told.durable) == ("s3://models/team/job/model.safetensors", True)
    assert told.node_uri == "node://node-a/u-1/model/model.safetensors"
    assert ending_of(put(), Facts(model=MODEL), None, "").state == "Succeeded"


@pytest.mark.parametrize(
    ("exit_record", "words"),
    [
        (
            put(message="s3://models/team/job: timed out"),
            "not stored: s3://models/team/job: timed out. It lies on its node",
        ),
        (put(name="config.json"), "model.safetensors was gone when training had ended"),
        (put(sha256="cd" * 32), "another file than training has told of"),
    ],
)
def test_a_job_whose_model_is_not_where_it_belongs_has_failed_and_keeps_it(exit_record: ExitRecord, words: str) -> None:
    ending = ending_of(exit_record, Facts(model=MODEL), None, "")
    assert (ending.state, ending.reason) == ("Failed", "NotStored")
    assert words in (ending.message or "")
    yields = wish_of("Yield", "Preempted", 5, cancelled=False)
    assert ending_of(exit_record, Facts(model=MODEL), yields, "").state == "Yielded"


def test_a_model_that_was_only_partly_stored_is_said_to_lie_on_its_node() -> None:
    told = model_report(Facts().after(MODEL), "node-a", "u-1", put(name="config.json").stored)
    assert told is not None
    assert (told.uri, told.durable, told.node_uri) == ("node://node-a/u-1/model/model.safetensors", False, None)


def test_a_clean_exit_without_a_model_is_no_success() -> None:
    assert ending_of(exited(0), Facts(), None, "").reason == "Crashed"


@pytest.mark.parametrize(
    ("record", "wish", "state", "reason"),
    [
        (exited(ExitCode.STOPPED, cause="Stopped"), ("Stop", None, True), "Cancelled", "CancelledByUser"),
        (exited(ExitCode.STOPPED, cause="Stopped"), ("Yield", "SuspendedByUser", False), "Yielded", "SuspendedByUser"),
        (exited(signal=9, cause="Stopped"), ("Stop", "DeadlineExceeded", False), "Failed", "DeadlineExceeded"),
        (exited(ExitCode.STOPPED, cause="Stopped"), None, "Yielded", None),
        (exited(1), None, "Failed", "Crashed"),
        (exited(signal=11), None, "Failed", "Crashed"),
        (exited(signal=9, cause="Fenced"), None, "Failed", "NodeLost"),
        (exited(signal=9, cause="RunnerRestarted"), None, "Failed", "Evicted"),
        (exited(cause="StartFailed"), None, "Failed", "Evicted"),
    ],
)
def test_every_ending_has_its_class(
    record: ExitRecord, wish: tuple[str, str | None, bool] | None, state: str, reason: str | None
) -> None:
    asked = None if wish is None else wish_of(wish[0], wish[1], 30, cancelled=wish[2])
    ending = ending_of(record, Facts(), asked, "")
    assert (ending.state, ending.reason) == (state, reason)


def test_a_failure_is_told_in_the_trainers_own_words() -> None:
    failure = FailureRecord(t=1.0, failure="UserError", message="no model 'resnet19': did you mean resnet18?")
    ending = ending_of(exited(ExitCode.FAILED), Facts(failure=failure), None, "")
    assert (ending.reason, ending.message) == ("UserError", failure.message)


def test_a_crash_names_its_signal_and_its_last_words() -> None:
    message = ending_of(exited(signal=11), Facts(), None, "Fatal error").message
    assert message == "The trainer was killed by SIGSEGV. Its last words: Fatal error"


@pytest.mark.parametrize(
    ("record", "failure", "reason"),
    [
        (exited(signal=6), None, "GPUFault"),
        (exited(ExitCode.FAILED), "Crashed", "GPUFault"),
        (exited(ExitCode.FAILED), "UserError", "UserError"),
        (exited(signal=9, cause="Fenced"), None, "NodeLost"),
    ],
)
def test_a_crash_on_a_failed_gpu_is_the_gpus_fault(record: ExitRecord, failure: str | None, reason: str) -> None:
    told = None if failure is None else FailureRecord(t=1.0, failure=failure, message="CUDA error")
    ending = ending_of(record, Facts(failure=told), None, "", "GPU-a is Lost (GPU is lost)")
    assert ending.reason == reason
    assert (reason == "GPUFault") == (ending.message or "").startswith("GPU-a is Lost")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.4, "59s"), (100, "1m40s"), (7500, "2h05m"), (273_600, "3d04h"), (-1, "0s")]
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200))
def test_thinning_keeps_the_ends_and_a_curve_is_at_most_16_characters(values: list[float]) -> None:
    kept = thinned(tuple(values), 32)
    assert len(kept) <= 32
    assert (kept[0], kept[-1]) == (values[0], values[-1])
    assert 1 <= len(curve(tuple(values))) <= 16


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"null", b'{"kind":"progress"}', b'{"kind":"other","t":1}', b'{"kind":"model","t":NaN}', b"x" * 70_000],
)
def test_a_line_that_no_trainer_would_write_is_passed_over(line: bytes) -> None:
    assert parse_record(line) is None


def test_a_record_survives_the_file() -> None:
    record = StartedRecord(t=1.5, device="CPU", parameters=3, train_samples=4, validation_samples=5)
    assert parse_record(encode_record(record).rstrip()) == record
