"""The main job, for a newcomer's eyes: four TrainingJobs applied, bound, trained and watched to the end.

Everything is real: a Kubernetes API server, the operator and two agents with the chart's permissions, and training
on this machine's cores. Only the two machines are one, cut in two sizes.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from cyxwiz_crds import FINAL_PHASES
from cyxwiz_devcluster import Cluster, DevclusterError, start

from .children import PlatformProcess
from .platform import Platform, PlatformError

EXAMPLES = Path(__file__).parents[2] / "examples"
TRAINERS_WITHIN_S = 300.0
"""A trainer imports PyTorch before it is warm, and in a new .venv compiles it, while all share the cores."""
TRAINED_WITHIN_S = 300.0
INTERRUPTED = 130

TRAINS = ("digits-cnn", "resnet18-narrow", "waits-for-both-cpus")
IMPOSSIBLE = "wants-eight-gpus"


def jobs() -> list[dict[str, Any]]:
    """The four jobs: real images, a ResNet-18, one that must wait for two free CPUs, one that no node can run."""
    digits = _example("digits-cnn")
    waits = _changed(digits, TRAINS[2], cpus=2)
    impossible = _changed(digits, IMPOSSIBLE, gpus=8)
    return [digits, _example("resnet18-narrow"), waits, impossible]


def _example(name: str) -> dict[str, Any]:
    return yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())


def _changed(job: dict[str, Any], name: str, **resources: int) -> dict[str, Any]:
    spec = {**job["spec"], "resources": {**job["spec"]["resources"], **resources}}
    return {**job, "metadata": {"name": name}, "spec": spec}


def main(argv: list[str] | None = None) -> int:
    """Run the demo. Returns 0 when every job did what it should, 1 when something failed, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m cyxwiz_platform.demo",
        description=__doc__.partition("\n")[0] if __doc__ else None,
        epilog="Exit codes: 0 all went as told, 1 something failed, 130 interrupted.",
    )
    parser.add_argument("--keep", action="store_true", help="keep everything running until Ctrl-C")
    parser.add_argument("--state", type=Path, default=Path(".state/demo"), help="folder for everything it writes")
    arguments = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    state = arguments.state.absolute()
    try:
        with start(state / "cluster") as cluster:
            shutil.rmtree(state / "platform", ignore_errors=True)
            with Platform(cluster, state / "platform") as platform:
                return _demonstrate(cluster, platform, keep=arguments.keep)
    except KeyboardInterrupt:
        shutil.rmtree(state, ignore_errors=True)
        print("\nstopped; nothing is left running")
        return INTERRUPTED
    except (DevclusterError, PlatformError, OSError) as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1


def _demonstrate(cluster: Cluster, platform: Platform, *, keep: bool) -> int:
    began = time.monotonic()
    _tell("Installing the chart's resources, permissions and policies")
    platform.install()
    _tell("Starting the operator and two machines: node-a with 2 CPUs and 4Gi, node-b with 1 CPU and 2Gi")
    platform.add_machine("node-a", cpus=2, memory="4Gi")
    platform.add_machine("node-b", cpus=1, memory="2Gi")
    platform.start_operator()
    platform.wait_machines()
    print("waiting for their warm trainers, which import PyTorch", flush=True)
    for name in platform.machines:
        what = "phase Online with trainers ready"
        platform.wait_for("computenode", name, _is_ready, what=what, within_s=TRAINERS_WITHIN_S)
    print(cluster.run_kubectl("get", "computenodes"))

    _tell("kubectl apply of four jobs, then: kubectl get trainingjobs -w")
    table = platform.logs / "table.txt"
    command = [str(cluster.kubectl), "--kubeconfig", str(cluster.kubeconfig), "get", "trainingjobs", "-w"]
    platform.apply(*jobs())
    watch = PlatformProcess("kubectl-watch", command, table)
    try:
        finished = _follow(platform, table)
    finally:
        watch.kill()

    _tell("kubectl describe trainingjob digits-cnn")
    print(cluster.run_kubectl("describe", "trainingjob", TRAINS[0]))
    _tell(f"Why {IMPOSSIBLE} waits")
    print(platform.get("trainingjob", IMPOSSIBLE)["status"].get("summary", "(the operator has not said)"))
    _tell("The trained models")
    good = all(_show_model(platform, job) for job in finished)
    print(f"\n{time.monotonic() - began:.0f} s since the API server was ready.")
    if keep:
        _keep_running(cluster)
    else:
        print("make demo KEEP=1 keeps everything running for another terminal.")
    return 0 if good else 1


def _is_ready(node: dict[str, Any]) -> bool:
    status = node.get("status", {})
    return status.get("phase") == "Online" and bool(status.get("inventory", {}).get("models"))


def _follow(platform: Platform, table: Path) -> list[dict[str, Any]]:
    """Prints the table as it grows until the jobs that can train have ended; those jobs."""
    deadline = time.monotonic() + TRAINED_WITHIN_S
    with table.open() as lines:
        while True:
            print(lines.read(), end="", flush=True)
            seen = [platform.get("trainingjob", name) for name in TRAINS]
            if all(job["status"].get("phase") in FINAL_PHASES for job in seen):
                time.sleep(0.3)  # what the watch still has to print
                print(lines.read())
                return seen
            if time.monotonic() > deadline:
                raise PlatformError(f"the jobs did not end within {TRAINED_WITHIN_S:.0f} s; logs: {platform.logs}")
            time.sleep(0.2)


def _show_model(platform: Platform, job: dict[str, Any]) -> bool:
    """True when the job succeeded and its file has the digest that its status tells."""
    name, status = job["metadata"]["name"], job["status"]
    if status["phase"] != "Succeeded":
        print(f"{name}: {status['phase']}: {status.get('summary')}")
        return False
    model = status["execution"]["model"]
    _, _, node, assignment, *path = model["uri"].split("/")
    file = platform.machines[node].state.joinpath("jobs", assignment, *path)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    same = digest == model["sha256"]
    print(f"{name}: {file}\n  {file.stat().st_size} bytes, SHA-256 {digest} ({'as' if same else 'NOT as'} in status)")
    return same


def _keep_running(cluster: Cluster) -> None:
    print("\nEverything keeps running. From another terminal:\n")
    print(f"  export KUBECONFIG={cluster.kubeconfig}")
    print(f"  alias kubectl={cluster.kubectl}")
    print("  kubectl get trainingjobs -w")
    print("  kubectl apply -f examples/digits-evaluation.yaml\n")
    print("Ctrl-C ends it.")
    signal.pause()


def _interrupt(*_: object) -> None:
    """Not by way of SIGINT: a shell has what it runs in the background ignore that."""
    raise KeyboardInterrupt


def _tell(text: str) -> None:
    print(f"\n== {text}", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.TimeoutExpired as error:
        print(f"demo: no answer: {error}", file=sys.stderr)
        sys.exit(1)
