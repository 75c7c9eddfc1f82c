"""`python -m cyxwiz_trainer.to_tensorboard MODEL_FOLDER OUTPUT SAMPLES JOB_FOLDER`: metrics.jsonl for TensorBoard.

One event file of scalars by optimizer step, each at the time it was measured: `tensorboard --logdir model`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from cyxwiz_protocol.job_folder import JobFolder, Tail
from cyxwiz_protocol.records import EpochRecord, ProgressRecord, parse_record

from .leash import CANNOT, leave_in_time

try:
    from tensorboardX import FileWriter  # pyright: ignore[reportMissingTypeStubs]  # it has none
    from tensorboardX.summary import scalar  # pyright: ignore[reportMissingTypeStubs]
except ImportError as missing:
    print(f"this node's trainer lacks a package: {missing}")
    sys.exit(CANNOT)

Point = tuple[str, float, int, float]
"""Name, value, step, Unix time."""


def points(metrics: Path) -> Iterator[Point]:
    """What training reported, in the order in which it did. An epoch's results stand at its last step."""
    step = 0
    for line in Tail(metrics).lines():
        match parse_record(line):
            case ProgressRecord() as record:
                step = record.step
                yield from _known(
                    record.t,
                    step,
                    {
                        "train/loss": record.loss,
                        "train/accuracy": record.accuracy,
                        "train/learning_rate": record.learning_rate,
                        "train/samples_per_second": record.samples_per_second,
                    },
                )
            case EpochRecord() as record:
                yield from _known(
                    record.t,
                    step,
                    {
                        "epoch/loss": record.loss,
                        "epoch/accuracy": record.accuracy,
                        "validation/loss": record.validation_loss,
                        "validation/accuracy": record.validation_accuracy,
                    },
                )
            case _:
                pass


def _known(t: float, step: int, values: dict[str, float | None]) -> Iterator[Point]:
    yield from ((name, value, step, t) for name, value in values.items() if value is not None)


def main() -> None:
    """The file is written, or the process ends with another exit code than 0."""
    folder, path = (Path(argument) for argument in sys.argv[1:3])
    leave_in_time(JobFolder(Path(sys.argv[4])))
    events = path.with_name("events")
    writer = FileWriter(str(events))
    count = 0
    for name, value, step, t in points(folder / "metrics.jsonl"):
        writer.add_summary(scalar(name, value), step, t)
        count += 1
    writer.close()
    (written,) = events.iterdir()
    written.rename(path)
    print(f"{count} values")


if __name__ == "__main__":
    main()
