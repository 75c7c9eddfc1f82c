"""What an agent's token may write: its own node's things and nothing else, by RBAC and admission policy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from cyxwiz_kube import ApiError, Forbidden, Invalid, Kube, paths
from cyxwiz_platform import Platform
from cyxwiz_platform.platform import NAMESPACE, agent_pod, node_object

REFUSALS = (Forbidden, Invalid)


@pytest_asyncio.fixture
async def agent(idle: Platform) -> AsyncIterator[Kube]:
    """A client with the token of the agent on node `mine`."""
    idle.apply(node_object("mine", {}), agent_pod("mine"))
    kubeconfig = idle.cluster.kubeconfig_for_token(idle.agent_token("mine"), idle.folder / "agent.kubeconfig")
    async with await Kube.connect(kubeconfig=kubeconfig, user_agent="cyxwiz-tests") as kube:
        await _until_policies_are_enforced(kube)
        yield kube
    idle.cluster.run_kubectl("delete", "computenode,node", "mine", "--ignore-not-found")
    idle.cluster.run_kubectl("delete", "lease", "mine", "-n", NAMESPACE, "--ignore-not-found")
    force = ["--force", "--grace-period=0"]
    idle.cluster.run_kubectl("delete", "pod", "cyxwiz-agent-mine", "-n", NAMESPACE, "--ignore-not-found", *force)


async def _until_policies_are_enforced(kube: Kube) -> None:
    """The API server takes up a new policy some moments after it was created."""
    async with asyncio.timeout(30):
        while True:
            try:
                await kube.create(paths.compute_nodes(), compute_node("probe"))
            except REFUSALS:
                return
            except ApiError:
                pass
            await asyncio.sleep(0.2)


def compute_node(name: str) -> dict[str, Any]:
    return {"apiVersion": "cyxwiz.io/v1alpha1", "kind": "ComputeNode", "metadata": {"name": name}, "spec": {}}


def lease(name: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {}}


async def bound_job(admin: Kube, namespace: str, node: str) -> str:
    """The path of a job bound to `node`."""
    body = {
        "apiVersion": "cyxwiz.io/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": f"on-{node}"},
        "spec": {"model": {"name": "cnn"}, "dataset": {"uri": "builtin://digits"}},
    }
    await admin.create(paths.training_jobs(namespace), body)
    path = paths.training_job(namespace, f"on-{node}")
    status = {"phase": "Bound", "attempt": 1, "assignment": {"id": "u-1", "node": node, "intent": "Run"}}
    await admin.merge_patch(paths.status(path), {"status": status})
    return path


RUNNING = {"assignmentID": "u-1", "sequence": 1, "state": "Running"}


async def test_an_agent_reports_on_a_job_of_its_node(agent: Kube, admin: Kube, namespace: str) -> None:
    path = await bound_job(admin, namespace, "mine")
    job = await agent.merge_patch(paths.status(path), {"status": {"execution": RUNNING}})
    assert job["status"]["execution"]["state"] == "Running"


async def test_an_agent_cannot_report_on_a_job_of_another_node(agent: Kube, admin: Kube, namespace: str) -> None:
    path = await bound_job(admin, namespace, "other")
    with pytest.raises(REFUSALS, match="this job is not assigned to node mine"):
        await agent.merge_patch(paths.status(path), {"status": {"execution": RUNNING}})


@pytest.mark.parametrize(
    "patch",
    [
        {"phase": "Succeeded"},
        {"summary": "all is well"},
        {"assignment": {"intent": "Stop"}},
        {"attempt": 7},
        {"conditions": [{"type": "Finished", "status": "True"}]},
        {"history": [{"attempt": 1, "node": "x", "outcome": "y", "endedAt": "2026-01-01T00:00:00Z"}]},
        {"failures": 9},
    ],
    ids=lambda patch: next(iter(patch)),
)
async def test_an_agent_cannot_write_what_is_the_operators(
    agent: Kube, admin: Kube, namespace: str, patch: dict[str, Any]
) -> None:
    path = await bound_job(admin, namespace, "mine")
    with pytest.raises(REFUSALS, match=f"status.{next(iter(patch))} is the operator's"):
        await agent.merge_patch(paths.status(path), {"status": patch})


async def test_an_agent_cannot_change_or_delete_a_job(agent: Kube, admin: Kube, namespace: str) -> None:
    path = await bound_job(admin, namespace, "mine")
    with pytest.raises(Forbidden):
        await agent.merge_patch(path, {"spec": {"cancel": True}})
    with pytest.raises(Forbidden):
        await agent.delete(path, uid="whatever")


async def test_an_agent_registers_its_own_node_and_no_other(agent: Kube) -> None:
    await agent.create(paths.compute_nodes(), compute_node("mine"))
    inventory = {"cpus": 2, "memoryMiB": 1024}
    await agent.merge_patch(paths.status(paths.compute_node("mine")), {"status": {"inventory": inventory}})
    with pytest.raises(REFUSALS, match=r"status\.phase is the operator's"):
        await agent.merge_patch(paths.status(paths.compute_node("mine")), {"status": {"phase": "Online"}})
    with pytest.raises(REFUSALS, match="ComputeNode of its own node only, which is mine"):
        await agent.create(paths.compute_nodes(), compute_node("other"))


async def test_an_agent_keeps_its_own_lease_and_no_other(agent: Kube) -> None:
    await agent.create(paths.leases(NAMESPACE), lease("mine"))
    with pytest.raises(REFUSALS, match="Lease of its own node only, which is mine"):
        await agent.create(paths.leases(NAMESPACE), lease("other"))


async def test_an_agents_token_reads_no_secrets_and_no_pods(agent: Kube) -> None:
    for path in ("/api/v1/secrets", "/api/v1/pods", "/api/v1/nodes"):
        with pytest.raises(Forbidden):
            await agent.list(path)


async def test_a_token_that_is_bound_to_no_pod_writes_nothing(
    agent: Kube, admin: Kube, idle: Platform, namespace: str
) -> None:
    token = idle.cluster.run_kubectl("create", "token", "cyxwiz-agent", "-n", NAMESPACE).strip()
    kubeconfig = idle.cluster.kubeconfig_for_token(token, idle.folder / "unbound.kubeconfig")
    path = await bound_job(admin, namespace, "mine")
    async with await Kube.connect(kubeconfig=kubeconfig, user_agent="cyxwiz-tests") as unbound:
        with pytest.raises(REFUSALS, match="not bound to a pod"):
            await unbound.merge_patch(paths.status(path), {"status": {"execution": RUNNING}})
        with pytest.raises(REFUSALS, match="not bound to a pod"):
            await unbound.create(paths.compute_nodes(), compute_node("mine"))
