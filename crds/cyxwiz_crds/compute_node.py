"""ComputeNode: one machine of the pool, named after its Kubernetes node.

`spec` belongs to the administrator, `status.inventory` and `status.agent` to the node's agent, the rest of the
status to the operator.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import Count, Line, MicroTime, Model, Name, Sentence, Timestamp, Word
from .conditions import Conditions

KIND = "ComputeNode"
PLURAL = "computenodes"


class ComputeNodeSpec(Model):
    """What the administrator wants of this node."""

    unschedulable: bool = False
    """True keeps new jobs away; running jobs go on."""
    drain: bool = False
    """True keeps new jobs away and makes running jobs save a checkpoint and move."""
    cordon_drains: bool | None = None
    """Whether running jobs also save a checkpoint and move once the Kubernetes node is cordoned, as `kubectl drain`
    does first; absent means as the chart's operator.cordonDrains says."""
    max_concurrent_jobs: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Most jobs at a time; absent means as many as fit."""
    job_types: Annotated[list[Word], Field(max_length=8)] = []
    """Job types this node takes; empty means all."""
    labels: Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=32)] = {}
    """Labels for nodeSelector, beside those of the Kubernetes node."""


class GpuReadings(Model):
    """What moves all the time, as of the last time the agent wrote. Prometheus has it as of now."""

    memory_free_mi_b: Annotated[int | None, Field(alias="memoryFreeMiB", ge=0, le=2**31)] = None
    """Free memory in MiB."""
    temperature_celsius: Annotated[int, Field(ge=-100, le=1000)] | None = None
    """Temperature."""
    power_watts: Count | None = None
    """Power."""
    energy_kilojoules: Count | None = None
    """Energy since its driver was loaded."""
    utilization_percent: Annotated[int, Field(ge=0, le=100)] | None = None
    """Share of time in which it computed."""
    clocks_event_reasons: Annotated[list[Word], Field(max_length=16)] = []
    """Why its clocks are not higher, such as SwPowerCap."""
    last_xid_at: Timestamp | None = None
    """When its driver told of the last error."""


class Gpu(Model):
    """One GPU, or one MIG device of a GPU, as its driver describes it."""

    uuid: Annotated[str, Field(max_length=96)]
    """The driver's UUID, by which jobs are given devices."""
    name: Annotated[str, Field(max_length=96)]
    """Product name."""
    architecture: Word | None = None
    """Architecture, such as Hopper."""
    compute_capability: Word | None = None
    """CUDA compute capability, such as 9.0."""
    memory_total_mi_b: Annotated[int, Field(alias="memoryTotalMiB", ge=0, le=2**31)]
    """Memory in MiB."""
    memory_reserved_mi_b: Annotated[int | None, Field(alias="memoryReservedMiB", ge=0, le=2**31)] = None
    """Memory in MiB that the driver keeps for itself."""
    pci_bus_id: Word | None = None
    """Where it is plugged in."""
    mig_parent: Annotated[str | None, Field(max_length=96)] = None
    """UUID of the GPU that a MIG device is a part of."""
    health: Word = "Healthy"
    """Healthy, Degraded, Unhealthy, Lost, Unmonitored, or InUse: by somebody else than CyxWiz."""
    health_reason: Line | None = None
    """Why it is not Healthy."""
    last_xid: Word | None = None
    """The last error its driver told of, such as "XID 79: fallen off the bus"."""
    recovery_action: Word | None = None
    """What its driver wants done about it: None, Reset, Reboot, Drain or DrainAndReset; absent when it cannot say."""
    ecc_uncorrected: Count | None = None
    """Uncorrected memory errors since its driver was loaded."""
    remapped_rows: Count | None = None
    """Rows of its memory that were replaced by spare ones."""
    readings: GpuReadings | None = None
    """Temperature and the like, as of the last write."""


class Inventory(Model):
    """What the node has. Written by its agent."""

    gpus: Annotated[list[Gpu], Field(max_length=64)] = []
    """Its GPUs."""
    cpus: Count
    """CPU cores jobs may use."""
    memory_mi_b: Annotated[int, Field(alias="memoryMiB", ge=0, le=2**40)]
    """Host memory in MiB jobs may use."""
    simulated: bool = False
    """True when the devices come from a file and not from a driver."""
    driver_version: Word | None = None
    """GPU driver version."""
    cuda_version: Word | None = None
    """Newest CUDA version the driver supports."""
    driver_message: Line | None = None
    """Why there are no GPUs, or fewer than there might be."""
    torch_version: Word | None = None
    """PyTorch version of the node's trainers."""
    warm_trainers: bool = False
    """True when its runner keeps trainers ready, so that jobs start at once."""
    models: Annotated[list[Word], Field(max_length=64)] = []
    """Models its trainers know."""
    gpu_sharing: Word | None = None
    """How jobs with gpuMemory share its GPUs: MPS, or time slices."""
    gpu_context_mi_b: Annotated[int | None, Field(alias="gpuContextMiB", ge=0, le=2**31)] = None
    """MiB of a GPU that each job sharing it is charged besides its gpuMemory, for its CUDA context."""
    gpu_mode: Word | None = None
    """What its agent was started with: dedicated, reserve or unguarded. It says how the node's GPUs are given."""
    labels: Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=64)] = {}
    """Labels of the Kubernetes node, as the agent last saw them."""
    max_concurrent_jobs: Count | None = None
    """Most jobs its agent admits at a time."""
    gpu_text: Word | None = None
    """The GPUs in words, for the table."""
    memory_text: Word | None = None
    """Memory per GPU, or the host's on a CPU node, for the table."""


class AgentInfo(Model):
    """The agent process of the node. Written by itself."""

    version: Word
    """Version of the agent."""
    instance: Word
    """Identity of this run of the agent; a new one after each start."""
    started_at: Timestamp
    """When it started."""


class Allocation(Model):
    """What is in use, for display; admission does not rely on it. Written by the operator."""

    jobs: Count = 0
    """Jobs bound to the node."""
    gpus: Count = 0
    """GPUs given to jobs."""
    cpus: Count = 0
    """CPU cores given to jobs."""
    memory_mi_b: Annotated[int, Field(alias="memoryMiB", ge=0, le=2**40)] = 0
    """Host memory in MiB given to jobs."""


class Measured(Model):
    """What a job that succeeded has shown of its workload on this node."""

    workload: Word
    """Model name and a digest of all that its speed and memory depend on: options, data, batch size, resources."""
    device: Annotated[str, Field(max_length=96)]
    """What it trained on: the GPU's product name, or CPU."""
    samples_per_second: Word
    """Training rate at its end."""
    seconds_per_step: Word
    """Mean over the attempt, evaluation and checkpoints included."""
    steps_per_epoch: Count
    """Optimizer steps of one epoch."""
    gpu_memory_peak: Word | None = None
    """Most memory it held of a GPU."""
    data: Word | None = None
    """What it read: the data set's uri, with a digest in place of the end of a long one."""
    shared: bool = False
    """True when other jobs may have used its devices at the same time."""


class Outcome(Model):
    """How one attempt ended on this node, as far as the node is to be judged by it."""

    job: Annotated[str, Field(max_length=64)]
    """The assignment, so that counting it again changes nothing."""
    good: bool
    """True when the node did its part."""
    ended_at: Timestamp
    """When."""
    measured: Measured | None = None
    """What it has shown of its workload; absent when it did not succeed, or did not train long enough."""


class Reputation(Model):
    """How reliable the node has been. Written by the operator."""

    score: Annotated[str, Field(max_length=8)]
    """0.00 to 1.00."""
    probation: Line | None = None
    """Why it is given one job at a time; absent when it is not."""
    outcomes: Annotated[list[Outcome], Field(max_length=64)] = []
    """The newest outcomes, newest last."""


class Span(Model):
    """A time without a break."""

    since: Timestamp
    """Its begin."""
    until: Timestamp
    """Its end."""


class ComputeNodeStatus(Model):
    """What is true of the node."""

    phase: Word | None = None
    """Online, Offline, Draining or Unschedulable."""
    inventory: Inventory | None = None
    """What the node has."""
    agent: AgentInfo | None = None
    """The agent process of the node."""
    allocation: Allocation | None = None
    """What is in use, for display."""
    reputation: Reputation | None = None
    """How reliable the node has been."""
    online_since: Timestamp | None = None
    """Since when the node is Online without a break."""
    earlier_online: Annotated[list[Span], Field(max_length=16)] = []
    """When it was Online before, within the last week, oldest first."""
    summary: Sentence | None = None
    """The node's state in words."""
    conditions: Conditions = []
    """Ready, DriverHealthy and GPUsExclusive."""


class Owner(Model):
    """The part of an owner reference that CyxWiz reads."""

    kind: str
    name: str


class NodeMetadata(Model):
    """The part of the metadata that CyxWiz reads."""

    name: Name
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    owner_references: list[Owner] = []


class ComputeNode(Model):
    """A ComputeNode as the API server gives it."""

    metadata: NodeMetadata
    spec: ComputeNodeSpec = ComputeNodeSpec()
    status: ComputeNodeStatus = ComputeNodeStatus()


class Lease(Model):
    """The part of a coordination.k8s.io/v1 Lease that the fence rests on."""

    name: Name
    resource_version: str
    holder: str | None
    renew_time: MicroTime | None
