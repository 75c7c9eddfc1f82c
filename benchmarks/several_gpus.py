"""Images per second on two GPUs against one, alternated: with the same batch in all, and with the same on each.

    python3 benchmarks/several_gpus.py [--batch 128 1024] [--seconds 6] [--repetitions 2] [--ranks 2]

Whole jobs as a runner starts them, ResNet-18 with a 3x3 stem on synthetic 32x32 images; timed between the first and the
last report after the step was captured, so neither start nor capture counts. Without GPUs the ranks share the CPU and a
narrow network stands in: that shows that it runs, and nothing about speed. Rows:

    one              batch B on one GPU
    same batch       batch B on N GPUs: how much sooner the same training ends
    same per GPU     batch N*B on N GPUs: how many more images are computed in the same time
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cyxwiz_agent.devices import read_devices
from cyxwiz_crds import TrainingJobSpec
from cyxwiz_protocol.job_folder import JobFolder, Tail, write_json
from cyxwiz_protocol.order import JobOrder
from cyxwiz_protocol.records import ProgressRecord, StartedRecord, parse_record

PATIENCE_S = 120.0


@dataclass(frozen=True)
class Setting:
    """What every row shares."""

    gpus: list[str]
    seconds: float
    width: int
    samples: int


def rate(setting: Setting, batch: int, ranks: int) -> tuple[float, str]:
    """Images per second of a job, and what it says it ran on."""
    spec: dict[str, Any] = {
        "model": {"name": "resnet18", "options": {"width": setting.width}},
        "dataset": {"uri": f"mock://cifar10?samples={setting.samples}"},
        "batchSize": batch,
        "epochs": 100_000,
        "resources": {"gpus": min(ranks, len(setting.gpus)), "cpus": 4 * ranks if setting.gpus else ranks},
    }
    gpus = setting.gpus[:ranks]
    with tempfile.TemporaryDirectory() as path:
        folder = JobFolder(Path(path))
        order = JobOrder(
            assignment_id="bench",
            namespace="n",
            name="bench",
            attempt=1,
            spec=TrainingJobSpec.model_validate(spec),
            gpus=gpus,
            ranks=ranks,
        )
        write_json(folder.order, order.wire())
        process = subprocess.Popen(
            [sys.executable, "-m", "cyxwiz_trainer", "--folder", path],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(gpus)},
            start_new_session=True,
        )
        try:
            return _timed(folder, process, setting.seconds, told=2 if gpus else 1)
        finally:
            process.kill()  # the ranks go with it
            process.wait()


def _timed(folder: JobFolder, process: subprocess.Popen[bytes], seconds: float, told: int) -> tuple[float, str]:
    """From the first report after it was said `told` times how the job runs to one `seconds` later."""
    tail, started, first = Tail(folder.metrics), [], None
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        for line in tail.lines():
            match parse_record(line):
                case StartedRecord(device=device):
                    started.append(device)
                case ProgressRecord() as progress if len(started) >= told:
                    first = first or progress
                    if progress.t - first.t >= seconds:
                        images = progress.samples_processed - first.samples_processed
                        return images / (progress.t - first.t), started[-1]
                case _:
                    pass
        if process.poll() is not None:
            break
        time.sleep(0.02)
    raise SystemExit(f"no rate:\n{folder.log.read_text()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[128, 1024])
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--ranks", type=int, default=2)
    arguments = parser.parse_args()
    devices = read_devices()
    gpus = [gpu.uuid for gpu in devices.gpus[: arguments.ranks]]
    if 0 < len(gpus) < arguments.ranks:
        parser.error(f"there are {len(gpus)} GPUs here")
    setting = Setting(gpus, arguments.seconds, 64 if gpus else 8, 100_000 if gpus else 2_000)
    name = devices.gpus[0].name if gpus else f"{platform.machine()} CPU"
    print(f"{arguments.ranks} x {name}, {os.cpu_count()} CPU cores, {arguments.repetitions} repetitions")
    for batch in arguments.batch:
        rows = {
            "one": (batch, 1),
            "same batch": (batch, arguments.ranks),
            "same per GPU": (batch * arguments.ranks, arguments.ranks),
        }
        rates: dict[str, list[float]] = {row: [] for row in rows}
        words: dict[str, str] = {}
        for _ in range(arguments.repetitions):
            for row, (size, ranks) in rows.items():
                images, words[row] = rate(setting, size, ranks)
                rates[row].append(images)
        one = statistics.median(rates["one"])
        for row, (size, _) in rows.items():
            median = statistics.median(rates[row])
            line = (
                f"batch {size:>6}  {row:<14} {median:>10,.0f} images/s ({min(rates[row]):,.0f}-{max(rates[row]):,.0f})"
            )
            print(f"{line}  {median / one:5.2f} times one  on {words[row]}", flush=True)


if __name__ == "__main__":
    main()
