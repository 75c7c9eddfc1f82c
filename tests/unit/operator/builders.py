"""Small makers: a test names only what matters to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cyxwiz_crds import Assignment, Execution, TrainingJob
from cyxwiz_crds.compute_node import Lease
from cyxwiz_operator.clock import Now, timestamp
from cyxwiz_operator.cluster import parse_node
from cyxwiz_operator.leases import LeaseBook
from cyxwiz_operator.ledger import Ledger
from cyxwiz_operator.lifecycle import StatusChange
from cyxwiz_operator.node_table import Columns, NodeTable, node_table
from cyxwiz_operator.snapshot import ClusterSnapshot, take_snapshot
from cyxwiz_operator.views import JobView, Liveness, NodeView
from cyxwiz_operator.weights import Key, Source

START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = Now(START, boot=1000.0)


def later(seconds: float, now: Now = NOW) -> Now:
    """So many seconds after `now`, by both clocks."""
    return Now(now.wall + timedelta(seconds=seconds), now.boot + seconds)


def ago(seconds: float) -> str:
    """The timestamp so many seconds before `NOW`."""
    return timestamp(START - timedelta(seconds=seconds))


def make_job(
    name: str = "digits",
    *,
    namespace: str = "team-a",
    gpus: int = 0,
    gpu_memory: str | None = None,
    cpus: int = 1,
    memory: str = "1Gi",
    age_s: float = 0,
    version: str = "1",
    status: Mapping[str, Any] | None = None,
    **spec: Any,
) -> JobView:
    """A job as the API server would show it; `spec` and `status` by their names on the wire."""
    resources = {"gpus": gpus, "cpus": cpus, "memory": memory} | ({"gpuMemory": gpu_memory} if gpu_memory else {})
    return JobView(
        TrainingJob.model_validate(
            {
                "metadata": {
                    "name": name,
                    "namespace": namespace,
                    "uid": f"uid-{namespace}-{name}",
                    "resourceVersion": version,
                    "generation": 1,
                    "creationTimestamp": ago(age_s),
                },
                "spec": {
                    "model": {"name": "cnn"},
                    "dataset": {"uri": "builtin://digits"},
                    "resources": resources,
                    **spec,
                },
                "status": {"phase": "Pending", **(status or {})},
            }
        )
    )


def make_bound_job(
    name: str = "digits",
    *,
    node: str = "node-a",
    attempt: int = 1,
    gpu_uuids: Iterable[str] = (),
    bound_s_ago: float = 0,
    execution: Mapping[str, Any] | None = None,
    assignment: Mapping[str, Any] | None = None,
    status: Mapping[str, Any] | None = None,
    **job: Any,
) -> JobView:
    """A job with an assignment, and with an execution when its state is given."""
    view = make_job(name, **job)
    identity = f"{view.uid}-{attempt}"
    given = Assignment(id=identity, node=node, gpus=list(gpu_uuids), bound_at=ago(bound_s_ago))
    whole = given.wire() | dict(assignment or {})
    reported = {"assignmentID": identity, "sequence": 1, **execution} if execution else None
    phase = "Running" if execution else "Bound"
    return make_job(
        name,
        status={
            "phase": phase,
            "attempt": attempt,
            "assignment": whole,
            "execution": reported,
            **({"firstStartedAt": ago(bound_s_ago)} if execution else {}),
            **(status or {}),
        },
        **job,
    )


def make_node(
    name: str = "node-a",
    *,
    gpus: int = 0,
    gpu_memory_mib: int = 81920,
    gpu_context_mib: int = 0,
    gpu_health: str = "Healthy",
    ill_gpus: Iterable[int] = (),
    compute_capability: str = "9.0",
    cpus: int = 8,
    memory_mib: int = 32768,
    labels: Mapping[str, str] | None = None,
    inventory: bool = True,
    warm: bool = False,
    gpu_mode: str | None = None,
    status: Mapping[str, Any] | None = None,
    **spec: Any,
) -> NodeView:
    """A node as the API server would show it."""
    devices = [
        {
            "uuid": gpu_uuid(name, number),
            "name": "Test GPU",
            "computeCapability": compute_capability,
            "memoryTotalMiB": gpu_memory_mib,
            "health": "Unhealthy" if number in ill_gpus else gpu_health,
        }
        for number in range(gpus)
    ]
    has = {"gpus": devices, "cpus": cpus, "memoryMiB": memory_mib, "labels": dict(labels or {})}
    has |= {"warmTrainers": warm, "gpuContextMiB": gpu_context_mib, "gpuMode": gpu_mode}
    return parse_node(
        {
            "metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": "1", "generation": 1},
            "spec": spec,
            "status": {**({"inventory": has} if inventory else {}), **(status or {})},
        }
    )


def gpu_uuid(node: str, number: int) -> str:
    """The UUID that `make_node` gives."""
    return f"GPU-{node}-{number}"


def make_table(*nodes: NodeView, jobs: Iterable[JobView] = (), offline: Iterable[str] = ()) -> NodeTable:
    """The nodes as columns, online unless named."""
    away = set(offline)
    liveness = {node.name: Liveness.EXPIRED if node.name in away else Liveness.ONLINE for node in nodes}
    return node_table(Columns().of(nodes, START), jobs, liveness)


def make_lease(name: str = "node-a", *, version: int = 1, holder: str | None = "agent", renewed: Now = NOW) -> Lease:
    """A Lease as the API server would show it."""
    return Lease(name=name, resource_version=str(version), holder=holder, renew_time=renewed.micro_time)


def make_leases(*names: str) -> LeaseBook:
    """A book in which every one of these has just been renewed."""
    book = LeaseBook(NOW)
    for name in names:
        book.observe(make_lease(name), NOW)
    return book


def make_snapshot(
    jobs: Iterable[JobView] = (),
    nodes: Iterable[NodeView] = (),
    ledger: Ledger | None = None,
    now: Now = NOW,
    sources: Mapping[Key, Source] | None = None,
    *,
    can_reserve: bool = False,
) -> ClusterSnapshot:
    """A snapshot in which every node is online."""
    columns = Columns(can_reserve=can_reserve)
    views = {node.name: node for node in nodes}
    seen = {job.uid: job for job in jobs}
    return take_snapshot(seen, views, ledger or Ledger(), make_leases(*views), columns, now, sources=sources)


def written(change: StatusChange, version: str = "2") -> JobView:
    """The job as the API server shows it once the change is written."""
    after = change.after
    metadata = after.job.metadata.model_copy(update={"resource_version": version})
    return replace(after, job=after.job.model_copy(update={"metadata": metadata}))


def reported(job: JobView, **execution: Any) -> JobView:
    """The job once its agent has reported."""
    assignment = job.status.assignment
    assert assignment is not None
    value = Execution.model_validate({"assignmentID": assignment.id, "sequence": 1, **execution})
    return job.with_status(job.status.model_copy(update={"execution": value}))


def truth(job: JobView) -> dict[str, str]:
    """Condition type to status."""
    return {condition.type: condition.status for condition in job.status.conditions}
