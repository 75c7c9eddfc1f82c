"""Finds the binaries of a control plane: ready-made ones whose version fits, else built from our Go modules."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from . import build as builder
from .build import Log, Module, Tool
from .console import tell
from .errors import DevclusterError

KUBERNETES = Module(Path(__file__).resolve().parent.parent)
HELM = Module(KUBERNETES.folder / "helm")  # a module of its own: it wants other versions of the same libraries
# Without the clients of every cloud, which are most of it: the targets of a test are told by their addresses.
PROMETHEUS = Module(KUBERNETES.folder / "prometheus", tags="remove_all_sd")
KUBECONFORM = Module(KUBERNETES.folder / "kubeconform")

KUBERNETES_COMMANDS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kubectl",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
)
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
PROMETHEUS_COMMANDS = ("prometheus", "promtool")
NAMES = ("etcd", *KUBERNETES_COMMANDS, "helm", "kubeconform", *PROMETHEUS_COMMANDS)

# How each binary is asked for its version.
VERSION_ARGUMENTS = {
    "kubectl": ("version", "--client", "-o", "json"),
    "helm": ("version", "--template", "{{.Version}}"),
    "kubeconform": ("-v",),
}
ON_PATH = ("kubectl", "helm")  # the two that people have installed; servers are never taken from PATH by chance


def tool(name: str) -> Tool:
    """How one of `NAMES` is built."""
    if name == "etcd":
        return Tool(name, "go.etcd.io/etcd/server/v3", KUBERNETES, {})
    if name == "helm":
        version = HELM.version_of("helm.sh/helm/v4")
        return Tool(name, "helm.sh/helm/v4/cmd/helm", HELM, {"helm.sh/helm/v4/internal/version.version": version})
    if name == "kubeconform":
        version = KUBECONFORM.version_of("github.com/yannh/kubeconform")
        return Tool(name, "github.com/yannh/kubeconform/cmd/kubeconform", KUBECONFORM, {"main.version": version})
    if name in PROMETHEUS_COMMANDS:
        return Tool(name, f"github.com/prometheus/prometheus/cmd/{name}", PROMETHEUS, {})
    if name not in KUBERNETES_COMMANDS:
        raise DevclusterError(f"There is no binary {name!r} here: name one of {', '.join(NAMES)}.")
    version = KUBERNETES.version_of("k8s.io/kubernetes")
    major, minor = _release(version) or (0, 0)
    # Without the stamp every client reads v0.0.0. The commit of a module is not known; the version names it.
    stamps = {
        "gitVersion": version,
        "gitMajor": major,
        "gitMinor": minor,
        "gitCommit": "unknown",
        "gitTreeState": "archive",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return Tool(
        name,
        f"k8s.io/kubernetes/cmd/{name}",
        KUBERNETES,
        {f"{package}.{variable}": str(value) for package in packages for variable, value in stamps.items()},
    )


def fits(name: str, said: str, kubernetes: tuple[int, int] = (1, 36)) -> bool:
    """Whether a binary that says this about its version works with a control plane of that release.

    Kubernetes' version skew policy: kubectl within one minor, servers here the same minor.
    A dispatcher is refused whatever its number: which kubectl it runs depends on the cluster.
    """
    if name == "kubectl":
        try:
            said = json.loads(said)["clientVersion"]["gitVersion"]
        except (ValueError, KeyError, TypeError):
            return False
    release = _release(said)
    if release is None or "dispatcher" in said:
        return False
    if name == "helm" or name in PROMETHEUS_COMMANDS:
        return release[0] >= 3
    if name == "kubeconform":
        return release >= (0, 7)
    if name == "etcd":
        return (3, 5) <= release < (4, 0)
    if name == "kubectl":
        return release[0] == kubernetes[0] and abs(release[1] - kubernetes[1]) <= 1
    return release == kubernetes


def find(name: str, log: Log = tell, environ: Mapping[str, str] = os.environ) -> Path | None:
    """A binary that is there already: from `KUBEBUILDER_ASSETS`, our cache, or for kubectl and helm from PATH."""
    wanted = tool(name)
    if (assets := environ.get("KUBEBUILDER_ASSETS")) and (given := Path(assets).absolute() / name).is_file():
        if _binary_fits(given):
            return given
        log(f"{given} is not taken: its version does not fit Kubernetes {KUBERNETES.version_of('k8s.io/kubernetes')}")
    if (built := builder.cached(wanted, environ)) is not None:
        return built
    found = shutil.which(name, path=environ.get("PATH")) if name in ON_PATH else None
    return Path(found) if found and _binary_fits(Path(found)) else None


def find_or_build(name: str, log: Log = tell, environ: Mapping[str, str] = os.environ) -> Path:
    """The binary, built first if need be, which takes minutes when Go's caches are cold; `log` gets the progress."""
    return find(name, log, environ) or builder.build(tool(name), log, environ)


def _binary_fits(path: Path) -> bool:
    arguments = VERSION_ARGUMENTS.get(path.name, ("--version",))
    try:
        answer = subprocess.run([path, *arguments], capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return False
    release = _release(KUBERNETES.version_of("k8s.io/kubernetes"))
    assert release is not None
    return answer.returncode == 0 and fits(path.name, answer.stdout, release)


def _release(text: str) -> tuple[int, int] | None:
    """(major, minor) of the first version in a text, such as `Kubernetes v1.36.3`."""
    match = re.search(r"\bv?(\d+)\.(\d+)\.\d+", text)
    return (int(match[1]), int(match[2])) if match else None
