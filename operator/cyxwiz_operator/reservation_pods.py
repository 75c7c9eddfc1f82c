"""The pods that reserve GPUs through Kubernetes: what is asked of one, and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from cyxwiz_crds import API_VERSION, Assignment, Reason

from .views import JobView

LABEL = "cyxwiz.io/assignment"
"""On every such pod: the assignment that it is for."""
HELD_S = 35
"""A pod that Kubernetes ends holds its GPUs for so long: the job's grace to save and leave, and a little."""
TERMINATION_S = HELD_S + 5
NOBODY = 65535
BEING_MADE = frozenset({"ContainerCreating", "PodInitializing"})
LONGEST_WORDS = 512


class ReservationSettings(BaseModel):
    """What the chart says of them, as JSON."""

    model_config = ConfigDict(alias_generator=to_camel, frozen=True, extra="forbid")

    resource_name: Annotated[str, Field(min_length=1, max_length=316)]
    """The extended resource that the device plugin offers, such as nvidia.com/gpu."""
    image: Annotated[str, Field(min_length=1)]
    pull_policy: str = "IfNotPresent"
    priority_class_name: str = ""
    tolerations: list[dict[str, Any]] = []
    wait_seconds: Annotated[int, Field(ge=5, le=86_400)] = 60
    """A job gives its place up when Kubernetes has not placed its pod for so long."""


def read_settings(path: Path) -> ReservationSettings:
    """Raises OSError, ValueError."""
    return ReservationSettings.model_validate_json(path.read_bytes())


@dataclass(frozen=True)
class Reservation:
    """What is known of the pod of one assignment."""

    assignment: str
    namespace: str
    name: str
    uid: str = ""
    """Empty when there is no pod."""
    running_since: str | None = None
    leaves: str | None = None
    """Why it goes, or has gone, before its job did: a reason of an order to yield."""
    refused: bool = False
    """The API server did not take it."""
    ends: bool = False
    """It was told to end already."""
    message: str = ""
    """Why it does not run, in Kubernetes' words."""


def pod_name(assignment: str) -> str:
    """A pod is named after its assignment: made again after a restart, it meets itself."""
    return f"cyxwiz-{assignment}"


def pod_body(job: JobView, assignment: Assignment, settings: ReservationSettings) -> dict[str, Any]:
    """The pod, for the assigned node and for as many GPUs as the job has. It is all that Kubernetes sees of the job."""
    metadata = job.job.metadata
    resources = {settings.resource_name: str(len(assignment.gpus)), "cpu": "10m", "memory": "16Mi"}
    spec: dict[str, Any] = {
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": _only(assignment.node)}},
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": TERMINATION_S,
        "tolerations": settings.tolerations,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": NOBODY,
            "runAsGroup": NOBODY,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "reservation",
                "image": settings.image,
                "imagePullPolicy": settings.pull_policy,
                # The devices see no use here, and NVIDIA's runtime need not bring its libraries for it.
                "env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}],
                "resources": {"limits": resources, "requests": resources},
                # It ends with SIGTERM, which the kubelet sends after the sleep. A shorter grace cuts the sleep short
                # where it comes with the deletion; once the kubelet has begun, it does not look again.
                "lifecycle": {"preStop": {"sleep": {"seconds": HELD_S}}},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
            }
        ],
    }
    if settings.priority_class_name:
        spec["priorityClassName"] = settings.priority_class_name
    owner = {
        "apiVersion": API_VERSION,
        "kind": "TrainingJob",
        "name": metadata.name,
        "uid": metadata.uid,
        # What `kubectl drain` asks of a pod that it may evict.
        "controller": True,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod_name(assignment.id),
            "namespace": metadata.namespace,
            "labels": {LABEL: assignment.id, "app.kubernetes.io/managed-by": "cyxwiz-operator"},
            "ownerReferences": [owner],
        },
        "spec": spec,
    }


def parse_pod(item: dict[str, Any]) -> Reservation:
    """What the pod says."""
    metadata, status = item["metadata"], item.get("status") or {}
    conditions = {each["type"]: each for each in status.get("conditions") or ()}
    statuses = status.get("containerStatuses") or ()
    states = [each.get("state") or {} for each in statuses]
    running = next((state["running"].get("startedAt") for state in states if "running" in state), None)
    waiting = next((state["waiting"] for state in states if "waiting" in state), {})
    ends = bool(metadata.get("deletionTimestamp"))
    disruption = conditions.get("DisruptionTarget") or {}
    leaves, message = None, ""
    if ends or status.get("phase") in ("Failed", "Succeeded"):
        leaves = Reason.PREEMPTED if disruption.get("reason") == "PreemptionByScheduler" else Reason.EVICTED
        message = disruption.get("message") or status.get("message") or "it was deleted"
    elif (placed := conditions.get("PodScheduled") or {}).get("status") == "False":
        message = placed.get("message") or placed.get("reason") or ""
    elif waiting and waiting.get("reason") not in BEING_MADE:
        message = f"{waiting.get('reason', '')}: {waiting.get('message', '')}".strip(": ")
    return Reservation(
        assignment=metadata["labels"][LABEL],
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        running_since=running,
        leaves=leaves,
        ends=ends,
        message=message[:LONGEST_WORDS],
    )


def _only(node: str) -> dict[str, Any]:
    """Affinity and not spec.nodeName: the scheduler admits the pod, with its priority and preemption."""
    return {
        "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}],
    }
