"""What tests of the whole thread share: jobs, what to wait for, and the processes behind a job."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

from cyxwiz_agent.settings import LEASE_GRACE_S
from cyxwiz_crds import FINAL_PHASES
from cyxwiz_platform import Platform
from cyxwiz_protocol.runner_api import ListRequest, Snapshot, socket_path

TRAINS_WITHIN_S = 90.0
Object = dict[str, Any]


def digits(name: str, *, epochs: int = 5, cpus: int = 1, gpus: int = 0, **spec: Any) -> Object:
    """Real images, a small network, a second or two."""
    return {
        "apiVersion": "cyxwiz.io/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name},
        "spec": {
            "model": {"name": "cnn"},
            "dataset": {"uri": "builtin://digits"},
            "epochs": epochs,
            "resources": {"gpus": gpus, "cpus": cpus, "memory": "512Mi"},
            **spec,
        },
    }


def endless(name: str, **spec: Any) -> Object:
    """A job that is still running whatever a test does meanwhile, with a checkpoint after every short epoch."""
    return digits(name, epochs=10_000, **spec)


def is_online(node: Object) -> bool:
    status = node.get("status", {})
    return status.get("phase") == "Online" and bool(status.get("inventory", {}).get("models"))


def status_of(job: Object) -> Object:
    return job.get("status", {})


def attempt(job: Object) -> int:
    """Number of bindings so far."""
    return status_of(job).get("attempt", 0)


def phase(*phases: str) -> Any:
    return lambda job: status_of(job).get("phase") in phases


def finished(job: Object) -> bool:
    return status_of(job).get("phase") in FINAL_PHASES


def stepping(job: Object) -> bool:
    """It has reported training steps."""
    return (status_of(job).get("execution", {}).get("progress") or {}).get("step", 0) > 0


def has_checkpoint(job: Object) -> bool:
    return bool(status_of(job).get("execution", {}).get("checkpoint"))


def condition(job: Object, kind: str) -> Object:
    return next((c for c in status_of(job).get("conditions", []) if c["type"] == kind), {})


def apply_and_wait(platform: Platform, job: Object, until: Any, what: str) -> Object:
    platform.apply(job)
    return platform.wait_for("trainingjob", job["metadata"]["name"], until, what=what, within_s=TRAINS_WITHIN_S)


def wait_warm(platform: Platform, within_s: float = 60.0) -> None:
    """Every machine has a trainer ready, by its runner's own word."""
    for machine in platform.machines.values():
        deadline = time.monotonic() + within_s
        while snapshot_of(machine.state).warm == 0:
            assert time.monotonic() < deadline, f"no trainer became ready on {machine.name}"
            time.sleep(0.1)


def snapshot_of(state: Path) -> Snapshot:
    """All that the runner of that state folder knows."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(socket_path(state)))
        connection.sendall(ListRequest().model_dump_json(by_alias=True).encode() + b"\n")
        with connection.makefile("rb") as answer:
            return Snapshot.model_validate_json(answer.readline())


def trainers_of(assignment: str) -> list[int]:
    """Processes that train this assignment: those whose working folder is its job folder."""
    found: list[int] = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if (process / "cwd").readlink().name == assignment:
                    found.append(int(process.name))
            except OSError:
                continue
    return found


def wait_gone(assignment: str, within_s: float = 40.0) -> None:
    deadline = time.monotonic() + within_s
    while trainers := trainers_of(assignment):
        assert time.monotonic() < deadline, f"still running: {trainers}"
        time.sleep(0.1)


def frozen(pid: int) -> bool:
    """True for a stopped process, and for one that is gone: neither computes."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "TZ"
    except OSError:
        return True


def wait_frozen(assignment: str, within_s: float = LEASE_GRACE_S + 10) -> None:
    """Every process of the assignment has stopped computing."""
    deadline = time.monotonic() + within_s
    while not all(frozen(pid) for pid in trainers_of(assignment)):
        assert time.monotonic() < deadline, f"{assignment} still computes"
        time.sleep(0.1)
