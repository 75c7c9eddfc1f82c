"""What one status write of a TrainingJob costs the API server, and which part of the schema it pays for.

    python -m benchmarks.api_writes [--against an-earlier-crd.yaml]

Each variant is the CustomResourceDefinition under a group of its own, on one control plane, without policies. The
same patch, which changes one number of the progress, goes to the same objects; variants alternate.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from benchmarks.machine import ApiServer, describe
from cyxwiz_crds.crd import training_job_crd
from cyxwiz_devcluster import Cluster, start
from cyxwiz_kube import Kube

OBJECTS = 32
PARALLEL = 16
PATCHES = 480
REPETITIONS = 5
Document = dict[str, Any]


def as_committed(schema: Document) -> None:
    """As it is."""


def without_rules(schema: Any) -> None:
    """No CEL rule anywhere: types and bounds alone."""
    if isinstance(schema, dict):
        schema.pop("x-kubernetes-validations", None)
        for value in schema.values():
            without_rules(value)


def without_schema(schema: Document) -> None:
    """Nothing is checked at all: the floor."""
    schema.clear()
    schema |= {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--against", type=Path, metavar="CRD.yaml", help="an earlier CustomResourceDefinition")
    against = parser.parse_args().against
    now = training_job_crd()
    variants = {
        "committed": _changed(now, as_committed),
        "no rules": _changed(now, without_rules),
        "no schema": _changed(now, without_schema),
    }
    if against:
        variants = {"earlier": yaml.safe_load(against.read_text()), **variants}
    with tempfile.TemporaryDirectory() as folder, start(Path(folder)) as cluster:
        groups = {name: f"v{number}.cyxwiz.io" for number, name in enumerate(variants)}
        for name, document in variants.items():
            _install(cluster, groups[name], document)
        asyncio.run(_compare(cluster, groups))


def _changed(document: Document, change: Callable[[Document], None]) -> Document:
    document = deepcopy(document)
    [version] = document["spec"]["versions"]
    change(version["schema"]["openAPIV3Schema"])
    if change is without_schema:
        del version["selectableFields"]
    return document


async def _compare(cluster: Cluster, groups: dict[str, str]) -> None:
    server = ApiServer(cluster)
    print(f"{describe()}; {REPETITIONS} repetitions of {PATCHES} patches, {PARALLEL} at a time; medians")
    cpu_ms: dict[str, list[float]] = {name: [] for name in groups}
    rate: dict[str, list[float]] = {name: [] for name in groups}
    async with await Kube.connect(kubeconfig=cluster.kubeconfig, user_agent="cyxwiz-benchmark") as kube:
        paths = {name: await _objects(kube, group) for name, group in groups.items()}
        for name in groups:
            await _patch_all(kube, paths[name], PATCHES // 2, first=2)  # connections, caches, compiled rules
        for repetition in range(REPETITIONS):
            for name in groups:
                cpu_before, started = server.cpu_s(), time.perf_counter()
                await _patch_all(kube, paths[name], PATCHES, first=1000 * (repetition + 1))
                rate[name].append(PATCHES / (time.perf_counter() - started))
                cpu_ms[name].append(1000 * (server.cpu_s() - cpu_before) / PATCHES)
    floor = statistics.median(cpu_ms["no schema"])
    print(f"{'variant':20} {'patches/s':>10} {'server CPU':>12} {'of floor':>9}")
    for name in groups:
        median = statistics.median(cpu_ms[name])
        print(f"{name:20} {statistics.median(rate[name]):>10.0f} {median:>9.2f} ms {median / floor:>9.2f}")


def _install(cluster: Cluster, group: str, document: Document) -> None:
    document["metadata"] = {"name": f"trainingjobs.{group}"}
    document["spec"]["group"] = group
    del document["spec"]["names"]["shortNames"], document["spec"]["names"]["categories"]
    cluster.run_kubectl("apply", "--server-side", "-f", "-", input=json.dumps(document))
    name = f"crd/trainingjobs.{group}"
    cluster.run_kubectl("wait", "--for=condition=Established", "--timeout=60s", name, timeout=70)


async def _objects(kube: Kube, group: str) -> list[str]:
    """Status paths of running jobs whose status is as full as a real one."""
    collection = f"/apis/{group}/v1alpha1/namespaces/default/trainingjobs"
    found: list[str] = []
    for number in range(OBJECTS):
        body = {
            "apiVersion": f"{group}/v1alpha1",
            "kind": "TrainingJob",
            "metadata": {"name": f"job-{number}"},
            "spec": {"model": {"name": "cnn"}, "dataset": {"uri": "builtin://digits"}},
        }
        await kube.create(collection, body)
        path = f"{collection}/job-{number}/status"
        await kube.merge_patch(path, {"status": _status(number)})
        found.append(path)
    return found


def _status(number: int) -> Document:
    identity = f"uid-{number}-1"
    conditions = [
        {"type": kind, "status": "True", "reason": "Training", "message": "Training on node-a, Warm (0.09 s)."}
        for kind in ("Scheduled", "Running")
    ]
    return {
        "phase": "Running",
        "reason": "Training",
        "summary": "Training on node-a, Warm (0.09 s).",
        "attempt": 1,
        "assignment": {"id": identity, "node": "node-a", "intent": "Run", "boundAt": "2026-01-01T00:00:00.000000Z"},
        "conditions": conditions,
        "scheduling": {"candidates": [f"node-{each} 0.67 = reputation 0.28 + availability 0.15" for each in "abcde"]},
        "execution": {"assignmentID": identity, "sequence": 1, "state": "Running", "progress": {"step": 1}},
    }


async def _patch_all(kube: Kube, paths: list[str], patches: int, *, first: int) -> None:
    """Every patch is answered; each object's sequence grows from `first`."""

    async def write(own: list[str]) -> None:
        # The fence refuses a sequence that shrinks: nobody else may write to these objects.
        for number in range(patches // PARALLEL):
            sequence = first + number
            report = {"sequence": sequence, "progress": {"step": sequence, "loss": f"{1 / sequence:.4f}"}}
            await kube.merge_patch(own[number % len(own)], {"status": {"execution": report}})

    async with asyncio.TaskGroup() as group:
        for worker in range(PARALLEL):
            group.create_task(write(paths[worker::PARALLEL]))


if __name__ == "__main__":
    main()
