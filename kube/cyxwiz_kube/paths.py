"""URL paths of the few resources that CyxWiz touches."""

from __future__ import annotations

from cyxwiz_crds import GROUP, VERSION

_OURS = f"/apis/{GROUP}/{VERSION}"


def training_jobs(namespace: str | None = None) -> str:
    """All TrainingJobs, or those of one namespace."""
    return f"{_OURS}/namespaces/{namespace}/trainingjobs" if namespace else f"{_OURS}/trainingjobs"


def training_job(namespace: str, name: str) -> str:
    return f"{training_jobs(namespace)}/{name}"


def compute_nodes() -> str:
    return f"{_OURS}/computenodes"


def compute_node(name: str) -> str:
    return f"{compute_nodes()}/{name}"


def leases(namespace: str) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"


def lease(namespace: str, name: str) -> str:
    return f"{leases(namespace)}/{name}"


def events(namespace: str) -> str:
    return f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"


def event(namespace: str, name: str) -> str:
    return f"{events(namespace)}/{name}"


def pods(namespace: str | None = None) -> str:
    """All Pods, or those of one namespace."""
    return f"/api/v1/namespaces/{namespace}/pods" if namespace else "/api/v1/pods"


def pod(namespace: str, name: str) -> str:
    return f"{pods(namespace)}/{name}"


def nodes() -> str:
    return "/api/v1/nodes"


def node(name: str) -> str:
    return f"{nodes()}/{name}"


def status(path: str) -> str:
    """The status subresource of an object's path."""
    return f"{path}/status"
