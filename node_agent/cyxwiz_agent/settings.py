"""What an agent is told at its start."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from cyxwiz_protocol.volumes import Volumes

from .address import Address

# D of the fence: a job may compute this long after the last acknowledged renewal of its node's Lease was sent.
LEASE_GRACE_S = 25.0
LEASE_RENEWAL_S = 10.0
# E of the fence, written into the Lease for those who read it; the operator goes by its own observation.
LEASE_DURATION_S = 40
STOP_GRACE_S = 30.0


POD_RESOURCES = Path("/var/lib/kubelet/pod-resources/kubelet.sock")


class GpuMode(Enum):
    """How it is kept from happening that a GPU is given to a job and to a pod at once."""

    UNGUARDED = "unguarded"
    """Somebody else sees to it."""
    DEDICATED = "dedicated"
    """The node's GPUs are CyxWiz's; foreign use is watched for."""
    RESERVE = "reserve"
    """Each job has a pod that holds its GPUs for Kubernetes."""


@dataclass(frozen=True)
class Settings:
    """One agent's configuration; every field has a flag in `__main__`."""

    node: str
    namespace: str
    """Where the Leases live."""
    state: Path
    """Shared with the runner."""
    kubeconfig: Path | None = None
    """None: the pod's own service account."""
    cpus: int = os.cpu_count() or 1
    """CPU cores for jobs."""
    memory_bytes: int = 0
    """Host memory for jobs."""
    max_jobs: int = 16
    """Most jobs at a time."""
    gpu_mode: GpuMode = GpuMode.UNGUARDED
    gpu_resource: str = "nvidia.com/gpu"
    """What pods ask for to get a GPU."""
    pod_resources: Path = POD_RESOURCES
    """The kubelet's socket; nobody asks it where GPUs are unguarded."""
    port: int = 0
    """Port for /healthz, /readyz and /metrics; 0 picks a free one."""
    volumes: Volumes = field(default_factory=Volumes)
    """Named folders behind volume://name/path."""
    logs: Address | None = None
    """Where models and logs are served; None: nowhere."""


def host_memory_bytes() -> int:
    """MemTotal of this machine in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
