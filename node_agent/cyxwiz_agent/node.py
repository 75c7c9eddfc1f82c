"""What the workers of one node share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from cyxwiz_kube import Kube
from cyxwiz_protocol.volumes import Volumes

from .admission import Capacity
from .devices import Devices, MemoryMeter
from .lease import NodeLease
from .links import Links
from .metrics import Metrics
from .pace import Pace
from .pod_resources import PodResources
from .runner_client import RunnerClient
from .settings import GpuMode


@dataclass(frozen=True)
class Node:
    """This node, as its workers see it. What changes is asked for, not copied."""

    name: str
    state: Path
    """The node's state folder."""
    volumes: Volumes
    """Named folders that jobs may read, by namespace."""
    kube: Kube
    lease: NodeLease
    runner: RunnerClient
    pace: Pace
    metrics: Metrics
    capacity: Callable[[], Capacity]
    devices: Callable[[], Devices]
    memory: MemoryMeter
    something_leaves: Callable[[], bool]
    """True while a job here is on its way out."""
    energy: Callable[[], Awaitable[dict[str, int]]]
    """Energy counters in joules, by UUID; nothing of a driver that does not answer at once."""
    gpu_mode: GpuMode = GpuMode.UNGUARDED
    pods: PodResources | None = None
    """Who holds which device for Kubernetes; None where nobody looks."""
    links: Links | None = None
    """Paths for `kubectl get --raw`; None where the agent serves none."""
