"""The chart as a real API server sees it, and what its values refuse."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cyxwiz_devcluster import Cluster, DevclusterError, find_or_build
from cyxwiz_operator.reservation_pods import read_settings
from cyxwiz_platform.platform import CHART, NAMESPACE
from cyxwiz_protocol.location import parse_location
from cyxwiz_protocol.volumes import Volumes
from cyxwiz_runner.remote import read_remote
from cyxwiz_store.config import Remote

Object = dict[str, Any]
GPU_WAYS = ("runtimeClass", "privileged", "dra", "none")
STORAGE: Object = yaml.safe_load((CHART.parent / "everything.yaml").read_text())["nodes"]


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(find_or_build("helm")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def render(*settings: str, nodes: Object | None = None) -> list[Object]:
    """Every object of the chart with these `--set` values, tests of the release among them."""
    flags = [flag for setting in settings for flag in ("--set", setting)]
    flags += ["--set-json", f"nodes={json.dumps(nodes)}"] if nodes else []
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
    nodes = STORAGE | {"gpu": {"access": access}}
    flags = ["--namespace", namespace, "--skip-tests", "--set-json", f"nodes={json.dumps(nodes)}"]
    cluster.run_kubectl("label", "namespace", namespace, "resource.kubernetes.io/admin-access=true")
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
        ("nodes.gpu.mode=shared", "mode"),
        ("nodes.gpu.reservation.waitSeconds=1", "waitSeconds"),
        ("runner.uids=everyone", "uids"),
        ("nodes.capacity.memory=lots", "memory"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("runner.graceSeconds=60", "runner.graceSeconds must be less"),
        ("nodes.volumes[0].name=Images", "name"),
        ("nodes.volumes[0].name=images", "give images either a hostPath or an existingClaim"),
        ("nodes.remote.stores[0].scheme=ftp", "scheme"),
        ("nodes.remote.stores[0].secretAccessKey=hunter2", "secretAccessKey"),
        ("nodes.state.existingClaim=state", "give hostPath or existingClaim, not both"),
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


def test_an_operator_keeps_what_it_needs_for_machines_that_are_still_in_mode_reserve() -> None:
    objects = render("nodes.gpu.mode=dedicated", "nodes.gpu.reservation.keep=true")
    assert "--gpu-mode=dedicated" in containers(pod_of(objects, "DaemonSet", "cyxwiz-node"))["agent"]["args"]
    told = containers(pod_of(objects, "Deployment", "cyxwiz-operator"))["operator"]["args"]
    assert "--reservations=/etc/cyxwiz/reservations.json" in told
    assert one(objects, "ClusterRole", "cyxwiz-reservations")["rules"][0]["resources"] == ["pods"]


@pytest.mark.parametrize("mode", ["dedicated", "reserve", "unguarded"])
def test_the_kubelets_answers_are_for_the_agent_alone_and_pods_for_mode_reserve(mode: str, tmp_path: Path) -> None:
    objects = render(f"nodes.gpu.mode={mode}", "nodes.gpu.kubeletDir=/var/lib/k0s/kubelet")
    pod = pod_of(objects, "DaemonSet", "cyxwiz-node")
    folders = {volume["name"]: volume["hostPath"]["path"] for volume in pod["volumes"] if "hostPath" in volume}
    assert folders.get("pod-resources") == (None if mode == "unguarded" else "/var/lib/k0s/kubelet/pod-resources")
    mounting = [name for name, each in containers(pod).items() if "pod-resources" in json.dumps(each["volumeMounts"])]
    assert mounting == ([] if mode == "unguarded" else ["agent"])
    assert f"--gpu-mode={mode}" in containers(pod)["agent"]["args"]
    pods = [rule for each in objects if each["kind"] == "ClusterRole" for rule in each["rules"] if "pods" in str(rule)]
    told = containers(pod_of(objects, "Deployment", "cyxwiz-operator"))["operator"]["args"]
    assert (len(pods), "--reservations=/etc/cyxwiz/reservations.json" in told) == (
        (1, True) if mode == "reserve" else (0, False)
    )
    if mode == "reserve":
        (tmp_path / "file").write_text(one(objects, "ConfigMap", "cyxwiz-reservations")["data"]["reservations.json"])
        settings = read_settings(tmp_path / "file")
        assert settings.priority_class_name == one(objects, "PriorityClass", "cyxwiz-reservation")["metadata"]["name"]
        assert {"key": "cyxwiz.io/dedicated", "operator": "Exists"} in settings.tolerations


def test_a_claim_on_all_gpus_takes_none_from_anybody() -> None:
    objects = render("nodes.gpu.access=dra", "runner.resources.limits.memory=64Gi")
    (request,) = one(objects, "ResourceClaimTemplate", "cyxwiz-node")["spec"]["spec"]["devices"]["requests"]
    assert request["exactly"] == {"deviceClassName": "gpu.nvidia.com", "allocationMode": "All", "adminAccess": True}
    pod = pod_of(objects, "DaemonSet", "cyxwiz-node")
    (claim,) = pod["resourceClaims"]
    assert claim["resourceClaimTemplateName"] == "cyxwiz-node"
    assert all(each["resources"]["claims"] == [{"name": claim["name"]}] for each in pod["containers"])
    assert containers(pod)["runner"]["resources"]["limits"] == {"memory": "64Gi"}


def mounts(pod: Object, container: str) -> dict[str, Object]:
    """What a container mounts, by path, with the volume behind it."""
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    return {mount["mountPath"]: volumes[mount["name"]] | mount for mount in containers(pod)[container]["volumeMounts"]}


def test_a_volume_is_the_folder_that_the_agent_names_and_the_runner_mounts() -> None:
    objects = render(nodes=STORAGE)
    pod = pod_of(objects, "DaemonSet", "cyxwiz-node")
    volumes = Volumes.model_validate_json(one(objects, "ConfigMap", "cyxwiz-node")["data"]["volumes.json"])
    assert "--volumes=/etc/cyxwiz/volumes.json" in containers(pod)["agent"]["args"]
    images, scratch = volumes.named("imagenet"), volumes.named("scratch")
    assert images is not None
    assert scratch is not None
    assert images.is_open_to("vision")
    assert not images.is_open_to("audio")
    assert scratch.is_open_to("audio")
    assert (images.read_only, scratch.read_only) == (True, False)
    seen = mounts(pod, "runner")
    assert seen[images.path]["hostPath"]["path"] == "/mnt/imagenet"
    assert seen[images.path]["readOnly"] is True
    assert seen[scratch.path]["persistentVolumeClaim"] == {"claimName": "scratch", "readOnly": False}
    assert seen[scratch.path]["readOnly"] is False
    assert not mounts(pod, "agent").keys() & {images.path, scratch.path}


def test_keys_of_a_store_come_from_its_secret_and_stand_in_no_configuration(tmp_path: Path) -> None:
    objects = render(nodes=STORAGE)
    pod = pod_of(objects, "DaemonSet", "cyxwiz-node")
    text = one(objects, "ConfigMap", "cyxwiz-node")["data"]["remote.json"]
    (folder,) = (store["credentials"] for store in json.loads(text)["stores"] if "credentials" in store)
    secret = mounts(pod, "runner")[folder]["secret"]
    assert secret == {"secretName": "models", "defaultMode": 0o400}, "jobs have uids of their own"
    assert folder not in mounts(pod, "agent")

    for name, key in {"accessKeyId": "AK", "secretAccessKey": "hunter2"}.items():
        (tmp_path / name).write_text(key)
    (tmp_path / "remote.json").write_text(text.replace(folder, str(tmp_path)))
    remote = Remote.model_validate(read_remote(tmp_path / "remote.json"))
    store = remote.store_for(parse_location("s3://models/weights.safetensors"), "default")
    assert store.access_key_id == "AK"
    assert remote.cache_bytes == 200 * 2**30
    assert remote.certificates is not None
    assert str(Path(remote.certificates).parent) in mounts(pod, "runner")
    assert {"10.20.0.0/16", "[minio]:9000"} <= set(remote.allowed)


def test_a_claim_for_the_state_has_a_folder_for_each_machine() -> None:
    pod = pod_of(render(nodes=STORAGE), "DaemonSet", "cyxwiz-node")
    for container in ("agent", "runner"):
        state = mounts(pod, container)["/var/lib/cyxwiz"]
        assert state["persistentVolumeClaim"] == {"claimName": "state"}
        assert state["subPathExpr"] == "$(NODE_NAME)"
        assert "NODE_NAME" in {each["name"] for each in containers(pod)[container]["env"]}


@pytest.mark.parametrize(
    ("level", "kind", "name", "taken"),
    [
        ("restricted", "Deployment", "cyxwiz-operator", True),
        ("restricted", "Pod", "cyxwiz-test", True),
        ("baseline", "DaemonSet", "cyxwiz-node", False),
        ("privileged", "DaemonSet", "cyxwiz-node", True),
    ],
)
def test_what_pod_security_asks_of_the_namespace(
    cluster: Cluster, namespace: str, level: str, kind: str, name: str, taken: bool
) -> None:
    """docs/install.md and the chart's notes say `privileged`, for the nodes' pods alone."""
    cluster.run_kubectl("label", "namespace", namespace, f"pod-security.kubernetes.io/enforce={level}")
    found = one(render(), kind, name)
    spec = found["spec"] if kind == "Pod" else found["spec"]["template"]["spec"]
    spec = {key: value for key, value in spec.items() if key not in ("serviceAccountName", "priorityClassName")}
    spec.pop("runtimeClassName", None)
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": namespace}, "spec": spec}
    create = ["create", "--dry-run=server", "-o", "name", "-f", "-"]
    if taken:
        assert cluster.run_kubectl(*create, input=json.dumps(pod)).strip() == "pod/p"
    else:
        with pytest.raises(DevclusterError, match="violates PodSecurity"):
            cluster.run_kubectl(*create, input=json.dumps(pod))


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
