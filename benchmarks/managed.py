"""Training under the platform against the same loop run by hand, alternated: what watching a job costs it.

    python3 -m benchmarks.managed [--pairs 8] [--steps 12000] [--model resnet18] [--batch 32] [--seconds 280]

Both are the same trainer, the same spec, evaluation and checkpoints included. Managed: submitted to a real API server,
bound by the operator, run by agent and runner, its progress reported. Bare: `python -m cyxwiz_trainer --folder`, with
nothing at work around it (the platform stands by). Compared is the time from the end of the first epoch to the end of
the last, by each one's own records, so neither start nor capture counts. Rows:

    managed/bare   bare seconds by managed seconds of a pair: 1 costs nothing, 0.99 costs a hundredth

Prints a line of JSON per pair, then the mean and its one-sided 95 % bound; the goal is a bound of 0.98, the aim 0.99.
On a machine with an NVIDIA GPU both train on its first one, else on the CPU, where a small network stands in.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from benchmarks.paired import bound_95
from cyxwiz_agent.devices import read_devices
from cyxwiz_crds import TrainingJobSpec
from cyxwiz_devcluster import start
from cyxwiz_platform import Platform
from cyxwiz_protocol.job_folder import JobFolder, Tail, write_json
from cyxwiz_protocol.order import JobOrder
from cyxwiz_protocol.records import EpochRecord, parse_record
from cyxwiz_runner.spawn import environment
from cyxwiz_runner.trainer import SpawnPlan
from tests.thread import finished, status_of, wait_gone

NODE = "bench"
EPOCHS = 6
PATIENCE_S = 300.0


def make_spec(arguments: argparse.Namespace, gpus: int) -> dict[str, Any]:
    """So many epochs that the run is not all start, and evaluation and checkpoints are part of it."""
    model: dict[str, Any] = {"name": arguments.model}
    if arguments.model.startswith("resnet"):
        model["options"] = {"width": 64 if gpus else 8}
    samples = max(arguments.batch * arguments.steps // EPOCHS * 10 // 9, 100)
    return {
        "model": model,
        "dataset": {"uri": f"mock://cifar10?samples={samples}", "validation": {"fraction": 0.1}},
        "epochs": EPOCHS,
        "batchSize": arguments.batch,
        "resources": {"gpus": gpus, "cpus": 1, "memory": "8Gi" if gpus else "1Gi"},
    }


def timed_s(folder: JobFolder) -> float:
    """Seconds between the records of the first and the last epoch."""
    records = [parse_record(line) for line in Tail(folder.metrics).lines()]
    epochs = [record for record in records if isinstance(record, EpochRecord)]
    if len(epochs) < EPOCHS:
        raise SystemExit(f"only {len(epochs)} epochs:\n{folder.log.read_text()[-2000:]}")
    return epochs[-1].t - epochs[0].t


def bare_s(spec: dict[str, Any], gpus: list[str]) -> float:
    """By hand."""
    with tempfile.TemporaryDirectory() as path:
        folder = JobFolder(Path(path))
        parsed = TrainingJobSpec.model_validate(spec)
        order = JobOrder(assignment_id="bare", namespace="n", name="bare", attempt=1, spec=parsed, gpus=gpus)
        write_json(folder.order, order.wire())
        command = [sys.executable, "-m", "cyxwiz_trainer", "--folder", path]
        # The same as a runner's trainers have: threads and libraries behave alike.
        variables = environment(SpawnPlan(gpus=tuple(gpus)), Path(path), "bare", None)
        subprocess.run(command, env=variables, check=True, timeout=PATIENCE_S)
        return timed_s(folder)


def managed_s(platform: Platform, spec: dict[str, Any], name: str) -> float:
    """By the platform."""
    job = {"apiVersion": "cyxwiz.io/v1alpha1", "kind": "TrainingJob", "metadata": {"name": name}, "spec": spec}
    platform.apply(job)
    done = platform.wait_for("trainingjob", name, finished, what="a final phase", within_s=PATIENCE_S)
    status = status_of(done)
    if status["phase"] != "Succeeded":
        raise SystemExit(status.get("summary"))
    assignment = status["assignment"]["id"]
    wait_gone(assignment)
    return timed_s(JobFolder.of(platform.machines[NODE].state, assignment))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--seconds", type=float, default=280.0, help="after so many no further pair is begun")
    arguments = parser.parse_args()
    devices = read_devices()
    gpus = [gpu.uuid for gpu in devices.gpus[:1]]
    device = devices.gpus[0].name if gpus else "no GPU"
    print(f"{describe()}; {device}", flush=True)
    until = time.monotonic() + arguments.seconds
    spec = make_spec(arguments, len(gpus))
    ratios: list[float] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        start(Path(folder) / "cluster") as cluster,
        Platform(cluster, Path(folder) / "platform") as platform,
    ):
        platform.install()
        # No trainer is kept warm: importing torch for the next job would be work beside this one.
        platform.add_machine(NODE, cpus=2, memory="16Gi", warm=0)
        platform.start_operator()
        platform.wait_machines()
        for number in range(arguments.pairs):
            if time.monotonic() > until:
                break
            # Each goes first in turn.
            order = ("managed", "bare") if number % 2 else ("bare", "managed")
            took = {
                way: bare_s(spec, gpus) if way == "bare" else managed_s(platform, spec, f"job-{number}")
                for way in order
            }
            ratios.append(took["bare"] / took["managed"])
            seconds = {way: round(value, 3) for way, value in took.items()}
            print(json.dumps({"pair": number + 1, "seconds": seconds, "ratio": round(ratios[-1], 4)}), flush=True)
    bound = bound_95(ratios)
    told = {"pairs": len(ratios), "mean": round(statistics.mean(ratios), 4)}
    print(json.dumps(told | {"bound95": None if bound is None else round(bound, 4), "device": device}))


if __name__ == "__main__":
    main()
