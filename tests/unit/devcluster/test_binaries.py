"""Which binaries are taken, and where built ones are kept."""

import json
import shutil
from pathlib import Path

import pytest

from cyxwiz_devcluster import DevclusterError, binaries, build
from cyxwiz_devcluster.build import Module


def kubectl_says(version: str) -> str:
    return json.dumps({"clientVersion": {"gitVersion": version}})


def make_module(folder: Path, go_sum: str = "h1:abc\n") -> Module:
    folder.mkdir()
    (folder / "go.mod").write_text("module example\n\ngo 1.26.0\n\nrequire k8s.io/kubernetes v1.36.3\n")
    (folder / "go.sum").write_text(go_sum)
    return Module(folder)


@pytest.mark.parametrize(
    ("name", "said", "expected"),
    [
        ("kubectl", kubectl_says("v1.36.3"), True),
        ("kubectl", kubectl_says("v1.35.0"), True),
        ("kubectl", kubectl_says("v1.37.1+k3s1"), True),
        ("kubectl", kubectl_says("v1.34.9"), False),
        ("kubectl", kubectl_says("v1.38.0"), False),
        ("kubectl", kubectl_says("v1.32.4-dispatcher"), False),
        ("kubectl", kubectl_says("v1.36.4-dispatcher"), False),
        ("kubectl", "error: unknown flag", False),
        ("kubectl", "{}", False),
        ("kube-apiserver", "Kubernetes v1.36.0", True),
        ("kube-apiserver", "Kubernetes v1.35.4", False),
        ("kube-controller-manager", "Kubernetes v1.37.0", False),
        ("etcd", "etcd Version: 3.6.12\nGit SHA: Not provided", True),
        ("etcd", "etcd Version: 3.4.30", False),
        ("helm", "v4.3.1", True),
        ("helm", "v3.19.0", True),
        ("helm", "v2.17.0", False),
        ("helm", "", False),
        ("promtool", "promtool, version 3.16.0 (branch: HEAD)", True),
        ("prometheus", "prometheus, version 2.53.4 (branch: HEAD)", False),
    ],
)
def test_a_ready_made_binary_is_taken_when_its_version_fits(name: str, said: str, expected: bool) -> None:
    assert binaries.fits(name, said, kubernetes=(1, 36)) is expected


def test_the_cache_folder_changes_with_the_module_files_and_with_go(tmp_path: Path) -> None:
    environ = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    one, other = make_module(tmp_path / "one"), make_module(tmp_path / "other", go_sum="h1:def\n")
    folders = {
        build.cache_folder(one, "go1.26.8", environ),
        build.cache_folder(one, "go1.27.0", environ),
        build.cache_folder(other, "go1.26.8", environ),
    }
    assert len(folders) == 3
    assert all(folder.parent == tmp_path / "cache" / "cyxwiz" / "devcluster" for folder in folders)


def test_the_cache_folder_does_not_depend_on_where_the_checkout_is(tmp_path: Path) -> None:
    one = make_module(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "moved")
    assert build.cache_folder(one, "go1.26.8", {}) == build.cache_folder(Module(tmp_path / "moved"), "go1.26.8", {})


def test_the_cache_is_below_home_without_xdg(tmp_path: Path) -> None:
    assert build.cache_root({"HOME": str(tmp_path)}) == tmp_path / ".cache" / "cyxwiz" / "devcluster"


def test_a_binary_counts_as_built_only_with_the_size_written_down_after_its_build(tmp_path: Path) -> None:
    binary = tmp_path / "etcd"
    assert not build.is_complete(binary)
    binary.write_bytes(b"12345")
    assert not build.is_complete(binary)
    (tmp_path / "etcd.size").write_text("5")
    assert build.is_complete(binary)
    binary.write_bytes(b"123")
    assert not build.is_complete(binary)


def test_kubernetes_binaries_are_stamped_with_the_version_that_go_mod_requires() -> None:
    version = binaries.KUBERNETES.version_of("k8s.io/kubernetes")
    flags = binaries.tool("kubectl").linker_flags()
    assert f"-X k8s.io/client-go/pkg/version.gitVersion={version}" in flags
    assert f"-X k8s.io/component-base/version.gitVersion={version}" in flags
    assert "-X k8s.io/component-base/version.gitMinor=36" in flags


def test_every_name_is_a_tool_of_its_module() -> None:
    for name in binaries.NAMES:
        tool = binaries.tool(name)
        assert tool.package in tool.module.text(), name


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(DevclusterError, match=r"no binary 'kubeadm'.*etcd.*helm"):
        binaries.tool("kubeadm")


def test_a_missing_go_module_is_one_sentence_with_advice(tmp_path: Path) -> None:
    with pytest.raises(DevclusterError, match="install this package from a checkout"):
        build.module_hash(Module(tmp_path / "nowhere"))


def test_a_build_is_refused_below_8_gb_of_free_disk(tmp_path: Path) -> None:
    build.require_free_disk({tmp_path: 8_000_000_000})
    with pytest.raises(DevclusterError, match=r"needs 8 GB of free disk and .* has 7\.9 GB: free some"):
        build.require_free_disk({tmp_path: 7_900_000_000})
