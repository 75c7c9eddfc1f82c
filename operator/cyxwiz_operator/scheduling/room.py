"""What one node has free, as plain numbers: for looking ahead at a few nodes, where columns of all would be waste."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from cyxwiz_operator.node_table import NodeTable
from cyxwiz_operator.views import Demand


@dataclass
class Room:
    """Free capacity of one node. Charged and given back like the columns of `NodeTable`, and judged like `filters`."""

    slots: int
    cpus: int
    memory_mib: int
    gpu_free_mib: list[int]
    gpu_jobs: list[int]
    gpu_total_mib: tuple[int, ...]
    gpu_usable: tuple[bool, ...]

    @classmethod
    def of(cls, nodes: NodeTable, row: int) -> Self:
        """That of one row, to be changed freely."""
        return cls(
            slots=int(nodes.max_jobs[row] - nodes.jobs[row]),
            cpus=int(nodes.free_cpus[row]),
            memory_mib=int(nodes.free_memory_mib[row]),
            gpu_free_mib=nodes.gpu_free_mib[row].tolist(),
            gpu_jobs=nodes.gpu_jobs[row].tolist(),
            gpu_total_mib=tuple(nodes.gpu_total_mib[row].tolist()),
            gpu_usable=tuple(nodes.gpu_usable[row].tolist()),
        )

    def copy(self) -> Self:
        return replace(self, gpu_free_mib=list(self.gpu_free_mib), gpu_jobs=list(self.gpu_jobs))

    def fits(self, job: Demand) -> bool:
        """The job could start here now."""
        enough = self.slots > 0 and self.cpus >= job.cpus and self.memory_mib >= job.memory_mib
        return enough and (job.gpus == 0 or len(self.devices_for(job)) >= job.gpus)

    def devices_for(self, job: Demand) -> list[int]:
        """Devices the job could have, the fullest first."""
        free = [device for device, usable in enumerate(self.gpu_usable) if usable and self._is_free(device, job)]
        return sorted(free, key=lambda device: self.gpu_free_mib[device])

    def take(self, job: Demand, devices: Sequence[int]) -> None:
        """The job starts on these devices."""
        self._change(job, devices, -1)

    def give_back(self, job: Demand, devices: Sequence[int]) -> None:
        """The job has left them."""
        self._change(job, devices, 1)

    def _is_free(self, device: int, job: Demand) -> bool:
        if job.gpu_memory_mib is None:
            return self.gpu_jobs[device] == 0
        return self.gpu_free_mib[device] >= job.gpu_memory_mib

    def _change(self, job: Demand, devices: Sequence[int], sign: int) -> None:
        self.slots += sign
        self.cpus += sign * job.cpus
        self.memory_mib += sign * job.memory_mib
        for device in devices:
            size_mib = self.gpu_total_mib[device] if job.gpu_memory_mib is None else job.gpu_memory_mib
            self.gpu_free_mib[device] += sign * size_mib
            self.gpu_jobs[device] -= sign
