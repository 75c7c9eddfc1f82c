"""What the operator may do with pods in mode reserve: make and delete those of its jobs' reservations, no others."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from copy import deepcopy
from typing import Any

import pytest
import pytest_asyncio
import yaml

from cyxwiz_crds import TrainingJob
from cyxwiz_devcluster import find_or_build
from cyxwiz_kube import ApiError, Forbidden, Invalid, Kube, paths
from cyxwiz_operator.reservation_pods import ReservationSettings, pod_body
from cyxwiz_operator.views import JobView
from cyxwiz_platform import Platform
from cyxwiz_platform.platform import CHART, NAMESPACE

REFUSALS = (Forbidden, Invalid)
IMAGE = "registry.example/pause:1"
SETTINGS = ReservationSettings.model_validate({"resourceName": "nvidia.com/gpu", "image": IMAGE})
Object = dict[str, Any]


def rendered() -> list[Object]:
    """What the chart adds in mode reserve."""
    flags = ["--set", f"operator.enabled=false,nodes.enabled=false,nodes.gpu.mode=reserve,{_image()}"]
    helm = [str(find_or_build("helm")), "template", "cyxwiz", str(CHART), "--namespace", NAMESPACE, *flags]
    answer = subprocess.run(helm, capture_output=True, text=True, check=True)
    objects = [each for each in yaml.safe_load_all(answer.stdout) if each]
    return [each for each in objects if each["metadata"]["name"].startswith("cyxwiz-reservation")]


def _image() -> str:
    return f"nodes.gpu.reservation.image={IMAGE}"


@pytest_asyncio.fixture
async def operator(idle: Platform) -> AsyncIterator[Kube]:
    """A client with the operator's token, once the roles and the policy of mode reserve are enforced."""
    objects = rendered()
    idle.apply(*objects)
    token = idle.cluster.run_kubectl("create", "token", "cyxwiz-operator", "-n", NAMESPACE).strip()
    kubeconfig = idle.cluster.kubeconfig_for_token(token, idle.folder / "reserving.kubeconfig")
    try:
        async with await Kube.connect(kubeconfig=kubeconfig, user_agent="cyxwiz-tests") as kube:
            async with asyncio.timeout(30):
                while True:
                    if await _refused_by_the_policy(kube):
                        break
                    await asyncio.sleep(0.2)
            yield kube
    finally:
        for each in objects:
            name, kind = each["metadata"]["name"], each["kind"]
            idle.cluster.run_kubectl("delete", kind, name, "-n", NAMESPACE, "--ignore-not-found")


async def _refused_by_the_policy(kube: Kube) -> bool:
    """The API server takes up new roles and policies some moments after they were created."""
    try:
        await kube.create(paths.pods(NAMESPACE), plain_pod("probe"))
    except REFUSALS as error:
        return "pods of its jobs' reservations" in error.message
    except ApiError:
        pass
    return False


def plain_pod(name: str) -> Object:
    containers = [{"name": "main", "image": IMAGE}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": containers}}


async def reservation(admin: Kube, namespace: str) -> Object:
    """The pod of a job that exists."""
    spec = {"model": {"name": "cnn"}, "dataset": {"uri": "builtin://digits"}, "resources": {"gpus": 1}}
    body = {"apiVersion": "cyxwiz.io/v1alpha1", "kind": "TrainingJob", "metadata": {"name": "holds"}, "spec": spec}
    made = await admin.create(paths.training_jobs(namespace), body)
    assignment = {"id": f"{made['metadata']['uid']}-1", "node": "n", "gpus": ["GPU-0"], "reservation": "x"}
    job = JobView(TrainingJob.model_validate(made | {"status": {"phase": "Bound", "assignment": assignment}}))
    assert job.status.assignment is not None
    return pod_body(job, job.status.assignment, SETTINGS)


async def test_the_operator_makes_and_deletes_the_pod_of_a_reservation(
    operator: Kube, admin: Kube, namespace: str
) -> None:
    made = await operator.create(paths.pods(namespace), await reservation(admin, namespace))
    path = paths.pod(namespace, made["metadata"]["name"])
    await operator.delete(path, uid=made["metadata"]["uid"], grace_s=1)
    with pytest.raises(Forbidden):
        await operator.get(path)


def _changed(pod: Object, *path: str | int, value: Any) -> Object:
    changed = deepcopy(pod)
    place: Any = changed
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return changed


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
async def test_a_pod_that_could_do_anything_is_refused(
    operator: Kube, admin: Kube, namespace: str, path: tuple[str | int, ...], value: Any, said: str
) -> None:
    pod = _changed(await reservation(admin, namespace), *path, value=value)
    with pytest.raises(REFUSALS, match=said):
        await operator.create(paths.pods(namespace), pod)


async def test_the_operator_cannot_delete_somebody_elses_pod(operator: Kube, admin: Kube, namespace: str) -> None:
    made = await admin.create(paths.pods(namespace), plain_pod("theirs"))
    with pytest.raises(REFUSALS, match="no others"):
        await operator.delete(paths.pod(namespace, "theirs"), uid=made["metadata"]["uid"])
