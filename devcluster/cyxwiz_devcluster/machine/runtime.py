"""containerd as the container runtime of the machine: its configuration, its network, and images put into it."""

from __future__ import annotations

import json
from pathlib import Path

from .requirements import CNI_PLUGINS

PAUSE_IMAGE = "localhost/pause:1"
CLUSTER_CIDR = "10.244.0.0/16"
"""Pods of all nodes; each node has a /24 of it."""


def containerd_config(folder: Path) -> str:
    """config.toml of a containerd that keeps everything below `folder`."""
    return f"""\
version = 2
root = "{folder}/root"
state = "{folder}/run"
oom_score = 0
# Of snapshotters only overlayfs and native: probing the others takes seconds and prints errors.
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{socket(folder)}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true  # where root lacks CAP_SYS_RESOURCE runc dies of a lower score
  tolerate_missing_hugetlb_controller = true
  disable_hugetlb_controller = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PLUGINS}"
    conf_dir = "{folder}/cni"
"""


def network_config(folder: Path, pod_cidr: str) -> str:
    """A bridge that hands out addresses of `pod_cidr`, noted below `folder`, and host ports."""
    ranges = [[{"subnet": pod_cidr}]]
    routes = [{"dst": "0.0.0.0/0"}]
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": {"type": "host-local", "ranges": ranges, "routes": routes, "dataDir": str(folder / "addresses")},
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, portmap]})


def socket(folder: Path) -> Path:
    return folder / "containerd.sock"


def write(folder: Path, pod_cidr: str) -> list[str]:
    """The files are there; the command line that starts containerd with them, for pods with these addresses."""
    (folder / "cni").mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(containerd_config(folder))
    (folder / "cni" / "10-pods.conflist").write_text(network_config(folder, pod_cidr))
    return ["containerd", "--config", str(folder / "config.toml")]
