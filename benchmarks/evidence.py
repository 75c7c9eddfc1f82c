"""What a person sees of three jobs: real images to their end, a trainer killed in the middle, and a plug-in's model.

    python3 -m benchmarks.evidence [--data FOLDER] [--epochs 8] [--batch 256]

A whole installation runs on this machine, on its first NVIDIA GPU where there is one, else on its CPU:

    1. builtin://fashion-mnist (Debian's package, or fashion-mnist/ in FOLDER), trained; then `kubectl get -o yaml`
    2. the same without an end, its trainer killed by SIGKILL once a checkpoint is there; then what it went on from and
       the loss of the recorded batch before and after
    3. the model and the data of examples/plugin, put where trainers find installed packages for as long as this runs

Everything is printed as kubectl prints it. Exit code 1 where one of them does not come out as it should.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import site
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmarks.machine import describe
from cyxwiz_agent.devices import read_devices
from cyxwiz_devcluster import start
from cyxwiz_platform import Platform
from tests.thread import finished, has_checkpoint, snapshot_of, status_of, trainers_of

NODE = "node-a"
PLUGIN = Path(__file__).parents[1] / "examples" / "plugin"
WITHIN_S = 300.0
Object = dict[str, Any]


@contextlib.contextmanager
def installed(package: Path) -> Iterator[None]:
    """Every interpreter of this environment that starts meanwhile finds the package and its entry points."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    with tempfile.TemporaryDirectory(prefix="plugin-") as path:
        folder = Path(path)
        folder.chmod(0o755)  # trainers have uids of their own
        for module in (each for each in package.iterdir() if (each / "__init__.py").is_file()):
            target = folder / module.name
            target.mkdir()
            for source in module.glob("*.py"):
                (target / source.name).write_bytes(source.read_bytes())
        facts = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        facts.mkdir()
        head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        (facts / "METADATA").write_text(head)
        groups = project["entry-points"].items()
        lines = [
            line for group, points in groups for line in (f"[{group}]", *(f"{k} = {v}" for k, v in points.items()))
        ]
        (facts / "entry_points.txt").write_text("\n".join(lines) + "\n")
        pointer = Path(site.getsitepackages()[0]) / "cyxwiz-evidence.pth"
        pointer.write_text(f"{folder}\n")
        try:
            yield
        finally:
            pointer.unlink()


def fashion(name: str, epochs: int, batch: int, gpus: int) -> Object:
    return {
        "apiVersion": "cyxwiz.io/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name},
        "spec": {
            "model": {"name": "cnn"},
            "dataset": {"uri": "builtin://fashion-mnist"},
            "epochs": epochs,
            "batchSize": batch,
            "hyperparameters": {"learningRate": 0.02, "schedule": "cosine"},
            "resources": {"gpus": gpus, "cpus": 1, "memory": "4Gi"},
        },
    }


def show(platform: Platform, *command: str) -> None:
    """As a person would type it."""
    print(f"\n$ kubectl {' '.join(command)}\n{platform.cluster.run_kubectl(*command)}", flush=True)


def trained(platform: Platform, job: Object) -> None:
    """The job has succeeded and was shown whole."""
    name = job["metadata"]["name"]
    platform.apply(job)
    done = platform.wait_for("trainingjob", name, finished, what="a final phase", within_s=WITHIN_S)
    show(platform, "get", "tj", name, "-o", "wide")
    show(platform, "get", "tj", name, "-o", "yaml")
    if status_of(done)["phase"] != "Succeeded":
        sys.exit(f"{name} did not succeed: {status_of(done).get('summary')}")


def killed_and_resumed(platform: Platform, job: Object) -> None:
    """Its trainer was killed, and the next attempt goes on from the checkpoint, which is proved by a replayed batch."""
    name = job["metadata"]["name"]
    platform.apply(job)
    before = platform.wait_for("trainingjob", name, has_checkpoint, what="a checkpoint", within_s=WITHIN_S)
    pids = trainers_of(status_of(before)["assignment"]["id"])
    checkpoint = status_of(before)["execution"]["checkpoint"]
    print(f"\n$ kill -9 {' '.join(map(str, pids))}    # the newest checkpoint told of: {checkpoint}", flush=True)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    after = platform.wait_for(
        "trainingjob",
        name,
        lambda each: bool((status_of(each).get("execution") or {}).get("resumed")),
        what="an attempt that goes on",
        within_s=WITHIN_S,
    )
    status = status_of(after)
    shown = {key: status.get(key) for key in ("history", "goodput", "resumes", "failures", "summary")}
    shown["execution"] = {key: status["execution"].get(key) for key in ("resumed", "firstStepAt", "start")}
    print(yaml.safe_dump({"status": shown}, sort_keys=False, allow_unicode=True), flush=True)
    platform.cluster.run_kubectl("delete", "tj", name)
    if not status["execution"]["resumed"].get("verified"):
        sys.exit("the recorded batch was not answered as before")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder in which fashion-mnist/ lies")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch", type=int, default=256)
    arguments = parser.parse_args()
    devices = read_devices()
    gpus = tuple(gpu.uuid for gpu in devices.gpus[:1])
    print(f"{describe()}; {devices.gpus[0].name if gpus else 'no GPU'}", flush=True)
    with (
        installed(PLUGIN),
        tempfile.TemporaryDirectory() as folder,
        start(Path(folder) / "cluster") as cluster,
        Platform(cluster, Path(folder) / "platform") as platform,
    ):
        platform.install()
        data = arguments.data.resolve() if arguments.data else None
        platform.add_machine(NODE, cpus=2, memory="16Gi", warm=0 if gpus else 1, gpus=gpus, data=data)
        platform.start_operator()
        platform.wait_machines()
        deadline = time.monotonic() + WITHIN_S
        while snapshot_of(platform.machines[NODE].state).warm == 0 and time.monotonic() < deadline:
            time.sleep(0.2)
        show(platform, "get", "cn")
        show(platform, "get", "cn", "-o", "yaml")
        trained(platform, fashion("fashion", arguments.epochs, arguments.batch, len(gpus)))
        killed_and_resumed(platform, fashion("killed", 100_000, arguments.batch, len(gpus)))
        trained(platform, yaml.safe_load((PLUGIN / "job.yaml").read_text()))


if __name__ == "__main__":
    main()
