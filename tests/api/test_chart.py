"""The chart as a real API server sees it, and what its values refuse."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from cyxwiz_devcluster import Cluster, find_or_build
from cyxwiz_platform.platform import CHART, NAMESPACE

Object = dict[str, Any]
GPU_WAYS = ("runtimeClass", "privileged", "cdi", "none")


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(find_or_build("helm")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def render(*settings: str) -> list[Object]:
    """Every object of the chart with these `--set` values, tests of the release among them."""
    flags = [flag for setting in settings for flag in ("--set", setting)]
    answer = helm("template", "cyxwiz", str(CHART), "--namespace", NAMESPACE, *flags)
    assert answer.returncode == 0, answer.stderr
    return [document for document in yaml.safe_load_all(answer.stdout) if document]


def one(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = (each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


def pod_of(objects: list[Object], kind: str, name: str) -> Object:
    return one(objects, kind, name)["spec"]["template"]["spec"]


def containers(pod: Object) -> dict[str, Object]:
    return {each["name"]: each for each in pod["containers"]}


def test_the_chart_passes_helms_own_lint() -> None:
    answer = helm("lint", "--strict", str(CHART))
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize("access", GPU_WAYS)
def test_the_api_server_takes_every_object_of_the_chart(cluster: Cluster, namespace: str, access: str) -> None:
    """Strictly: a field that it does not know fails."""
    flags = ["--namespace", namespace, "--skip-tests", "--set", f"nodes.gpu.access={access}"]
    answer = helm("template", "cyxwiz", str(CHART), *flags)
    assert answer.returncode == 0, answer.stderr
    apply = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-o", "name"]
    taken = cluster.run_kubectl(*apply, "-f", "-", input=answer.stdout)
    assert "daemonset.apps/cyxwiz-node" in taken


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("operater.logLevel=INFO", "operater"),
        ("operator.loglevel=INFO", "loglevel"),
        ("nodes.gpu.access=all", "access"),
        ("runner.uids=everyone", "uids"),
        ("nodes.capacity.memory=lots", "memory"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("runner.graceSeconds=60", "runner.graceSeconds must be less"),
    ],
)
def test_a_wrong_value_fails_with_its_name(setting: str, said: str) -> None:
    answer = helm("template", "cyxwiz", str(CHART), "--set", setting)
    assert answer.returncode != 0
    assert said in answer.stderr


def test_one_value_moves_every_image_to_another_registry() -> None:
    objects = render("image.registry=registry.site/mirror/", "image.tag=v7")
    pods = [
        each["spec"] if each["kind"] == "Pod" else each["spec"]["template"]["spec"]
        for each in objects
        if each["kind"] in ("Deployment", "DaemonSet", "Pod")
    ]
    images = {each["image"] for pod in pods for each in pod["containers"] + pod.get("initContainers", [])}
    assert images == {f"registry.site/mirror/cyxwiz-{part}:v7" for part in ("operator", "agent", "runner")}


def test_the_token_is_mounted_in_the_agents_container_alone() -> None:
    pod = pod_of(render("nodes.datasets.hostPath=/srv/data"), "DaemonSet", "cyxwiz-node")
    assert pod["automountServiceAccountToken"] is False
    (token,) = (volume["name"] for volume in pod["volumes"] if "projected" in volume)
    mounting = [
        each["name"]
        for each in pod["containers"] + pod["initContainers"]
        if token in {mount["name"] for mount in each["volumeMounts"]}
    ]
    assert mounting == ["agent"]


@pytest.mark.parametrize("kind", ["Deployment", "DaemonSet"])
def test_no_container_may_write_its_image_or_gain_privileges(kind: str) -> None:
    name = {"Deployment": "cyxwiz-operator", "DaemonSet": "cyxwiz-node"}[kind]
    pod = pod_of(render(), kind, name)
    for container in pod["containers"] + pod.get("initContainers", []):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"]["drop"] == ["ALL"]
        assert ("add" in context["capabilities"]) == (container["name"] == "runner")


def test_the_ways_to_gpus() -> None:
    def pod(access: str) -> Object:
        return pod_of(render(f"nodes.gpu.access={access}"), "DaemonSet", "cyxwiz-node")

    def sees_all(pod: Object) -> bool:
        variables = [each.get("env", []) for each in pod["containers"]]
        return all({"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"} in env for env in variables)

    by_class, privileged, none = pod("runtimeClass"), pod("privileged"), pod("none")
    assert by_class["runtimeClassName"] == "nvidia"
    assert sees_all(by_class)
    assert sees_all(privileged)
    assert all(each["securityContext"].get("privileged") for each in privileged["containers"])
    assert "runtimeClassName" not in none
    assert not sees_all(none)
    annotated = one(render("nodes.gpu.access=cdi"), "DaemonSet", "cyxwiz-node")["spec"]["template"]["metadata"]
    assert annotated["annotations"]["cdi.k8s.io/cyxwiz"] == "nvidia.com/gpu=all"


def test_definitions_are_kept_on_uninstall() -> None:
    definitions = [each for each in render() if each["kind"] == "CustomResourceDefinition"]
    assert len(definitions) == 2
    assert all(each["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for each in definitions)


def test_every_value_is_in_the_schema_and_every_property_has_a_default() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())

    def check(value: Object, node: Object, path: str) -> None:
        assert node["additionalProperties"] is False, path
        unset = set(node["properties"]) - set(value) - {"global", "requests", "limits", "claims"}
        assert not unset, f"{path}: {unset} has no default"
        for key, inner in value.items():
            assert key in node["properties"], f"{path}.{key} is not in the schema"
            if node["properties"][key].get("additionalProperties") is False:
                check(inner, node["properties"][key], f"{path}.{key}")

    check(values, schema, "values")


def test_a_tenant_writes_jobs_and_no_status(cluster: Cluster, namespace: str) -> None:
    kubectl = cluster.run_kubectl
    roles = [
        each for each in render() if each["kind"] == "ClusterRole" and each["metadata"]["name"].startswith("cyxwiz-")
    ]
    definitions = [each for each in render() if each["kind"] == "CustomResourceDefinition"]
    kubectl("apply", "--server-side", "-f", "-", input=yaml.safe_dump_all([*roles, *definitions]))
    kubectl("create", "rolebinding", "edit", "--clusterrole=edit", "--user=ann", "-n", namespace)
    kubectl("create", "rolebinding", "view", "--clusterrole=view", "--user=bob", "-n", namespace)

    def may(user: str, verb: str, resource: str, *flags: str) -> bool:
        said = kubectl("auth", "can-i", verb, resource, *flags, "-n", namespace, f"--as={user}", check=False)
        return said.strip() == "yes"

    wait_until(lambda: may("ann", "create", "trainingjobs.cyxwiz.io"))  # a controller fills the aggregated roles
    wait_until(lambda: may("bob", "list", "trainingjobs.cyxwiz.io"))
    assert may("ann", "delete", "trainingjobs.cyxwiz.io")
    assert not may("bob", "create", "trainingjobs.cyxwiz.io")
    for user in ("ann", "bob"):
        assert not may(user, "patch", "trainingjobs.cyxwiz.io", "--subresource=status")
        assert not may(user, "update", "trainingjobs.cyxwiz.io", "--subresource=status")


def wait_until(condition: Callable[[], bool], within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)
