"""The two CustomResourceDefinitions as documents, made from the models."""

from __future__ import annotations

from typing import Any

from . import compute_node, training_job
from .base import GROUP, VERSION, Model
from .compute_node import ComputeNodeSpec, ComputeNodeStatus
from .fence import put_up_fence
from .schema import structural
from .training_job import TrainingJobSpec, TrainingJobStatus

CATEGORY = "training"


def _column(name: str, path: str, *, wide: bool = False, kind: str = "string", description: str = "") -> dict[str, Any]:
    column: dict[str, Any] = {"name": name, "type": kind, "jsonPath": path}
    if description:
        column["description"] = description
    if wide:
        column["priority"] = 1
    return column


TRAINING_JOB_COLUMNS = [
    _column("Phase", ".status.phase"),
    _column("Reason", ".status.reason"),
    _column("Progress", ".status.execution.progress.percent"),
    _column("Epoch", ".status.execution.progress.epochs"),
    _column("Loss", ".status.execution.progress.loss"),
    _column("Accuracy", ".status.execution.progress.validationAccuracy", description="On held-out data"),
    _column("ETA", ".status.execution.progress.eta"),
    _column("Node", ".status.assignment.node"),
    _column("Age", ".metadata.creationTimestamp", kind="date"),
    _column("Priority", ".spec.priority", kind="integer", wide=True),
    _column("Attempt", ".status.attempt", kind="integer", wide=True),
    _column("GPUs", ".spec.resources.gpus", kind="integer", wide=True),
    _column("Position", ".status.scheduling.position", kind="integer", wide=True),
    _column("Start", ".status.execution.start", wide=True),
    _column("Curve", ".status.execution.progress.curve", wide=True),
]

COMPUTE_NODE_COLUMNS = [
    _column("Phase", ".status.phase"),
    _column("GPUs", ".status.inventory.gpuText"),
    _column("CPUs", ".status.inventory.cpus", kind="integer"),
    _column("Memory", ".status.inventory.memoryText"),
    _column("Jobs", ".status.allocation.jobs", kind="integer"),
    _column("Reputation", ".status.reputation.score"),
    _column("Uptime", ".status.onlineSince", kind="date"),
    _column("Age", ".metadata.creationTimestamp", kind="date"),
]


def training_job_crd() -> dict[str, Any]:
    """The CustomResourceDefinition of TrainingJob."""
    status = _status(TrainingJobStatus)
    # The table says Pending from the first moment, also while no operator runs.
    status["default"] = {"phase": "Pending"}
    schema = {
        "type": "object",
        "description": "A training run on one node of the pool: apply it, and watch it train.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": structural(TrainingJobSpec),
            "status": status,
        },
    }
    put_up_fence(schema)
    return _crd(
        training_job.KIND,
        training_job.PLURAL,
        short="tj",
        scope="Namespaced",
        schema=schema,
        columns=TRAINING_JOB_COLUMNS,
        selectable=[".status.phase", ".status.assignment.node"],
    )


def compute_node_crd() -> dict[str, Any]:
    """The CustomResourceDefinition of ComputeNode."""
    schema = {
        "type": "object",
        "description": "One machine of the pool, named after its Kubernetes node. Made by the agent that runs there.",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": structural(ComputeNodeSpec),
            "status": _status(ComputeNodeStatus),
        },
    }
    return _crd(
        compute_node.KIND,
        compute_node.PLURAL,
        short="cn",
        scope="Cluster",
        schema=schema,
        columns=COMPUTE_NODE_COLUMNS,
        selectable=[".status.phase"],
    )


def _status(model: type[Model]) -> dict[str, Any]:
    """The schema of a status: whole to those who keep account of who wrote which field.

    Who writes what of it is settled without `managedFields`, which name every field once more in each object and each
    event of it, and are worked out anew by every write. JSON merge patches go on to touch only what they name.
    """
    return {**structural(model), "x-kubernetes-map-type": "atomic"}


def _crd(
    kind: str,
    plural: str,
    *,
    short: str,
    scope: str,
    schema: dict[str, Any],
    columns: list[dict[str, Any]],
    selectable: list[str],
) -> dict[str, Any]:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": scope,
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": [short],
                "categories": [CATEGORY],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": schema},
                    "additionalPrinterColumns": columns,
                    "selectableFields": [{"jsonPath": path} for path in selectable],
                }
            ],
        },
    }
