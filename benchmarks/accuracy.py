"""Accuracy of the engine against the script people usually write: paired seeds on real images (Fashion-MNIST).

    python3 -m benchmarks.accuracy [--seeds 12] [--epochs 8] [--batch 256] [--processes 4] [--seconds 240]

Both train the same network from the same first weights on the same samples; order, precision and step are each one's
own: the usual script float32 with a shuffled order of torch's, ours what a job gets. Both rates fall as half a cosine,
so that what is compared is where training ends, not where it happens to be. Several pairs are trained at once, each in
one process: accuracy does not depend on how fast that is. Prints a line of JSON per pair and the one-sided 95 % bound
of the mean difference, ours less theirs (Student's t); the goal is a bound above -0.3 points. First, 50 steps in
float32 on the same batches: the largest difference of the two losses, of which the goal is at most 0.001. The images
are those of Debian's package dataset-fashion-mnist (its idx files may also lie in fashion-mnist/ below the folder that
CYXWIZ_DATA_ROOT names); another uri can be given with --uri.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.paired import bound_95
from cyxwiz_crds import TrainingJobSpec
from cyxwiz_protocol.job_folder import JobFolder
from cyxwiz_protocol.order import JobOrder
from cyxwiz_trainer import data, device, job
from cyxwiz_trainer.checkpoint import LoopState
from cyxwiz_trainer.evaluate import evaluate
from cyxwiz_trainer.feed import feed_for
from cyxwiz_trainer.fence import Fence, Stop
from cyxwiz_trainer.graph import Repeated
from cyxwiz_trainer.loop import Training, step_of, train
from cyxwiz_trainer.reporter import Reporter
from cyxwiz_trainer.totals import Sums, Totals

COMPARED_STEPS = 50
RATE = 0.02


def make(dataset: data.Dataset, folder: Path, arguments: argparse.Namespace, **more: Any) -> Training:
    """Our job as its loop has it."""
    seed = more.pop("seed", 0)
    schedule = more.pop("schedule", "constant")
    gpus = int(torch.cuda.is_available())
    raw: dict[str, Any] = {
        "model": {"name": arguments.model},
        "dataset": {"uri": arguments.uri},
        "batchSize": arguments.batch,
        "epochs": arguments.epochs,
        "hyperparameters": {"learningRate": RATE, "momentum": 0.9, "schedule": schedule, "seed": seed},
        "resources": {"gpus": gpus, "cpus": 2, "memory": "8Gi"},
    }
    spec = TrainingJobSpec.model_validate(raw | more)
    order = JobOrder(assignment_id="a", namespace="n", name="b", attempt=1, spec=spec, gpus=device.visible_gpus())
    where = device.prepare(order)
    files, stop = JobFolder(folder), Stop()
    parts = job.Parts.of(spec, dataset, where)
    return parts.on_device(spec, files, where, Reporter(files.metrics), Fence(None, stop), stop)


def accuracy(run: Training, model: nn.Module) -> float:
    """Percent of the held-out samples, computed in float32 for both."""
    network = nn.Sequential(run.standardize, model)
    where = device.Device(run.device.torch_device, None, "float32")
    result = evaluate(network, run.data.validation, 512, run.task, where, Fence(None, Stop()))
    return 100 * (result.accuracy or 0.0)


def usual_steps(
    network: nn.Module, part: data.Part, batches: list[torch.Tensor], target: torch.device, *, decays: bool
) -> list[float]:
    """The loss of each step of the usual script over `batches` of indices; the rate falls as half a cosine, or not."""
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(batches))
    losses: list[torch.Tensor] = []
    for indices in batches:
        inputs, labels = part.inputs[indices].to(target), part.labels[indices].to(target)
        optimizer.zero_grad()
        loss = functional.cross_entropy(network(inputs), labels)
        loss.backward()
        optimizer.step()
        if decays:
            schedule.step()
        losses.append(loss.detach())
    return [float(loss) for loss in losses]


def pair(dataset: data.Dataset, seed: int, arguments: argparse.Namespace) -> tuple[float, float]:
    """Held-out accuracy in percent of the usual script and of ours, from the same first weights."""
    with tempfile.TemporaryDirectory() as folder:
        run = make(dataset, Path(folder), arguments, seed=seed, schedule="cosine")
        model = copy.deepcopy(run.model)
        part, target = run.data.train, run.device.torch_device
        batches: list[torch.Tensor] = []
        generator = torch.Generator().manual_seed(seed)
        for _ in range(arguments.epochs):
            order = torch.randperm(len(part), generator=generator).to(part.inputs.device)
            batches += list(order.split(arguments.batch))[: len(part) // arguments.batch]
        usual_steps(nn.Sequential(run.standardize, model), part, batches, target, decays=True)
        theirs = accuracy(run, model)
        train(run, LoopState(), None)
        return theirs, accuracy(run, run.outcome)


def load(arguments: argparse.Namespace) -> data.Dataset:
    """The data, held out and training part, in host memory."""
    spec = TrainingJobSpec.model_validate({"model": {"name": arguments.model}, "dataset": {"uri": arguments.uri}})
    return data.load(spec, None)


def pair_in_process(seed: int, arguments: argparse.Namespace) -> tuple[float, float]:
    """`pair`, in a process of its own."""
    return pair(load(arguments), seed, arguments)


def pairs(arguments: argparse.Namespace, until: float) -> Iterator[tuple[int, float, float]]:
    """(seed, theirs, ours) of each pair as it ends; no more after `until`."""
    spawn = multiprocessing.get_context("spawn")  # CUDA does not live through a fork
    with spawn.Pool(arguments.processes, maxtasksperchild=1) as pool:
        waiting = {seed: pool.apply_async(pair_in_process, (seed, arguments)) for seed in range(arguments.seeds)}
        while waiting and time.monotonic() < until:
            for seed in [seed for seed, pending in waiting.items() if pending.ready()]:
                yield (seed, *waiting.pop(seed).get())
            time.sleep(0.1)
        pool.terminate()


def float32_difference(dataset: data.Dataset, arguments: argparse.Namespace) -> float:
    """The largest difference of a step's loss over 50 steps on the same batches, both in true float32."""
    with tempfile.TemporaryDirectory() as folder:
        run = make(dataset, Path(folder), arguments, precision="float32")
        model = copy.deepcopy(run.model)
        feed = feed_for(run.data.train, run.plan.batch_size, run.spec.hyperparameters, run.device)
        totals = Totals(run.device.torch_device, Sums())
        step = Repeated(step_of(run, feed, totals), run.device, COMPARED_STEPS)
        run.optimizer.set_learning_rate(RATE)
        feed.begin_epoch(0)
        ours, before, kept = [], 0.0, []
        for position in range(COMPARED_STEPS):
            feed.fill(position)
            kept.append((feed.inputs.clone(), feed.targets.clone()))
            step()
            loss = totals.read().loss
            ours.append(loss - before)
            before = loss
        part = data.Part(torch.cat([inputs for inputs, _ in kept]), torch.cat([labels for _, labels in kept]))
        size = run.plan.batch_size
        places = torch.arange(COMPARED_STEPS * size, device=part.inputs.device)
        network = nn.Sequential(run.standardize, model)
        theirs = usual_steps(network, part, list(places.split(size)), run.device.torch_device, decays=False)
        return max(abs(a - b) for a, b in zip(ours, theirs, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--model", default="cnn")
    parser.add_argument("--uri", default="builtin://fashion-mnist")
    parser.add_argument("--processes", type=int, default=4 if torch.cuda.is_available() else 1)
    parser.add_argument("--seconds", type=float, default=240.0, help="pairs that have not ended by then are given up")
    arguments = parser.parse_args()
    until = time.monotonic() + arguments.seconds
    dataset = load(arguments)
    difference = float32_difference(dataset, arguments)
    print(json.dumps({"float32": {"steps": COMPARED_STEPS, "largestLossDifference": difference}}), flush=True)
    differences: list[float] = []
    for seed, theirs, ours in pairs(arguments, until):
        differences.append(ours - theirs)
        print(json.dumps({"seed": seed, "usual": round(theirs, 2), "ours": round(ours, 2)}), flush=True)
    bound = bound_95(differences)
    if bound is not None:
        name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU"
        told = {"pairs": len(differences), "meanDifference": round(statistics.mean(differences), 3)}
        print(json.dumps({"points": told | {"bound95": round(bound, 3)}, "device": name, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
