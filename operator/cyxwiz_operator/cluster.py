"""The only module that talks to the API server: models go in, patches go out, models come back.

Every write of a status carries the resource version it was decided on. Errors are those of `cyxwiz_kube`, passed on
from here under their names.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Collection
from typing import Any, NamedTuple, TypeVar

from cyxwiz_crds import (
    API_VERSION,
    FINAL_PHASES,
    ComputeNode,
    ComputeNodeStatus,
    Condition,
    ConditionType,
    Reason,
    TrainingJob,
)
from cyxwiz_crds.base import Model
from cyxwiz_crds.compute_node import Lease
from cyxwiz_kube import ApiError, Change, ChangeKind, Conflict, Forbidden, Invalid, Kube, NotFound, Unavailable, paths

from .clock import Now
from .lifecycle import Note, StatusChange
from .metrics import Metrics
from .reservation_pods import Reservation
from .views import JobView, Machine, NodeView, Unreadable

__all__ = ["ApiError", "Cluster", "Conflict", "Forbidden", "Invalid", "NotFound", "Unavailable"]

REPORTER = "cyxwiz.io/operator"
FAIR_SHARE = "cyxwiz-fair-share"
"""The ConfigMap that holds it, and its one key."""
_PAGE = 500

T = TypeVar("T")


class Stored(NamedTuple):
    """A text and the resource version it was read at."""

    text: str
    version: str


class Cluster:
    """The requests of the operator, counted."""

    def __init__(self, kube: Kube, namespace: str, metrics: Metrics) -> None:
        self.kube = kube
        self._namespace = namespace
        self._metrics = metrics
        self._config_maps = f"/api/v1/namespaces/{namespace}/configmaps"

    async def write_status(self, change: StatusChange, kind: str) -> JobView:
        """The job with its new status. Raises Conflict, NotFound, Invalid, Unavailable."""
        metadata = change.job.job.metadata
        patch = status_patch(change.job.status, change.status)
        # The agent owns the execution: the operator only ever takes it away.
        if patch.get("execution") is not None:
            raise AssertionError(f"{change.job.key}: the operator must not write status.execution")
        path = paths.status(paths.training_job(metadata.namespace, metadata.name))
        body = {"metadata": {"resourceVersion": metadata.resource_version}, "status": patch}
        answer = await self._counted(kind, self.kube.merge_patch(path, body))
        # It was written over that very version, so nothing else of the job can have changed: no need to read it all.
        return change.job.as_written(change.status, answer["metadata"]["resourceVersion"])

    async def tell_unreadable(self, job: Unreadable, now: Now) -> None:
        """The job says itself that it cannot be read. Nothing is written when it does already."""
        summary = f"This object cannot be read: {job.problem}"[:1024]
        if job.status.get("summary") == summary:
            return
        condition = Condition(
            type=ConditionType.SCHEDULED,
            status="False",
            reason=Reason.INVALID,
            message=summary,
            last_transition_time=now.timestamp,
        )
        status = {"reason": Reason.INVALID, "summary": summary, "conditions": [condition.wire()]}
        path = paths.status(paths.training_job(job.namespace, job.name))
        body = {"metadata": {"resourceVersion": job.resource_version}, "status": status}
        await self._counted("invalid", self.kube.merge_patch(path, body))

    async def write_node_status(self, node: NodeView, status: ComputeNodeStatus) -> None:
        """The operator's part of the node's status is as in `status`. Raises Conflict, NotFound."""
        metadata = node.node.metadata
        patch = status_patch(node.node.status, status)
        path = paths.status(paths.compute_node(metadata.name))
        body = {"metadata": {"resourceVersion": metadata.resource_version}, "status": patch}
        await self._counted("node", self.kube.merge_patch(path, body))

    async def note(self, job: JobView, note: Note, now: Now) -> None:
        """An Event says so, once for each attempt and reason: its name makes a repeat a Conflict, which is fine."""
        metadata = job.job.metadata
        identity = hashlib.sha256(f"{metadata.uid}-{job.attempt}-{note.reason}".encode()).hexdigest()[:16]
        event = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{metadata.name[:200]}.{identity}", "namespace": metadata.namespace},
            "eventTime": now.micro_time,
            "reportingController": REPORTER,
            "reportingInstance": "operator",
            "action": note.reason,
            "reason": note.reason,
            "type": "Warning" if note.warning else "Normal",
            "note": note.message,
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": "TrainingJob",
                "namespace": metadata.namespace,
                "name": metadata.name,
                "uid": metadata.uid,
            },
        }
        await self._counted("event", self.kube.create(paths.events(metadata.namespace), event))

    async def read_job(self, namespace: str, name: str) -> TrainingJob | None:
        """The job as it is now, finished or not; None when there is none. Raises ApiError, ValidationError."""
        try:
            return TrainingJob.model_validate(await self.kube.get(paths.training_job(namespace, name)))
        except NotFound:
            return None

    async def read_lease(self, name: str) -> Lease | None:
        """The node's Lease as it is now, past every cache; None when there is none."""
        try:
            return _lease(await self.kube.get(paths.lease(self._namespace, name)))
        except NotFound:
            return None

    async def fence(self, lease: Lease) -> Lease:
        """Nobody holds the Lease any more. Raises Conflict when it has changed: then its holder is alive."""
        path = paths.lease(self._namespace, lease.name)
        item = await self.kube.get(path)
        item["metadata"]["resourceVersion"] = lease.resource_version
        item["spec"].pop("holderIdentity", None)
        return _lease(await self._counted("fence", self.kube.replace(path, item)))

    async def follow_leases(self) -> AsyncIterator[Lease | str | None]:
        """Each Lease as it changes, the name of one deleted, None after every complete list."""
        async for change in self.kube.watch(paths.leases(self._namespace)):
            yield _lease_change(change)

    async def read_fair_share(self) -> Stored | None:
        """What `write_fair_share` wrote last; None when it never did."""
        try:
            item = await self.kube.get(f"{self._config_maps}/{FAIR_SHARE}")
        except NotFound:
            return None
        return Stored((item.get("data") or {}).get(FAIR_SHARE, ""), item["metadata"]["resourceVersion"])

    async def write_fair_share(self, text: str, version: str | None) -> str:
        """The new resource version. Raises Conflict or NotFound when it is not at `version` (None: not there)."""
        metadata = {"name": FAIR_SHARE, "namespace": self._namespace}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {FAIR_SHARE: text}}
        if version is None:
            request = self.kube.create(self._config_maps, body)
        else:
            metadata["resourceVersion"] = version
            request = self.kube.replace(f"{self._config_maps}/{FAIR_SHARE}", body)
        return (await self._counted("fair share", request))["metadata"]["resourceVersion"]

    async def nodes(self) -> AsyncIterator[dict[str, Any]]:
        """Every ComputeNode, by a consistent list."""
        async for item in self._pages(paths.compute_nodes()):
            yield item

    async def machines(self) -> AsyncIterator[dict[str, Any]]:
        """Every Kubernetes Node, by a consistent list."""
        async for item in self._pages(paths.nodes()):
            yield item

    async def create_pod(self, namespace: str, body: dict[str, Any]) -> dict[str, Any]:
        """The new pod. Raises Conflict when there is one of its name."""
        return await self._counted("pod", self.kube.create(paths.pods(namespace), body))

    async def delete_pod(self, pod: Reservation, grace_s: int | None) -> None:
        """This very pod ends, within `grace_s` where that is given. Raises NotFound, Conflict."""
        path = paths.pod(pod.namespace, pod.name)
        await self._counted("pod", self.kube.delete(path, uid=pod.uid, grace_s=grace_s))

    async def machine_exists(self, name: str) -> bool:
        """There is a Kubernetes Node of this name now."""
        try:
            await self.kube.get(paths.node(name))
        except NotFound:
            return False
        return True

    async def delete_node(self, node: NodeView) -> None:
        """This very ComputeNode is deleted, not a later one of its name."""
        metadata = node.node.metadata
        await self._counted("delete", self.kube.delete(paths.compute_node(metadata.name), uid=metadata.uid))

    async def finished_jobs(self) -> AsyncIterator[dict[str, Any]]:
        """Every job in a final phase."""
        for phase in sorted(FINAL_PHASES):
            async for item in self._pages(paths.training_jobs(), field_selector=f"status.phase={phase}"):
                yield item

    async def delete_job(self, job: JobView) -> None:
        """This very job is deleted, not a later one of its name."""
        metadata = job.job.metadata
        path = paths.training_job(metadata.namespace, metadata.name)
        await self._counted("delete", self.kube.delete(path, uid=metadata.uid))

    async def _pages(self, path: str, field_selector: str = "") -> AsyncIterator[dict[str, Any]]:
        continue_from = ""
        while True:
            page = await self.kube.list(path, field_selector=field_selector, limit=_PAGE, continue_from=continue_from)
            for item in page["items"]:
                yield item
            continue_from = page["metadata"].get("continue", "")
            if not continue_from:
                return

    async def _counted(self, kind: str, request: Awaitable[T]) -> T:
        try:
            answer = await request
        except ApiError as error:
            self._metrics.writes.labels(kind, type(error).__name__).inc()
            raise
        self._metrics.writes.labels(kind, "ok").inc()
        return answer


def status_patch(before: Model, after: Model) -> dict[str, Any]:
    """The merge patch between two values of one model; only fields that differ are put into JSON."""
    fields = type(before).model_fields
    changed = {name for name in fields if getattr(before, name) != getattr(after, name)}
    return difference(before.wire(changed), after.wire(changed))


def difference(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The RFC 7386 merge patch that turns `before` into `after`; empty when they are equal."""
    patch: dict[str, Any] = dict.fromkeys(before.keys() - after.keys())
    for key, value in after.items():
        old = before.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            if inner := difference(old, value):
                patch[key] = inner
        elif old != value:
            patch[key] = value
    return patch


def parse_node(item: dict[str, Any]) -> NodeView:
    """The node as a model. Raises pydantic.ValidationError."""
    return NodeView(ComputeNode.model_validate(item))


def parse_machine(item: dict[str, Any], tolerated: Collection[str], cordon_drains: bool = False) -> Machine:
    """What a Kubernetes Node says about who may run there, but for taints whose key or prefix is tolerated."""
    spec = item.get("spec") or {}
    taints = [taint for taint in spec.get("taints") or () if not _tolerates(tolerated, taint["key"])]
    return Machine(
        name=item["metadata"]["name"],
        cordoned=bool(spec.get("unschedulable")),
        cordon_drains=cordon_drains,
        no_schedule=tuple(taint["key"] for taint in taints if taint["effect"] in ("NoSchedule", "NoExecute")),
        no_execute=tuple(taint["key"] for taint in taints if taint["effect"] == "NoExecute"),
    )


def _tolerates(tolerated: Collection[str], key: str) -> bool:
    return key in tolerated or any(key.startswith(prefix) for prefix in tolerated if prefix.endswith("/"))


def _lease_change(change: Change) -> Lease | str | None:
    match change.kind:
        case ChangeKind.PRESENT:
            return _lease(change.object)
        case ChangeKind.GONE:
            return str(change.object["metadata"]["name"])
        case ChangeKind.SYNCED:
            return None


def _lease(item: dict[str, Any]) -> Lease:
    metadata, spec = item["metadata"], item.get("spec") or {}
    return Lease(
        name=metadata["name"],
        resource_version=metadata["resourceVersion"],
        holder=spec.get("holderIdentity"),
        renew_time=spec.get("renewTime"),
    )
