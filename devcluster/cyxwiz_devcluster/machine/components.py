"""What the components of a node and the scheduler are started with."""

from __future__ import annotations

from pathlib import Path

import yaml

from . import runtime
from .place import NodePlace

KUBELET_PORT = 10250
# Device plugins look for the kubelet there and nowhere else.
KUBELET_ROOT = Path("/var/lib/kubelet")
SERVICE_CIDR_DNS = "10.96.0.10"


def kubelet_command(binary: Path, place: NodePlace, kubeconfig: Path, ca: Path) -> list[str]:
    """A kubelet with everything below the node's folder, where its configuration is written."""
    folder = place.folder / "kubelet"
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"x509": {"clientCAFile": str(ca)}, "webhook": {"enabled": True}},
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{runtime.socket(place.containerd)}",
        "clusterDomain": "cluster.local",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": place.cgroup_root,
        "failCgroupV1": False,
        "failSwapOn": False,
        "maxOpenFiles": 20_000,
        "oomScoreAdj": 0,
        "podLogsDir": str(folder / "logs"),
        # This machine's disk is not the node's to manage.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
            "imagefs.inodesFree": "0%",
        },
        "fileCheckFrequency": "0s",
        "nodeStatusUpdateFrequency": "5s",
        "registerNode": True,
    }
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return [
        str(binary),
        f"--config={path}",
        f"--kubeconfig={kubeconfig}",
        f"--root-dir={KUBELET_ROOT}",
        f"--cert-dir={folder / 'pki'}",
        f"--hostname-override={place.name}",
        f"--node-ip={place.address}",
    ]


def proxy_command(binary: Path, place: NodePlace, kubeconfig: Path) -> list[str]:
    """A kube-proxy in nftables mode that leaves the kernel's global limits alone."""
    config = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "clusterCIDR": runtime.CLUSTER_CIDR,
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
    path = place.folder / "kube-proxy.yaml"
    path.write_text(yaml.safe_dump(config))
    return [str(binary), f"--config={path}", f"--hostname-override={place.name}"]


def scheduler_command(binary: Path, kubeconfig: Path) -> list[str]:
    return [str(binary), f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--secure-port=0", "--profiling=false"]
