"""How much of its GPUs a node lends to jobs that share them: what the ledger leaves, and what was measured. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from cyxwiz_crds.compute_node import Gpu
from cyxwiz_protocol.runner_api import JobProcess

CONTEXT_MIB = 1024
"""What a process holds of a GPU besides its tensors: 0.8 to 1.0 GiB measured for CUDA context and libraries."""
IDLE_MIB = 1536
"""An idle trainer, which makes room when a job comes, and the server of MPS."""
SLACK_OF_A_WHOLE_GPU = 10
"""A job that has a GPU alone bears it when less than this part of the memory is in use by others."""
_MIB = 2**20


def context_mib(sharing: str | None) -> int:
    """Charged for each process besides its `gpuMemory`; none where that is a limit on all it holds, as under MPS."""
    return 0 if sharing == "MPS" else CONTEXT_MIB


@dataclass(frozen=True)
class GpuRoom:
    """The ledger of the node's GPUs but for the jobs on them, which are asked for when it is read."""

    shareable_mib: Mapping[str, int] = field(default_factory=dict[str, int])
    """Per GPU its memory without what the driver keeps."""
    context_mib: int = CONTEXT_MIB
    """Charged for each process besides its `gpuMemory`."""
    unaccounted_mib: Mapping[str, int] = field(default_factory=dict[str, int])
    """Per GPU what is in use beyond what its jobs are charged: a stranger's, or memory that is not back yet."""

    @classmethod
    def of(cls, gpus: Iterable[Gpu], sharing: str | None) -> GpuRoom:
        """Of these devices, shared in the way the runner names; nothing is measured."""
        shareable = {gpu.uuid: gpu.memory_total_mi_b - (gpu.memory_reserved_mi_b or 0) for gpu in gpus}
        return cls(shareable, context_mib(sharing))

    def measured(self, used_mib: Mapping[str, int], jobs: Iterable[JobProcess], warming: Collection[str]) -> GpuRoom:
        """The same with what the driver says is in use beside `jobs`.

        Not told apart are a trainer that warms up, which may hold anything for a moment, and a job that has it whole.
        """
        present = list(jobs)
        found: dict[str, int] = {}
        for gpu, used in used_mib.items():
            beside = [job for job in present if gpu in job.gpus]
            if gpu in warming or any(job.gpu_memory_bytes is None for job in beside):
                continue
            found[gpu] = max(0, used - IDLE_MIB - sum(map(self.charge_mib, beside)))
        return replace(self, unaccounted_mib=found)

    def charge_mib(self, job: JobProcess) -> int:
        """What a job that shares is charged of each of its GPUs beside others."""
        return (job.gpu_memory_bytes or 0) // _MIB + self.context_mib

    def bears_mib(self, gpu: str) -> int:
        """As much may be in use by others on a GPU that is given away whole."""
        return self.shareable_mib.get(gpu, 0) // SLACK_OF_A_WHOLE_GPU

    def not_back(self, ended: JobProcess, before_mib: Mapping[str, int]) -> Mapping[str, int]:
        """Per GPU of a job whose processes are gone, the MiB in use that were not so before it began."""
        late: dict[str, int] = {}
        for gpu in ended.gpus:
            allowed = max(before_mib.get(gpu, 0), self.bears_mib(gpu) if ended.gpu_memory_bytes is None else 0)
            if self.unaccounted_mib.get(gpu, 0) > allowed:
                late[gpu] = self.unaccounted_mib[gpu]
        return late


NO_ROOM = GpuRoom()
