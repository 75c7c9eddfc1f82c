"""What every benchmark prints beside its numbers: the machine, and the CPU time of the API server."""

from __future__ import annotations

import os
from pathlib import Path

from cyxwiz_devcluster import Cluster

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def describe() -> str:
    """AMD EPYC, 2 cores, load 0.5"""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    return f"{model}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}"


class ApiServer:
    """The API server of a cluster started here, as a process."""

    def __init__(self, cluster: Cluster) -> None:
        record = cluster.record()
        if record is None:
            raise RuntimeError("an API server of our own is needed: its CPU time cannot be read from elsewhere")
        [pid] = [process.pid for process in record.processes if process.name == "kube-apiserver"]
        self._stat = Path(f"/proc/{pid}/stat")

    def cpu_s(self) -> float:
        """CPU seconds it has used so far, user and system."""
        return cpu_s(self._stat)


def cpu_s(stat: Path) -> float:
    """CPU seconds of the process whose `/proc/<pid>/stat` this is."""
    user, system = stat.read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / _TICKS_PER_S
