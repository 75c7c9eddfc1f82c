"""A real Kubernetes control plane on one machine, for the demo and for tests: no container engine, no registry."""

from .binaries import find, find_or_build
from .cluster import Cluster, start, stop
from .cluster import find as find_cluster
from .errors import DevclusterError, KubectlError

__all__ = [
    "Cluster",
    "DevclusterError",
    "KubectlError",
    "find",
    "find_cluster",
    "find_or_build",
    "start",
    "stop",
]
