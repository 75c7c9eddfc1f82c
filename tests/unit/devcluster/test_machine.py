"""What a machine's components are told; the machine itself is started by tests/cluster."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import yaml

from cyxwiz_devcluster.machine import components, requirements, runtime
from cyxwiz_devcluster.machine.images import pip_configuration


def test_containerd_keeps_everything_below_its_folder() -> None:
    config = tomllib.loads(runtime.containerd_config(Path("/state/containerd")))
    assert config["root"] == "/state/containerd/root"
    assert config["grpc"]["address"] == "/state/containerd/containerd.sock"
    runtime_plugin = config["plugins"]["io.containerd.grpc.v1.cri"]
    assert runtime_plugin["cni"]["conf_dir"] == "/state/containerd/cni"
    assert runtime_plugin["sandbox_image"] == runtime.PAUSE_IMAGE


def test_pods_get_addresses_of_the_range_that_kube_proxy_knows(tmp_path: Path) -> None:
    bridge = json.loads(runtime.network_config())["plugins"][0]
    assert bridge["ipam"]["ranges"] == [[{"subnet": runtime.POD_CIDR}]]
    components.proxy_command(Path("kube-proxy"), tmp_path, tmp_path / "kubeconfig", "machine")
    assert yaml.safe_load((tmp_path / "kube-proxy.yaml").read_text())["clusterCIDR"] == runtime.POD_CIDR


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
