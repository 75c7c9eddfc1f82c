"""Ordinary pods that want a GPU of Kubernetes, and the pods that hold GPUs for jobs."""

from __future__ import annotations

import time
from typing import Any

from tests.cluster.installation import GPU, Installation
from tests.thread import status_of

Object = dict[str, Any]


def pod(name: str, gpus: int = 1, **spec: Any) -> Object:
    """An ordinary pod that wants a GPU of Kubernetes."""
    resources = {"limits": {GPU: str(gpus)}}
    container = {"name": "main", "image": "localhost/pause:1", "imagePullPolicy": "Never", "resources": resources}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0, **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def running(pod: Object) -> bool:
    return status_of(pod).get("phase") == "Running"


def unschedulable(pod: Object) -> bool:
    return any(each.get("reason") == "Unschedulable" for each in status_of(pod).get("conditions", []))


def reserved(job: Object) -> list[str]:
    """UUIDs of the GPUs that Kubernetes gave the job's pod."""
    return status_of(job).get("execution", {}).get("gpus", [])


def mode_of(node: Object) -> str | None:
    """In which mode the agent of this ComputeNode has its GPUs."""
    return status_of(node).get("inventory", {}).get("gpuMode")


def reservations(release: Installation) -> list[str]:
    """Names of the pods that hold GPUs for jobs."""
    return release.kubectl("get", "pods", "-A", "-l", "cyxwiz.io/assignment", "-o", "name").split()


def wait_without_reservations(release: Installation, within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while left := reservations(release):
        assert time.monotonic() < deadline, left
        time.sleep(0.2)
