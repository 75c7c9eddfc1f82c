"""What saving costs training, and how soon a killed job is at work again.

    python3 -m benchmarks.checkpoints [--repetitions 5] [--kills 5] [--seconds 280]

Rows, alternated:

    stall       by how much so many steps take longer with one save in their midst, the file written beside them
    blocking    the same with a save that is waited for until it is on disk, as scripts usually save
    killed      from kill -9 of a trainer to the first finished step of the attempt that goes on from its checkpoint,
                the back-off of 10 s left out: "noticed" until the job is released, "resumed" from its next binding to
                that step. Another trainer stands ready. The back-off ends at a whole second and is looked for once a
                second; how long that took is told as "late" and belongs to it. The data are few (31 MB on a GPU), for
                the next attempt reads them again, which is no part of going on from a checkpoint

The goals: stall at most 1/20 of blocking; killed at most 0.5 s and the checkpoint's size by 1 GB/s. ResNet-18 of width
64 on synthetic 32x32 images on a machine with an NVIDIA GPU; a narrow one on the CPU, where the saving thread takes
time from the training one, so that the ratio says little.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.machine import describe
from cyxwiz_agent.devices import read_devices
from cyxwiz_crds import TrainingJobSpec
from cyxwiz_devcluster import start
from cyxwiz_kube import Kube, paths
from cyxwiz_platform import Platform
from cyxwiz_protocol.job_folder import JobFolder
from cyxwiz_protocol.order import JobOrder
from cyxwiz_trainer import data, device, job
from cyxwiz_trainer.checkpoint import LoopState
from cyxwiz_trainer.feed import feed_for
from cyxwiz_trainer.fence import Fence, Stop
from cyxwiz_trainer.graph import Repeated
from cyxwiz_trainer.loop import Training, step_of
from cyxwiz_trainer.reporter import Reporter
from cyxwiz_trainer.run_ahead import RunAhead
from cyxwiz_trainer.totals import Sums, Totals
from tests.thread import snapshot_of, trainers_of

NODE = "bench"
BATCH = 32
WARM_UP_STEPS = 20
FEW_SAMPLES = 10_000
Save = Literal["none", "beside", "blocking"]


def make_spec(gpus: int, **more: Any) -> dict[str, Any]:
    return {
        "model": {"name": "resnet18", "options": {"width": 64 if gpus else 8}},
        "dataset": {"uri": f"mock://cifar10?samples={100_000 if gpus else 2000}"},
        "batchSize": BATCH,
        "resources": {"gpus": gpus, "cpus": 1, "memory": "8Gi" if gpus else "1Gi"},
    } | more


class Steps:
    """Steps of one job, over and over, as its loop runs them."""

    def __init__(self, folder: Path, spec: dict[str, Any]) -> None:
        parsed = TrainingJobSpec.model_validate(spec)
        uuids = device.visible_gpus()
        order = JobOrder(assignment_id="a", namespace="n", name="b", attempt=1, spec=parsed, gpus=uuids)
        where = device.prepare(order)
        files, stop = JobFolder(folder), Stop()
        parts = job.Parts.of(parsed, data.load(parsed, None), where)
        self._run: Training = parts.on_device(parsed, files, where, Reporter(files.metrics), Fence(None, stop), stop)
        hyper = self._run.spec.hyperparameters
        self._feed = feed_for(self._run.data.train, BATCH, hyper, where)
        self._totals = Totals(where.torch_device, Sums())
        self._step = Repeated(step_of(self._run, self._feed, self._totals), where, 10**6)
        self._ahead = RunAhead.of(where.torch_device)
        self._run.optimizer.set_learning_rate(hyper.learning_rate)
        self._state = LoopState()
        self._feed.begin_epoch(0)
        self.run(WARM_UP_STEPS, "none")

    def run(self, steps: int, save: Save) -> float:
        """Seconds of so many steps, with a save after a tenth of them. Nothing is still being written afterwards."""
        _wait()
        begun = time.perf_counter()
        for number in range(steps):
            self._feed.fill(self._state.step % self._run.plan.steps_per_epoch)
            self._step()
            self._state.step += 1
            self._ahead.step_queued()
            if number == steps // 10 and save != "none":
                self._run.checkpoints.save(self._state, self._run.model, self._run.optimizer)
                if save == "blocking":
                    self._run.checkpoints.wait()
        _wait()
        seconds = time.perf_counter() - begun
        self._run.checkpoints.wait()
        return seconds


def measure_stall(repetitions: int, gpus: int, until: float) -> None:
    """Prints the rows stall and blocking."""
    with tempfile.TemporaryDirectory() as folder:
        steps = Steps(Path(folder), make_spec(gpus))
        # About two seconds: the file is on disk long before the end.
        count = max(20, int(2.0 / (steps.run(20, "none") / 20)))
        steps.run(count, "beside")  # the first save allocates its pinned memory
        took: dict[Save, list[float]] = {"none": [], "beside": [], "blocking": []}
        for _ in range(repetitions):
            for save, seconds in took.items():
                if time.monotonic() < until:
                    seconds.append(steps.run(count, save))
        if not took["blocking"]:
            raise SystemExit("the time ended before the first save was compared: give more --seconds")
        rows: dict[str, Save] = {"stall": "beside", "blocking": "blocking"}
        medians: dict[str, float] = {}
        for row, save in rows.items():
            more = [1000 * (with_it - without) for with_it, without in zip(took[save], took["none"], strict=False)]
            medians[row] = statistics.median(more)
            told = {"row": row, "steps": count, "milliseconds": [round(each, 2) for each in more]}
            print(json.dumps(told | {"median": round(medians[row], 2)}), flush=True)
        ratio = round(medians["stall"] / medians["blocking"], 4)
        print(json.dumps({"row": "stall/blocking", "ratio": ratio}), flush=True)


async def measure_kills(platform: Platform, kubeconfig: Path, kills: int, gpus: int, until: float) -> None:
    """Prints the row killed."""
    totals: list[float] = []
    async with await Kube.connect(kubeconfig=kubeconfig, user_agent="benchmark") as kube:
        for number in range(kills):
            if time.monotonic() > until:
                break
            name = f"killed-{number}"
            data = {"uri": f"mock://cifar10?samples={FEW_SAMPLES}"}
            spec = make_spec(gpus, epochs=100_000, **({"dataset": data} if gpus else {}))
            body = {"apiVersion": "cyxwiz.io/v1alpha1", "kind": "TrainingJob", "metadata": {"name": name}, "spec": spec}
            created = await kube.create(paths.training_jobs("default"), body)
            path = paths.training_job("default", name)
            told = await _kill(platform, kube, path)
            totals.append(told["noticed"] + told["resumed"])
            print(json.dumps({"row": "killed", "milliseconds": told, "total": totals[-1]}), flush=True)
            await kube.delete(path, uid=created["metadata"]["uid"])
            await _until(lambda: _is_idle(platform), "the end of the deleted job")
    if totals:
        print(json.dumps({"row": "killed", "n": len(totals), "median": statistics.median(totals)}), flush=True)


async def _kill(platform: Platform, kube: Kube, path: str) -> dict[str, float]:
    """Milliseconds of each part; bytes of the checkpoint."""
    state = platform.machines[NODE].state

    async def status(condition: Callable[[dict[str, Any]], Any], what: str) -> dict[str, Any]:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            seen = (await kube.get(path)).get("status", {})
            if condition(seen):
                return seen
            await asyncio.sleep(0.005)
        raise TimeoutError(what)

    seen = await status(lambda each: (each.get("execution") or {}).get("checkpoint"), "a checkpoint")
    assignment = seen["assignment"]["id"]
    await _until(lambda: snapshot_of(state).warm + snapshot_of(state).imported > 0, "a spare trainer")
    [pid] = trainers_of(assignment)[:1]
    os.kill(pid, signal.SIGKILL)
    killed = time.time()
    await status(lambda each: len(each.get("history", [])) == 1, "the release")
    released = time.time()
    seen = await status(lambda each: (each.get("execution") or {}).get("firstStepAt"), "a step of the next attempt")
    first_step, bound = (
        _unix(seen[part][key]) for part, key in (("execution", "firstStepAt"), ("assignment", "boundAt"))
    )
    resumed = seen["execution"].get("resumed")
    if not resumed or not resumed.get("verified"):
        raise SystemExit(f"it did not go on from its checkpoint: {seen}")
    saved = seen["assignment"]["restoreFrom"]["uri"].split("/", 3)[3]
    size = (state / "jobs" / saved / "state.safetensors").stat().st_size
    parts = {"noticed": released - killed, "late": bound - released - 10.0, "resumed": first_step - bound}
    return {part: round(1000 * seconds, 1) for part, seconds in parts.items()} | {"bytes": size}


def _is_idle(platform: Platform) -> bool:
    snapshot = snapshot_of(platform.machines[NODE].state)
    return not [each for each in snapshot.jobs if each.state != "Reaped"]


async def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        await asyncio.sleep(0.05)


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=280.0, help="after so many nothing further is begun")
    arguments = parser.parse_args()
    until = time.monotonic() + 0.7 * arguments.seconds
    devices = read_devices()
    gpus = tuple(gpu.uuid for gpu in devices.gpus[:1])
    print(f"{describe()}; {devices.gpus[0].name if gpus else 'no GPU'}", flush=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        start(Path(folder) / "cluster") as cluster,
        Platform(cluster, Path(folder) / "platform") as platform,
    ):
        platform.install()
        platform.add_machine(NODE, cpus=2, memory="16Gi", warm=0 if gpus else 1, gpus=gpus)
        platform.start_operator()
        platform.wait_machines()
        asyncio.run(measure_kills(platform, cluster.kubeconfig, arguments.kills, len(gpus), until))
    if arguments.repetitions:  # last, and with time of its own: an agent refuses a GPU that this process holds
        measure_stall(arguments.repetitions, len(gpus), time.monotonic() + 0.3 * arguments.seconds)


if __name__ == "__main__":
    main()
