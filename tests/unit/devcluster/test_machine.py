"""What a machine's components are told; the machine itself is started by tests/cluster."""

from __future__ import annotations

import ipaddress
import json
import tomllib
from pathlib import Path

import pytest
import yaml

from cyxwiz_devcluster.machine import components, requirements, runtime
from cyxwiz_devcluster.machine.images import pip_configuration
from cyxwiz_devcluster.machine.place import NodePlace


def test_containerd_keeps_everything_below_its_folder() -> None:
    config = tomllib.loads(runtime.containerd_config(Path("/state/containerd")))
    assert config["root"] == "/state/containerd/root"
    assert config["grpc"]["address"] == "/state/containerd/containerd.sock"
    runtime_plugin = config["plugins"]["io.containerd.grpc.v1.cri"]
    assert runtime_plugin["cni"]["conf_dir"] == "/state/containerd/cni"
    assert runtime_plugin["sandbox_image"] == runtime.PAUSE_IMAGE


def places(folder: Path) -> list[NodePlace]:
    return [NodePlace(name, folder / name, number) for number, name in enumerate(("first", "second", "third"))]


def test_pods_get_addresses_of_the_range_that_kube_proxy_knows(tmp_path: Path) -> None:
    for place in places(tmp_path):
        place.folder.mkdir()
        bridge = json.loads(runtime.network_config(place.containerd, place.pod_cidr))["plugins"][0]
        assert bridge["ipam"]["ranges"] == [[{"subnet": place.pod_cidr}]]
        components.proxy_command(Path("kube-proxy"), place, tmp_path / "kubeconfig")
        known = yaml.safe_load((place.folder / "kube-proxy.yaml").read_text())["clusterCIDR"]
        assert ipaddress.IPv4Network(place.pod_cidr).subnet_of(ipaddress.IPv4Network(known))


def test_nodes_share_neither_addresses_nor_groups_nor_names_of_processes(tmp_path: Path) -> None:
    nodes = places(tmp_path)
    told = [(each.address, each.gateway, each.pod_cidr, each.cgroup_root, each.process("kubelet")) for each in nodes]
    assert all(len(set(column)) == len(nodes) for column in zip(*told, strict=True))


def test_a_kubelet_is_told_its_own_folder_address_and_groups(tmp_path: Path) -> None:
    place = places(tmp_path)[1]
    command = components.kubelet_command(Path("kubelet"), place, tmp_path / "kubeconfig", tmp_path / "ca.crt")
    assert {"--hostname-override=second", "--node-ip=10.250.1.2"} <= set(command)
    config = yaml.safe_load((place.folder / "kubelet" / "config.yaml").read_text())
    assert config["cgroupRoot"] == "/cyxwiz-second"
    assert config["containerRuntimeEndpoint"] == f"unix://{place.containerd}/containerd.sock"


def test_what_is_missing_is_said_as_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(requirements, "_has_capability", lambda bit: True)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda program, path: None if program in ("ctr", "containerd") else program)
    monkeypatch.setattr(requirements, "CNI_PLUGINS", tmp_path)
    said = requirements.why_not()
    assert said == "it needs Debian's packages containerd containernetworking-plugins: apt-get install them"


def test_nobody_but_root_starts_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "root" in (requirements.why_not() or "")


def test_a_build_asks_the_same_package_index_as_its_surroundings() -> None:
    environ = {"PIP_INDEX_URL": "https://index.site/simple", "PIP_CERT": "/ca.pem", "PIP_NO_INPUT": "1"}
    assert pip_configuration(environ) == "[global]\nindex-url = https://index.site/simple\ncert = /ca.pem\n"
    assert pip_configuration({}) == "[global]\n"
