"""What one node has free, as plain numbers: where one node changes or few are looked at, columns of all are waste."""

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
    gpu_context_mib: int
    usable: tuple[int, ...]
    """Devices whose health allows jobs."""
    all_cpus: int
    all_memory_mib: int
    usable_mib: int
    """Memory of all usable devices, free or not."""
    usable_free_mib: int
    idle: int
    """Usable devices without a job."""

    @classmethod
    def of(cls, nodes: NodeTable, row: int) -> Self:
        """That of one row, to be changed freely."""
        usable = tuple([device for device, usable in enumerate(nodes.gpu_usable[row].tolist()) if usable])
        total_mib = tuple(nodes.gpu_total_mib[row].tolist())
        free_mib = nodes.gpu_free_mib[row].tolist()
        return cls(
            slots=nodes.max_jobs.item(row) - nodes.jobs.item(row),
            cpus=nodes.free_cpus.item(row),
            memory_mib=nodes.free_memory_mib.item(row),
            gpu_free_mib=free_mib,
            gpu_jobs=nodes.gpu_jobs[row].tolist(),
            gpu_total_mib=total_mib,
            gpu_context_mib=nodes.gpu_context_mib.item(row),
            usable=usable,
            all_cpus=nodes.cpus.item(row),
            all_memory_mib=nodes.memory_mib.item(row),
            usable_mib=sum([total_mib[device] for device in usable]),
            usable_free_mib=sum([free_mib[device] for device in usable]),
            idle=nodes.idle_gpus.item(row),
        )

    def copy(self) -> Self:
        return replace(self, gpu_free_mib=list(self.gpu_free_mib), gpu_jobs=list(self.gpu_jobs))

    def fits(self, job: Demand) -> bool:
        """The job could start here now."""
        return self.lacks(job) is None

    def lacks(self, job: Demand) -> str | None:
        """The reason of the first check of `filters.FULL` that fails here."""
        if self.slots <= 0:
            return "TooManyJobs"
        if job.gpus and (self.idle if job.gpu_memory_mib is None else len(self._free_devices(job))) < job.gpus:
            return "NoFreeGPU"
        if self.cpus < job.cpus:
            return "NoFreeCPU"
        return "NoFreeMemory" if self.memory_mib < job.memory_mib else None

    def free_share(self, for_gpus: bool) -> float:
        """The free share of the scarcest resource that jobs of this kind need: `availability_of` for one node."""
        share = min(_share(self.cpus, self.all_cpus), _share(self.memory_mib, self.all_memory_mib))
        return min(share, _share(self.usable_free_mib, self.usable_mib)) if for_gpus else share

    def devices_for(self, job: Demand) -> list[int]:
        """Devices the job could have, the fullest first."""
        return sorted(self._free_devices(job), key=self.gpu_free_mib.__getitem__)

    def take(self, job: Demand, devices: Sequence[int]) -> None:
        """The job starts on these devices."""
        self._change(job, devices, -1)

    def give_back(self, job: Demand, devices: Sequence[int]) -> None:
        """The job has left them."""
        self._change(job, devices, 1)

    def _free_devices(self, job: Demand) -> list[int]:
        if job.gpu_memory_mib is None:
            return [device for device in self.usable if self.gpu_jobs[device] == 0]
        beside_mib = job.gpu_memory_mib + self.gpu_context_mib
        return [
            device
            for device in self.usable
            if self.gpu_free_mib[device] >= (beside_mib if self.gpu_jobs[device] else job.gpu_memory_mib)
        ]

    def _change(self, job: Demand, devices: Sequence[int], sign: int) -> None:
        self.slots += sign
        self.cpus += sign * job.cpus
        self.memory_mib += sign * job.memory_mib
        for device in devices:
            shared_mib = job.gpu_memory_mib
            size_mib = self.gpu_total_mib[device] if shared_mib is None else shared_mib + self.gpu_context_mib
            before = self.gpu_jobs[device]
            self.gpu_free_mib[device] += sign * size_mib
            self.gpu_jobs[device] = before - sign
            if device in self.usable:
                self.usable_free_mib += sign * size_mib
                self.idle += (before == sign) - (before == 0)


def _share(free: int, total: int) -> float:
    return max(free, 0) / max(total, 1)
