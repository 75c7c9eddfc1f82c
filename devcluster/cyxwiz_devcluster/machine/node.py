"""One node of the machine: containerd, kubelet and kube-proxy, in namespaces of their own where it is a further one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cyxwiz_devcluster import certificates, kubeconfig
from cyxwiz_devcluster.errors import DevclusterError, KubectlError

from . import components, runtime
from .namespaces import Branch, Namespaces
from .place import CGROUP_PREFIX, NodePlace

CGROUPS = Path("/sys/fs/cgroup")
CGROUPS_GONE_WITHIN_S = 5.0


@dataclass(frozen=True)
class Parts:
    """What every node of a machine is made of."""

    found: Mapping[str, Path]
    authority: certificates.Authority
    ca: Path
    api: kubeconfig.Endpoint
    keys: Path
    """Folder of keys and kubeconfigs."""
    launch: Callable[[str, list[str]], None]

    def signed_in(self, name: str, user: str, *groups: str) -> Path:
        """A kubeconfig with a certificate of its own."""
        pair = self.authority.issue(name, user, groups)
        return kubeconfig.write_for_certificate(self.keys / f"{name}.kubeconfig", self.api, name, pair)


class Node:
    """A node, whose components start in the order of the methods."""

    def __init__(self, place: NodePlace, parts: Parts, inside: Namespaces | Branch) -> None:
        """Its folders are there, and mounted where the kubelet and device plugins look."""
        self.place = place
        self._parts = parts
        self._inside = inside
        root = place.folder / "kubelet" / "root"
        for folder in (root, place.containerd):
            folder.mkdir(parents=True, exist_ok=True)
        components.KUBELET_ROOT.mkdir(parents=True, exist_ok=True)
        inside.run("mount", "--bind", str(root), str(components.KUBELET_ROOT))

    def start_containerd(self) -> None:
        self.launch("containerd", runtime.write(self.place.containerd, self.place.pod_cidr))

    def start_kubelet(self) -> None:
        """Kubelet and kube-proxy run; containerd has the pause image."""
        for hierarchy in (CGROUPS, *CGROUPS.iterdir()):  # version 1 has one for each controller
            if self.place.cgroup_root != "/" and (hierarchy / "cgroup.procs").exists():
                (hierarchy / self.place.cgroup_root[1:]).mkdir(exist_ok=True)
        user = f"system:node:{self.place.name}"
        kubelet = self._parts.signed_in(self.place.process("kubelet"), user, "system:nodes")
        command = components.kubelet_command(self._parts.found["kubelet"], self.place, kubelet, self._parts.ca)
        self.launch("kubelet", command)
        proxy = self._parts.signed_in(self.place.process("kube-proxy"), "system:kube-proxy")
        command = components.proxy_command(self._parts.found["kube-proxy"], self.place, proxy)
        self.launch("kube-proxy", command)

    def load(self, archive: Path) -> None:
        """Its pods may use the images of this OCI archive."""
        self.ctr("images", "import", str(archive), within_s=600)

    def ctr(self, *arguments: str, within_s: float = 60) -> str:
        """What containerd's client printed."""
        address = str(runtime.socket(self.place.containerd))
        return self._inside.run("ctr", "--address", address, "--namespace", "k8s.io", *arguments, within_s=within_s)

    def launch(self, component: str, command: list[str]) -> None:
        """A process of the node, beside its containers. When it ends, the machine does."""
        entry = self._inside.entry if isinstance(self._inside, Branch) else ()
        self._parts.launch(self.place.process(component), [*entry, *command])


def wait(attempt: Callable[[], object], what: str, deadline: float) -> None:
    """`attempt` did not fail. Raises DevclusterError with its last failure at the deadline."""
    while True:
        try:
            attempt()
            return
        except (DevclusterError, KubectlError) as error:
            if time.monotonic() > deadline:
                raise DevclusterError(f"{what}: {error}") from error
            time.sleep(0.2)


def remove_cgroups() -> None:
    """The kubelets' groups, whose processes have ended, are gone."""
    deadline = time.monotonic() + CGROUPS_GONE_WITHIN_S  # the last process of a group is not gone at once
    names = ("kubepods", "*/kubepods", f"{CGROUP_PREFIX}*", f"*/{CGROUP_PREFIX}*")
    while (roots := [root for name in names for root in CGROUPS.glob(name)]) and time.monotonic() < deadline:
        for root in roots:
            for group in sorted([root, *root.rglob("*/")], key=lambda path: -len(path.parts)):
                with contextlib.suppress(OSError):
                    group.rmdir()
        time.sleep(0.05)
