"""Every verb on every resource with every kind of token, compared cell by cell with the table of docs/permissions.md.

Writes are sent with `dryRun=All`: authorization, schema and admission policies answer, and nothing changes.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from cyxwiz_kube import paths
from cyxwiz_platform import Platform
from cyxwiz_platform.platform import NAMESPACE, agent_pod, node_object

DOCUMENT = Path(__file__).parents[2] / "docs" / "permissions.md"
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
OF_STATUS = ("get", "update", "patch")
TENANT = "matrix-tenant"
JOB = "on-mine"
# What Kubernetes lets any authenticated token do: ask about itself.
OF_EVERYBODY = {
    ("authorization.k8s.io", "selfsubjectaccessreviews", "create"),
    ("authorization.k8s.io", "selfsubjectrulesreviews", "create"),
    ("authentication.k8s.io", "selfsubjectreviews", "create"),
}
# Verbs that discovery does not list, each a way to become somebody else.
ESCALATIONS = (
    ("", "users", "impersonate"),
    ("", "groups", "impersonate"),
    ("", "serviceaccounts", "impersonate"),
    ("rbac.authorization.k8s.io", "clusterroles", "bind"),
    ("rbac.authorization.k8s.io", "clusterroles", "escalate"),
    ("certificates.k8s.io", "signers", "approve"),
    ("certificates.k8s.io", "signers", "sign"),
)


@dataclass(frozen=True)
class Row:
    """A resource of the table, and what a write to it carries."""

    collection: str | None
    """None for a subresource, which has none."""
    path: str
    new: dict[str, Any] = field(default_factory=dict)
    patch: dict[str, Any] = field(default_factory=dict)
    is_proxy: bool = False
    """Nothing is stored there: whoever gets as far as "no such endpoint" was let through."""

    @property
    def verbs(self) -> tuple[str, ...]:
        return OF_STATUS if self.collection is None else VERBS


def manifest(api_version: str, kind: str, name: str, **rest: Any) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}} | rest


SPEC = {"model": {"name": "cnn"}, "dataset": {"uri": "builtin://digits"}}
JOB_PATH = paths.training_job(TENANT, JOB)
NODE_PATH = paths.compute_node("mine")
CONFIG_MAPS = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
SERVICES = f"/api/v1/namespaces/{NAMESPACE}/services"
ENDPOINT_SLICES = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
LABEL = {"metadata": {"labels": {"tried": "yes"}}}
ROWS = {
    "trainingjobs": Row(
        paths.training_jobs(TENANT), JOB_PATH, manifest("cyxwiz.io/v1alpha1", "TrainingJob", "new", spec=SPEC), LABEL
    ),
    "trainingjobs/status, execution": Row(
        None,
        paths.status(JOB_PATH),
        patch={"status": {"execution": {"assignmentID": "u-1", "sequence": 1, "state": "Running"}}},
    ),
    "trainingjobs/status, the rest": Row(None, paths.status(JOB_PATH), patch={"status": {"summary": "tried"}}),
    "computenodes": Row(
        paths.compute_nodes(), NODE_PATH, manifest("cyxwiz.io/v1alpha1", "ComputeNode", "mine", spec={}), LABEL
    ),
    "computenodes/status, inventory": Row(
        None, paths.status(NODE_PATH), patch={"status": {"inventory": {"cpus": 2, "memoryMiB": 1024}}}
    ),
    "computenodes/status, the rest": Row(None, paths.status(NODE_PATH), patch={"status": {"summary": "tried"}}),
    "leases": Row(
        paths.leases(NAMESPACE),
        paths.lease(NAMESPACE, "mine"),
        manifest("coordination.k8s.io/v1", "Lease", "mine", spec={}),
        LABEL,
    ),
    "configmaps/cyxwiz-fair-share": Row(
        CONFIG_MAPS,
        f"{CONFIG_MAPS}/cyxwiz-fair-share",
        manifest("v1", "ConfigMap", "cyxwiz-fair-share", data={}),
        {"data": {"tried": "yes"}},
    ),
    "configmaps": Row(
        CONFIG_MAPS, f"{CONFIG_MAPS}/another", manifest("v1", "ConfigMap", "new", data={}), {"data": {"tried": "yes"}}
    ),
    "endpointslices": Row(
        ENDPOINT_SLICES,
        f"{ENDPOINT_SLICES}/one",
        manifest("discovery.k8s.io/v1", "EndpointSlice", "new", addressType="IPv4", endpoints=[]),
        LABEL,
    ),
    "services/proxy, cyxwiz-agent:logs": Row(None, f"{SERVICES}/cyxwiz-agent:logs/proxy/v1", is_proxy=True),
    "services/proxy, any other": Row(None, f"{SERVICES}/cyxwiz-agent:http/proxy/metrics", is_proxy=True),
    "nodes": Row(paths.nodes(), paths.node("mine"), manifest("v1", "Node", "new"), LABEL),
    "events": Row(
        paths.events(TENANT),
        paths.event(TENANT, "one"),
        {
            **manifest("events.k8s.io/v1", "Event", "new"),
            "eventTime": "2026-01-01T00:00:00.000000Z",
            "reportingController": "test",
            "reportingInstance": "test",
            "action": "Try",
            "reason": "Tried",
            "regarding": {"kind": "TrainingJob", "name": JOB, "namespace": TENANT},
            "type": "Normal",
        },
        LABEL,
    ),
}


class Subject:
    """One token's view of the API server."""

    def __init__(self, server: str, tls: ssl.SSLContext, token: str) -> None:
        self._session = aiohttp.ClientSession(
            base_url=server,
            connector=aiohttp.TCPConnector(ssl=tls, limit=8),
            headers={"Authorization": f"Bearer {token}"},
            timeout=aiohttp.ClientTimeout(total=60),
        )

    async def close(self) -> None:
        await self._session.close()

    async def ask(self, method: str, path: str, body: Any = None, **query: str) -> tuple[int, dict[str, Any]]:
        """Status and answer; of a watch that has begun only the status."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        data = None if body is None else json.dumps(body)
        async with self._session.request(method, path, data=data, params=query, headers={"Content-Type": kind}) as got:
            begun = "watch" in query and got.status == 200
            return got.status, {} if begun else await got.json(content_type=None)

    async def may(self, verb: str, row: Row, present: dict[str, Any]) -> bool:
        """Whether the server would do it. Raises AssertionError for an answer that is neither yes nor a refusal."""
        collection = row.collection or ""
        match verb:
            case "get":
                status, answer = await self.ask("GET", row.path)
            case "list":
                status, answer = await self.ask("GET", collection, limit="1")
            case "watch":
                status, answer = await self.ask("GET", collection, watch="1", timeoutSeconds="1")
            case "create":
                status, answer = await self.ask("POST", collection, row.new, dryRun="All")
            case "update":
                status, answer = await self.ask("PUT", row.path, present, dryRun="All")
            case "patch":
                status, answer = await self.ask("PATCH", row.path, row.patch, dryRun="All")
            case "delete":
                status, answer = await self.ask("DELETE", row.path, dryRun="All")
            case _:
                status, answer = await self.ask("DELETE", collection, dryRun="All")
        if status < 300 or (verb == "create" and answer.get("reason") == "AlreadyExists"):
            return True
        if row.is_proxy and answer.get("reason") in ("NotFound", "ServiceUnavailable"):
            return True
        by_policy = status == 422 and "denied request" in answer["message"]
        assert status == 403 or by_policy, f"{verb} {row.path}: {status} {answer}"
        return False

    async def is_authorized(self, group: str, resource: str, verb: str, namespace: str) -> bool:
        """What RBAC says, which admission policies may narrow further."""
        resource, _, subresource = resource.partition("/")
        attributes = {"group": group, "resource": resource, "subresource": subresource, "verb": verb}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes | {"namespace": namespace}},
        }
        _, answer = await self.ask("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
        return answer["status"]["allowed"]


@pytest.fixture(scope="module")
def tokens(idle: Platform) -> Iterator[dict[str, str]]:
    """A token for each column of the table; the objects of its rows exist."""
    for name in ("mine", "other"):
        idle.apply(node_object(name, {}), agent_pod(name))
    idle.apply(manifest("v1", "Namespace", TENANT))
    idle.apply(
        manifest("cyxwiz.io/v1alpha1", "ComputeNode", "mine", spec={}),
        *(_in(NAMESPACE, manifest("v1", "ConfigMap", name, data={})) for name in ("cyxwiz-fair-share", "another")),
        _in(NAMESPACE, manifest("coordination.k8s.io/v1", "Lease", "mine", spec={})),
        _in(NAMESPACE, ROWS["endpointslices"].new | {"metadata": {"name": "one"}}),
        _in(TENANT, manifest("cyxwiz.io/v1alpha1", "TrainingJob", JOB, spec=SPEC)),
        _in(TENANT, ROWS["events"].new | {"metadata": {"name": "one"}}),
        *(_in(TENANT, manifest("v1", "ServiceAccount", role)) for role in ("view", "edit", "admin")),
        *(_in(TENANT, _role_binding(role)) for role in ("view", "edit", "admin")),
    )
    bound = {"phase": "Bound", "attempt": 1, "assignment": {"id": "u-1", "node": "mine", "intent": "Run"}}
    kubectl = idle.cluster.run_kubectl
    patch = ["--subresource=status", "--type=merge", "-p", json.dumps({"status": bound})]
    kubectl("patch", "tj", JOB, "-n", TENANT, *patch)
    yield {
        "operator": kubectl("create", "token", "cyxwiz-operator", "-n", NAMESPACE),
        "agent": idle.agent_token("mine"),
        "another agent": idle.agent_token("other"),
        "unbound agent": kubectl("create", "token", "cyxwiz-agent", "-n", NAMESPACE),
        **{role: kubectl("create", "token", role, "-n", TENANT) for role in ("view", "edit", "admin")},
        "runner": kubectl("create", "token", "default", "-n", NAMESPACE),
    }
    kubectl("delete", "namespace", TENANT, "--wait=false")
    kubectl("delete", "computenode,node", "mine", "other", "--ignore-not-found")
    kubectl("delete", "lease/mine", "endpointslice/one", "-n", NAMESPACE, "--ignore-not-found")
    kubectl("delete", "configmap", "cyxwiz-fair-share", "another", "-n", NAMESPACE, "--ignore-not-found")
    pods = ("cyxwiz-agent-mine", "cyxwiz-agent-other")
    kubectl("delete", "pod", *pods, "-n", NAMESPACE, "--ignore-not-found", "--force", "--grace-period=0")


@pytest_asyncio.fixture
async def subjects(idle: Platform, tokens: dict[str, str]) -> AsyncIterator[dict[str, Subject]]:
    """A client for each column of the table, once the server enforces the chart's roles and policies."""
    tls = ssl.create_default_context(cafile=str(idle.cluster.ca_file))
    clients = {name: Subject(idle.cluster.server, tls, token.strip()) for name, token in tokens.items()}
    edit, unbound = clients["edit"], clients["unbound agent"]
    jobs, leases = ROWS["trainingjobs"], ROWS["leases"]
    async with asyncio.timeout(60):
        while True:
            if await edit.may("create", jobs, {}) and not await unbound.may("create", leases, {}):
                break
            await asyncio.sleep(0.2)
    yield clients
    for client in clients.values():
        await client.close()


def _in(namespace: str, body: dict[str, Any]) -> dict[str, Any]:
    return body | {"metadata": body["metadata"] | {"namespace": namespace}}


def _role_binding(role: str) -> dict[str, Any]:
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
    subject = {"kind": "ServiceAccount", "name": role, "namespace": TENANT}
    return manifest("rbac.authorization.k8s.io/v1", "RoleBinding", role, roleRef=reference, subjects=[subject])


async def test_every_cell_is_what_the_document_says(idle: Platform, subjects: dict[str, Subject]) -> None:
    async def line(name: str, row: Row) -> str:
        path = row.path.removesuffix("/status")
        present = {} if row.is_proxy else json.loads(idle.cluster.run_kubectl("get", "--raw", path))
        cells = [f"`{name}`"]
        for subject in subjects.values():
            allowed = [verb for verb in row.verbs if await subject.may(verb, row, present)]
            cells.append(", ".join(allowed) or "-")
        return f"| {' | '.join(cells)} |"

    heading = f"| resource | {' | '.join(subjects)} |"
    measured = [heading, *await asyncio.gather(*(line(name, row) for name, row in ROWS.items()))]
    lines = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("|")]
    assert measured == lines[:1] + lines[2:], "\n".join(measured)


@pytest.mark.parametrize("who", ["operator", "agent", "runner"])
async def test_nothing_beyond_the_document_is_allowed(idle: Platform, subjects: dict[str, Subject], who: str) -> None:
    known = {(_group(row.path), name.partition(",")[0].split("/cyxwiz")[0]) for name, row in ROWS.items()}
    questions = [
        (group, resource, verb, namespace)
        for group, resource, verb in [*_served(idle), *ESCALATIONS]
        for namespace in ("", NAMESPACE, TENANT)
        if (group, resource) not in known and (group, resource, verb) not in OF_EVERYBODY
    ]
    assert len(questions) > 1000
    answers = await asyncio.gather(*(subjects[who].is_authorized(*question) for question in questions))
    assert [question for question, yes in zip(questions, answers, strict=True) if yes] == []


def _served(idle: Platform) -> Iterable[tuple[str, str, str]]:
    """Group, resource and verb of everything the server has, as its discovery lists it."""

    def ask(path: str) -> dict[str, Any]:
        return json.loads(idle.cluster.run_kubectl("get", "--raw", path))

    groups = {"": "/api/v1"} | {
        group["name"]: f"/apis/{group['preferredVersion']['groupVersion']}" for group in ask("/apis")["groups"]
    }
    for group, path in groups.items():
        for resource in ask(path)["resources"]:
            for verb in resource["verbs"]:
                yield group, resource["name"], verb


def _group(path: str) -> str:
    return "" if path.startswith("/api/v1/") else path.split("/")[2]
