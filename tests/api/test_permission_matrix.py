"""Every verb on every resource with every kind of token, compared cell by cell with the table of docs/permissions.md.

Writes are sent with `dryRun=All`: authorization, schema and admission policies answer, and nothing changes.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from cyxwiz_crds import TrainingJob
from cyxwiz_devcluster import find_or_build
from cyxwiz_kube import paths
from cyxwiz_operator.reservation_pods import ReservationSettings, pod_body
from cyxwiz_operator.views import JobView
from cyxwiz_platform import Platform
from cyxwiz_platform.platform import CHART, NAMESPACE, agent_pod, node_object
from tests.api.subjects import Row, Subject

DOCUMENT = Path(__file__).parents[2] / "docs" / "permissions.md"
TENANT = "matrix-tenant"
JOB = "on-mine"
RESERVING = "(mode reserve)"
IMAGE = "registry.example/pause:1"
RESERVATIONS = (
    "priorityclass/cyxwiz-reservation",
    *(f"{kind}/cyxwiz-reservations" for kind in ("clusterrolebinding", "clusterrole")),
    *(f"validatingadmissionpolicy{kind}/cyxwiz-reservations" for kind in ("binding", "")),
)
SETTINGS = ReservationSettings.model_validate({"resourceName": "nvidia.com/gpu", "image": IMAGE})
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


def manifest(api_version: str, kind: str, name: str, **rest: Any) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}} | rest


def plain_pod(name: str, **spec: Any) -> dict[str, Any]:
    return manifest("v1", "Pod", name, spec={"containers": [{"name": "main", "image": IMAGE}], **spec})


def reservation(assignment: str) -> dict[str, Any]:
    """The pod that the operator makes for this assignment of a job whose uid is `u`."""
    job = manifest("cyxwiz.io/v1alpha1", "TrainingJob", "holds", spec=SPEC)
    job["metadata"] |= {"uid": "u", "namespace": TENANT}
    bound = {"id": assignment, "node": "mine", "gpus": ["GPU-0"], "reservation": f"cyxwiz-{assignment}"}
    view = JobView(TrainingJob.model_validate(job | {"status": {"phase": "Bound", "assignment": bound}}))
    assert view.status.assignment is not None
    return pod_body(view, view.status.assignment, SETTINGS)


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
    f"pods, a reservation {RESERVING}": Row(
        paths.pods(TENANT), paths.pod(TENANT, "cyxwiz-u-1"), reservation("u-2"), LABEL
    ),
    f"pods, any other {RESERVING}": Row(paths.pods(TENANT), paths.pod(TENANT, "plain"), plain_pod("new"), LABEL),
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
        # Without an owner, which the garbage collector would miss.
        _in(TENANT, _labelled(plain_pod("cyxwiz-u-1", serviceAccountName="view"), "u-1")),
        _in(TENANT, plain_pod("plain", serviceAccountName="view")),
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
    kubectl("delete", *RESERVATIONS, "--ignore-not-found")
    kubectl("delete", "configmap", "cyxwiz-reservations", "-n", NAMESPACE, "--ignore-not-found")
    kubectl("delete", "pod", *pods, "-n", NAMESPACE, "--ignore-not-found", "--force", "--grace-period=0")


async def enforced(allowed: Subject, row: Row, refused: Subject, other: Row) -> None:
    """The server lets `allowed` create what `row` has, and `refused` not what `other` has."""
    async with asyncio.timeout(60):
        while True:
            if await allowed.may("create", row, {}) and not await refused.may("create", other, {}):
                return
            await asyncio.sleep(0.2)


@pytest_asyncio.fixture
async def subjects(idle: Platform, tokens: dict[str, str]) -> AsyncIterator[dict[str, Subject]]:
    """A client for each column of the table, once the server enforces the chart's roles and policies."""
    tls = ssl.create_default_context(cafile=str(idle.cluster.ca_file))
    clients = {name: Subject(idle.cluster.server, tls, token.strip()) for name, token in tokens.items()}
    await enforced(clients["edit"], ROWS["trainingjobs"], clients["unbound agent"], ROWS["leases"])
    yield clients
    for client in clients.values():
        await client.close()


def of_mode_reserve() -> list[dict[str, Any]]:
    """What the chart adds to permissions in mode reserve."""
    flags = ["operator.enabled=false", "nodes.enabled=false", "nodes.gpu.mode=reserve"]
    flags += [f"nodes.gpu.reservation.image={IMAGE}"]
    helm = [str(find_or_build("helm")), "template", "cyxwiz", str(CHART), "--namespace", NAMESPACE]
    answer = subprocess.run([*helm, "--set", ",".join(flags)], capture_output=True, text=True, check=True)
    objects = [each for each in yaml.safe_load_all(answer.stdout) if each]
    return [each for each in objects if each["metadata"]["name"].startswith("cyxwiz-reservation")]


@pytest_asyncio.fixture
async def reserving(idle: Platform, subjects: dict[str, Subject]) -> dict[str, Subject]:
    """The same, once the server enforces what the chart adds in mode reserve."""
    idle.apply(*of_mode_reserve())
    operator = subjects["operator"]
    ours, others = (ROWS[f"pods, {which} {RESERVING}"] for which in ("a reservation", "any other"))
    await enforced(operator, ours, operator, others)
    return subjects


def _labelled(pod: dict[str, Any], assignment: str) -> dict[str, Any]:
    return pod | {"metadata": pod["metadata"] | {"labels": {"cyxwiz.io/assignment": assignment}}}


def _in(namespace: str, body: dict[str, Any]) -> dict[str, Any]:
    return body | {"metadata": body["metadata"] | {"namespace": namespace}}


def _role_binding(role: str) -> dict[str, Any]:
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
    subject = {"kind": "ServiceAccount", "name": role, "namespace": TENANT}
    return manifest("rbac.authorization.k8s.io/v1", "RoleBinding", role, roleRef=reference, subjects=[subject])


@pytest.mark.parametrize("who", ["operator", "agent", "runner"])
async def test_nothing_beyond_the_document_is_allowed(idle: Platform, subjects: dict[str, Subject], who: str) -> None:
    """Without mode reserve, which the tests below switch on for good."""
    assert await _allowed(idle, subjects[who], [name for name in ROWS if RESERVING not in name]) == []


async def test_nothing_beyond_the_document_is_allowed_in_mode_reserve(
    idle: Platform, reserving: dict[str, Subject]
) -> None:
    assert await _allowed(idle, reserving["operator"], list(ROWS)) == []


async def _allowed(idle: Platform, subject: Subject, rows: Sequence[str]) -> list[tuple[str, str, str, str]]:
    """What the server would let this token do beside these rows of the table."""
    known = {(_group(ROWS[name].path), name.partition(",")[0].split("/cyxwiz")[0]) for name in rows}
    questions = [
        (group, resource, verb, namespace)
        for group, resource, verb in [*_served(idle), *ESCALATIONS]
        for namespace in ("", NAMESPACE, TENANT)
        if (group, resource) not in known and (group, resource, verb) not in OF_EVERYBODY
    ]
    assert len(questions) > 1000
    answers = await asyncio.gather(*(subject.is_authorized(*question) for question in questions))
    return [question for question, yes in zip(questions, answers, strict=True) if yes]


async def test_every_cell_is_what_the_document_says(idle: Platform, reserving: dict[str, Subject]) -> None:
    async def line(name: str, row: Row) -> str:
        path = row.path.removesuffix("/status")
        present = {} if row.is_proxy else json.loads(idle.cluster.run_kubectl("get", "--raw", path))
        cells = [f"`{name}`"]
        for subject in reserving.values():
            allowed = [verb for verb in row.verbs if await subject.may(verb, row, present)]
            cells.append(", ".join(allowed) or "-")
        return f"| {' | '.join(cells)} |"

    heading = f"| resource | {' | '.join(reserving)} |"
    measured = [heading, *await asyncio.gather(*(line(name, row) for name, row in ROWS.items()))]
    lines = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("|")]
    assert measured == lines[:1] + lines[2:], "\n".join(measured)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("metadata", "labels"), {}, "no others"),
        (("metadata", "name"), "another", "no others"),
        (("metadata", "ownerReferences"), [], "belongs to the job"),
        (("spec", "containers", 0, "image"), "evil", "the image that the chart names"),
        (("spec", "containers", 0, "command"), ["sh"], "nothing to run of its own"),
        (("spec", "initContainers"), [{"name": "a", "image": IMAGE}], "one container"),
        (("spec", "hostNetwork"), True, "nothing of its machine's"),
        (("spec", "automountServiceAccountToken"), True, "no token"),
        (("spec", "volumes"), [{"name": "root", "hostPath": {"path": "/"}}], "no volumes"),
        (("spec", "containers", 0, "securityContext", "privileged"), True, "cannot set `allowPrivilegeEscalation`"),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else "",
)
async def test_a_reservation_that_could_do_anything_is_refused(
    reserving: dict[str, Subject], path: tuple[str | int, ...], value: Any, said: str
) -> None:
    pod = reservation("u-3")
    place: Any = pod
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    status, answer = await reserving["operator"].ask("POST", paths.pods(TENANT), pod, dryRun="All")
    assert (status, said in answer["message"]) == (422, True), answer


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
