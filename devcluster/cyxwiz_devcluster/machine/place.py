"""Where each node of the machine lives: its folder, addresses and cgroups. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FIRST_NODE = "machine"
CGROUP_PREFIX = "cyxwiz-"


@dataclass(frozen=True)
class NodePlace:
    """One node. Nodes share the kernel, the numbers of processes and the disk, and nothing else."""

    name: str
    folder: Path
    number: int
    """0: the one that has network and mounts in common with the control plane."""

    @property
    def address(self) -> str:
        """Of the node, on its cable."""
        return "10.250.0.1" if self.number == 0 else f"10.250.{self.number}.2"

    @property
    def gateway(self) -> str:
        """The other end of its cable: outside the machine, or on the first node."""
        return "10.250.0.2" if self.number == 0 else f"10.250.{self.number}.1"

    @property
    def pod_cidr(self) -> str:
        return f"10.244.{self.number}.0/24"

    @property
    def cgroup_root(self) -> str:
        """A kubelet ends whatever it finds in its groups and does not know, so each node has its own."""
        return "/" if self.number == 0 else f"/{CGROUP_PREFIX}{self.name}"

    @property
    def containerd(self) -> Path:
        return self.folder / "containerd"

    def process(self, component: str) -> str:
        """What the component is called among the machine's processes."""
        return component if self.number == 0 else f"{component}-{self.name}"
