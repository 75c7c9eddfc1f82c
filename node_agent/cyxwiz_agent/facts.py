"""What the records of one attempt say so far, folded into the parts of an execution report. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cyxwiz_crds import Progress, Receipt, size_text
from cyxwiz_crds.artifacts import Export, ModelArtifact
from cyxwiz_crds.training_job import CheckpointRecord, ControlTaken, DataFacts, Resumption
from cyxwiz_protocol.records import (
    ActivityRecord,
    CheckpointedRecord,
    ControlRecord,
    EpochRecord,
    EvaluationRecord,
    ExportRecord,
    FailureRecord,
    ModelRecord,
    ProgressRecord,
    Record,
    StartedRecord,
)
from cyxwiz_protocol.storing import StoreOutcome

TRAINING = "training"
_BLOCKS = "▁▂▃▄▅▆▇█"
LONGEST_LINE = 256
LONGEST_WORD = 64
MOST_GPUS = 16
LONGEST_ACTIVITY = 16
CURVE_POINTS = 16
HISTORY_POINTS = 32
MOST_EXPORTS = 8


@dataclass(frozen=True)
class Facts:
    """The newest of each kind of record."""

    started: StartedRecord | None = None
    first_step_at: float | None = None
    """Unix time; when `started` is said again it stays."""
    progress: ProgressRecord | None = None
    epoch: EpochRecord | None = None
    evaluation: EvaluationRecord | None = None
    checkpoint: CheckpointedRecord | None = None
    control: ControlRecord | None = None
    model: ModelRecord | None = None
    exports: tuple[ExportRecord, ...] = ()
    """The newest of each format."""
    failure: FailureRecord | None = None
    activity: str = TRAINING
    """What it is doing, where that is no step."""
    losses: tuple[float, ...] = ()
    best_accuracy: float | None = None

    def after(self, record: Record) -> Facts:
        """These facts and one record more."""
        match record:
            case StartedRecord():
                first = record.t if self.first_step_at is None else self.first_step_at
                return replace(self, started=record, first_step_at=first)
            case ProgressRecord():
                moved = self.progress is None or record.step != self.progress.step
                return replace(self, progress=record, activity=TRAINING if moved else self.activity)
            case ActivityRecord():
                return replace(self, activity=record.activity[:LONGEST_ACTIVITY])
            case EpochRecord():
                known = [a for a in (self.best_accuracy, record.validation_accuracy) if a is not None]
                best = max(known, default=None)
                losses = (*self.losses, record.loss)
                return replace(self, epoch=record, losses=losses, best_accuracy=best, activity=TRAINING)
            case EvaluationRecord():
                return replace(self, evaluation=record)
            case CheckpointedRecord():
                return replace(self, checkpoint=record)
            case ControlRecord():
                return replace(self, control=record, activity=TRAINING)
            case ModelRecord():
                return replace(self, model=record)
            case ExportRecord():
                others = tuple(export for export in self.exports if export.format != record.format)
                return replace(self, exports=(*others, record)[-MOST_EXPORTS:])
            case FailureRecord():
                return replace(self, failure=record)

    @property
    def steps_seen(self) -> int:
        """Grows with every step that was told of."""
        return self.progress.step if self.progress else 0


def progress_report(facts: Facts) -> Progress | None:
    """The progress as status carries it; None before the first record of it."""
    now, epoch = facts.progress, facts.epoch
    if facts.evaluation is not None:
        return _evaluation_report(facts.evaluation)
    if now is None:
        return None
    percent = 100 * now.step // now.total_steps if now.total_steps else 0
    return Progress(
        epoch=now.epoch,
        epochs=f"{now.epoch}/{now.epochs}",
        step=now.step,
        total_steps=now.total_steps,
        percent=f"{percent}%",
        loss=f"{now.loss:.4f}",
        accuracy=_fraction(now.accuracy),
        validation_loss=_fraction(epoch.validation_loss) if epoch else None,
        validation_accuracy=_fraction(epoch.validation_accuracy) if epoch else None,
        best=_fraction(facts.best_accuracy),
        learning_rate=f"{now.learning_rate:.6f}",
        samples_processed=now.samples_processed,
        samples_per_second=f"{now.samples_per_second:.1f}",
        elapsed_seconds=int(now.elapsed_seconds),
        remaining_seconds=None if now.remaining_seconds is None else round(now.remaining_seconds),
        eta=None if now.remaining_seconds is None else duration_text(now.remaining_seconds),
        gpu_memory_peak=None if now.gpu_memory_peak is None else size_text(now.gpu_memory_peak),
        loss_history=" ".join(f"{loss:.4f}" for loss in thinned(facts.losses, HISTORY_POINTS)) or None,
        curve=curve(facts.losses) or None,
    )


def _evaluation_report(now: EvaluationRecord) -> Progress:
    rate = now.samples / now.elapsed_seconds if now.elapsed_seconds else 0.0
    remaining_s = (now.total_samples - now.samples) / rate if rate else None
    return Progress(
        percent=f"{100 * now.samples // now.total_samples if now.total_samples else 0}%",
        validation_loss=_fraction(now.loss),
        validation_accuracy=_fraction(now.accuracy),
        samples_processed=now.samples,
        samples_per_second=f"{rate:.1f}",
        elapsed_seconds=int(now.elapsed_seconds),
        remaining_seconds=None if remaining_s is None else round(remaining_s),
        eta=None if remaining_s is None else duration_text(remaining_s),
    )


def checkpoint_report(facts: Facts, node: str, assignment_id: str) -> CheckpointRecord | None:
    """The newest checkpoint as status carries it."""
    record = facts.checkpoint
    if record is None:
        return None
    uri = f"node://{node}/{assignment_id}/{record.folder}"
    return CheckpointRecord(step=record.step, epoch=record.epoch, digest=record.digest, uri=uri)


def control_report(facts: Facts) -> ControlTaken | None:
    """The newest order of spec.control that training goes by."""
    record = facts.control
    if record is None:
        return None
    return ControlTaken(generation=max(record.generation, 0), message=record.message[:LONGEST_LINE])


def resumption_report(facts: Facts) -> Resumption | None:
    """What it went on from; None for an attempt that began at the beginning."""
    record = facts.started
    if record is None or record.restored_step <= 0:
        return None
    replay = record.replay
    if replay is None:
        return Resumption(step=record.restored_step)
    return Resumption(
        step=record.restored_step,
        verified=replay.verified,
        saved_loss=f"{replay.saved_loss:.6g}",
        replayed_loss=f"{replay.replayed_loss:.6g}",
    )


def model_report(
    facts: Facts, node: str, assignment_id: str, stored: StoreOutcome | None = None
) -> ModelArtifact | None:
    """The trained weights as status carries them. What was `stored` is said to lie there, file by file."""
    record = facts.model
    if record is None:
        return None

    def durable(path: str, sha256: str | None) -> str | None:
        name = path.rpartition("/")[2]
        file = stored.file(name) if stored else None
        return f"{stored.uri}/{name}" if stored and file and file.sha256 == sha256 else None

    on_node = f"node://{node}/{assignment_id}/"
    uri = durable(record.path, record.sha256)
    exports = [
        Export(
            format=export.format[:LONGEST_WORD],
            message=export.message[:LONGEST_LINE],
            sha256=export.sha256,
            bytes=export.bytes,
            uri=export.path and (durable(export.path, export.sha256) or on_node + export.path),
        )
        for export in facts.exports
    ]
    return ModelArtifact(
        sha256=record.sha256,
        bytes=record.bytes,
        format=record.format,
        uri=uri or on_node + record.path,
        node_uri=on_node + record.path if uri else None,
        durable=uri is not None,
        exports=exports,
    )


def data_report(facts: Facts) -> DataFacts | None:
    """What the data turned out to be."""
    record = facts.started
    if record is None:
        return None
    return DataFacts(
        train_samples=record.train_samples,
        validation_samples=record.validation_samples,
        synthetic=record.synthetic,
        sha256=record.data_sha256,
    )


def receipt_report(facts: Facts, driver: str | None, gpus: Sequence[str]) -> Receipt | None:
    """What it was made with; None before its first step. `gpus` are named with their UUIDs."""
    started = facts.started
    if started is None:
        return None
    made = started.software
    return Receipt(
        seed=started.seed,
        cyxwiz=made and made.cyxwiz[:LONGEST_WORD],
        python=made and made.python[:LONGEST_WORD],
        torch=made and made.torch[:LONGEST_WORD],
        cuda=made.cuda[:LONGEST_WORD] if made and made.cuda else None,
        driver=driver,
        gpus=[gpu[:LONGEST_LINE] for gpu in gpus[:MOST_GPUS]],
        code=_digest(made and made.code_sha256),
        data=_digest(started.data_sha256),
        model=_digest(facts.model and facts.model.sha256),
    )


def _digest(sha256: str | None) -> str | None:
    return f"sha256:{sha256[:LONGEST_WORD]}" if sha256 else None


def thinned(values: tuple[float, ...], most: int) -> tuple[float, ...]:
    """At most `most` of the values, evenly spread, the first and the last among them."""
    if len(values) <= most:
        return values
    return tuple(values[round(i * (len(values) - 1) / (most - 1))] for i in range(most))


def curve(values: tuple[float, ...]) -> str:
    """The values as a line of at most 16 block characters, scaled between their extremes."""
    points = thinned(values, CURVE_POINTS)
    if not points:
        return ""
    low, high = min(points), max(points)
    if high == low:
        return _BLOCKS[0] * len(points)
    return "".join(_BLOCKS[round((value - low) / (high - low) * (len(_BLOCKS) - 1))] for value in points)


def duration_text(seconds: float) -> str:
    """45s, 1m40s, 2h05m, 3d04h."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole}s"
    minutes, second = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m{second:02d}s"
    hours, minute = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minute:02d}m"
    return f"{hours // 24}d{hours % 24:02d}h"


def _fraction(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"
