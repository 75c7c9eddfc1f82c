"""The fence, transition by transition, on the real API server: docs/design/fence.md as one table."""

from __future__ import annotations

from typing import Any

import pytest

from cyxwiz_kube import Conflict, Invalid, Kube, paths

SPEC = {"model": {"name": "cnn"}, "dataset": {"uri": "builtin://digits"}}


def assignment(attempt: int, node: str, uid: str = "u1", **more: Any) -> dict[str, Any]:
    return {"id": f"{uid}-{attempt}", "node": node, "intent": "Run", **more}


def execution(attempt: int, sequence: int, state: str, uid: str = "u1", **more: Any) -> dict[str, Any]:
    return {"assignmentID": f"{uid}-{attempt}", "sequence": sequence, "state": state, **more}


def bind(attempt: int, node: str, uid: str = "u1", **more: Any) -> dict[str, Any]:
    return {"attempt": attempt, "phase": "Bound", "assignment": assignment(attempt, node, uid), **more}


OK = None
# (number in the document, what happens, patch of status, the refusal's sentence or OK)
ONE_JOB: list[tuple[int, str, Any, str | None]] = [
    (1, "agent reports before any assignment", {"execution": execution(1, 1, "Running")}, "needs an assignment"),
    (2, "bind", bind(1, "n1"), OK),
    (3, "move to another node without a new attempt", {"assignment": assignment(1, "n2")}, "larger attempt"),
    (4, "stale assignment id", {"execution": execution(0, 1, "Running")}, "not from the current assignment"),
    (5, "running", {"execution": execution(1, 1, "Running")}, OK),
    (6, "operator phase", {"phase": "Running"}, OK),
    (7, "progress", {"execution": execution(1, 2, "Running", progress={"step": 10})}, OK),
    (8, "delayed older report", {"execution": execution(1, 1, "Running")}, "older than the one recorded"),
    (9, "intent yield", {"assignment": {"intent": "Yield"}}, OK),
    (10, "agent yields", {"execution": execution(1, 3, "Yielded")}, OK),
    (11, "late progress after the end", {"execution": execution(1, 4, "Running")}, "the execution has ended"),
    (12, "release", {"assignment": None, "execution": None, "phase": "Queued"}, OK),
    (13, "old agent reports after release", {"execution": execution(1, 5, "Running")}, "needs an assignment"),
    (14, "rebind with the same attempt", bind(1, "n1"), "larger attempt"),
    (15, "rebind with attempt 2", bind(2, "n2"), OK),
    (16, "old agent's report at attempt 2", {"execution": execution(1, 6, "Running")}, "not from the current"),
    (17, "node lost: rebind at once", bind(3, "n3", execution=None), OK),
    (18, "running on n3", {"execution": execution(3, 1, "Running")}, OK),
    (19, "rebind without nulling execution", bind(4, "n1"), "not from the current assignment"),
    (20, "end", {"execution": execution(3, 2, "Succeeded")}, OK),
    (21, "final phase", {"phase": "Succeeded"}, OK),
    (22, "rebind after the end", bind(4, "n1", execution=None), "a final phase is final"),
    (23, "attempt raised after the end", {"attempt": 4}, "a final phase is final"),
    (24, "assignment dropped after the end", {"assignment": None, "execution": None}, "a final phase is final"),
    (25, "phase changed after the end", {"phase": "Running"}, "a final phase is final"),
]


class Job:
    """One TrainingJob, written to as a status writer would."""

    def __init__(self, kube: Kube, namespace: str, name: str) -> None:
        self.kube, self.namespace, self.name = kube, namespace, name
        self.path = paths.training_job(namespace, name)

    async def create(self, **spec: Any) -> dict[str, Any]:
        body = {"apiVersion": "cyxwiz.io/v1alpha1", "kind": "TrainingJob", "metadata": {"name": self.name}}
        return await self.kube.create(paths.training_jobs(self.namespace), body | {"spec": SPEC | spec})

    async def status(self, status: Any, **metadata: Any) -> dict[str, Any]:
        patch = {"status": status} | ({"metadata": metadata} if metadata else {})
        return await self.kube.merge_patch(paths.status(self.path), patch)

    async def spec(self, **spec: Any) -> dict[str, Any]:
        return await self.kube.merge_patch(self.path, {"spec": spec})


async def test_every_transition_of_one_job_is_answered_as_the_document_says(admin: Kube, namespace: str) -> None:
    job = Job(admin, namespace, "fenced")
    await job.create()
    wrong: list[str] = []
    for number, what, patch, refusal in ONE_JOB:
        try:
            await job.status(patch)
            answer = None
        except Invalid as error:
            answer = error.message
        if (answer is None) != (refusal is None) or (refusal is not None and refusal not in (answer or "")):
            wrong.append(f"{number} {what}: expected {refusal or 'accepted'}, got {answer or 'accepted'}")
    assert not wrong


async def test_the_status_of_a_finished_job_cannot_be_removed(admin: Kube, namespace: str) -> None:
    job = Job(admin, namespace, "whole")
    await job.create()
    await job.status(bind(1, "n1"))
    await job.status({"phase": "Succeeded", "execution": execution(1, 1, "Succeeded")})
    with pytest.raises(Invalid):
        await job.status(None)


async def test_a_spec_cannot_be_changed_but_a_cancel_after_the_end_is_no_error(admin: Kube, namespace: str) -> None:
    job = Job(admin, namespace, "immutable")
    await job.create()
    await job.status(bind(1, "n1"))
    await job.status({"phase": "Succeeded", "execution": execution(1, 1, "Succeeded")})
    with pytest.raises(Invalid, match="use a new metadata"):
        await job.spec(epochs=7)
    await job.spec(cancel=True)


async def test_a_job_cancelled_before_any_binding_is_never_bound(admin: Kube, namespace: str) -> None:
    job = Job(admin, namespace, "cancelled")
    await job.create()
    await job.spec(cancel=True)
    with pytest.raises(Invalid, match="a cancelled job is not bound again"):
        await job.status(bind(1, "n1"))


async def test_the_agent_of_a_deleted_job_cannot_report_to_its_namesake(admin: Kube, namespace: str) -> None:
    job = Job(admin, namespace, "namesake")
    first = await job.create()
    await job.status(bind(1, "n1", uid="first"))
    await admin.delete(job.path, uid=first["metadata"]["uid"])
    await job.create()
    await job.status(bind(1, "n1", uid="second"))
    with pytest.raises(Invalid, match="not from the current assignment"):
        await job.status({"execution": execution(1, 9, "Running", uid="first")})


async def test_a_bind_from_a_stale_read_is_a_conflict(admin: Kube, namespace: str) -> None:
    job = Job(admin, namespace, "stale")
    read = await job.create()
    await job.spec(priority=5)
    with pytest.raises(Conflict):
        await job.status(bind(1, "n1"), resourceVersion=read["metadata"]["resourceVersion"])


async def test_only_the_fields_that_may_change_can_be_changed(admin: Kube, namespace: str) -> None:
    job = Job(admin, namespace, "changes")
    await job.create()
    changed = await job.spec(suspend=True, priority=3)
    assert (changed["spec"]["suspend"], changed["spec"]["priority"]) == (True, 3)
    for change in (
        {"model": {"name": "mlp"}},
        {"model": {"options": {"width": 8}}},
        {"dataset": {"uri": "mock://cifar10"}},
        {"batchSize": 64},
        {"hyperparameters": {"learningRate": 0.5}},
        {"hyperparameters": {"gradientClip": 1.0}},
        {"resources": {"gpuMemory": "4Gi"}},
        {"resources": {"gpus": 3}},
        {"activeDeadlineSeconds": 5},
        {"nodeSelector": {"a": "b"}},
    ):
        field = next(iter(change))
        with pytest.raises(Invalid, match=f"{field} cannot be changed"):
            await job.spec(**change)
