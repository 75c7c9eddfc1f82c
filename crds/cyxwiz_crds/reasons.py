"""Every phase, condition type, reason and state a reader may meet in a status, in one place.

Reasons are CamelCase, stable, and made for machines; the sentence beside them is for people. They are plain
strings on the wire, never closed enums: an older reader must survive a newer reason.
"""

from __future__ import annotations

from typing import Final


class Phase:
    """`TrainingJob.status.phase`: derived, for people, never a trigger."""

    PENDING: Final = "Pending"
    QUEUED: Final = "Queued"
    BOUND: Final = "Bound"
    RUNNING: Final = "Running"
    SUSPENDED: Final = "Suspended"
    SUCCEEDED: Final = "Succeeded"
    FAILED: Final = "Failed"
    CANCELLED: Final = "Cancelled"


FINAL_PHASES: Final = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED})


class NodePhase:
    """`ComputeNode.status.phase`."""

    ONLINE: Final = "Online"
    OFFLINE: Final = "Offline"
    DRAINING: Final = "Draining"
    UNSCHEDULABLE: Final = "Unschedulable"


class State:
    """`TrainingJob.status.execution.state`, written by the agent."""

    RUNNING: Final = "Running"
    SUCCEEDED: Final = "Succeeded"
    FAILED: Final = "Failed"
    CANCELLED: Final = "Cancelled"
    REJECTED: Final = "Rejected"
    YIELDED: Final = "Yielded"


ENDED_STATES: Final = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.REJECTED, State.YIELDED})


class Intent:
    """`TrainingJob.status.assignment.intent`: the operator's order to the agent."""

    RUN: Final = "Run"
    YIELD: Final = "Yield"
    STOP: Final = "Stop"


class ConditionType:
    """Condition types of both resources."""

    SCHEDULED: Final = "Scheduled"
    RUNNING: Final = "Running"
    STALLED: Final = "Stalled"
    COMPLETE: Final = "Complete"
    FAILED: Final = "Failed"
    SUSPENDED: Final = "Suspended"
    FINISHED: Final = "Finished"
    READY: Final = "Ready"
    DRIVER_HEALTHY: Final = "DriverHealthy"
    GPUS_EXCLUSIVE: Final = "GPUsExclusive"


class Reason:
    """Why a job is where it is."""

    # Placement
    BOUND: Final = "Bound"
    NO_NODES: Final = "NoNodes"
    NO_NODE_FITS: Final = "NoNodeFits"  # no node of this cluster could ever run it
    NO_NODE_FREE: Final = "NoNodeFree"  # some node could, none has room now
    BACKING_OFF: Final = "BackingOff"
    PREEMPTING: Final = "Preempting"  # jobs of lower priority were told to leave for it
    WAITING_FOR_WEIGHTS: Final = "WaitingForWeights"  # of the job it starts from
    WAITING_FOR_RESERVATION: Final = "WaitingForReservation"  # of its GPUs by Kubernetes
    NOT_RESERVED: Final = "NotReserved"  # Kubernetes refuses the pod that reserves its GPUs, such as for a quota
    RATE_OF_LOSS: Final = "TooManyNodesLost"
    WOULD_START: Final = "WouldStart"  # answers of a dry run
    WOULD_WAIT: Final = "WouldWait"
    INVALID: Final = "InvalidObject"
    # Life
    TRAINING: Final = "Training"
    STOPPING: Final = "Stopping"
    SUCCEEDED: Final = "Succeeded"
    CANCELLED: Final = "CancelledByUser"
    SUSPENDED: Final = "SuspendedByUser"
    RETRYING: Final = "Retrying"
    PREEMPTED: Final = "Preempted"
    DRAINING: Final = "Draining"
    EVICTED: Final = "Evicted"  # the pod that reserved its GPUs was


class Failure:
    """Failure classes: each has its own retry rule (`cyxwiz_operator.lifecycle`)."""

    USER_ERROR: Final = "UserError"
    DIVERGED: Final = "Diverged"
    DEADLINE_EXCEEDED: Final = "DeadlineExceeded"
    OUT_OF_GPU_MEMORY: Final = "OutOfGPUMemory"
    BACKOFF_LIMIT: Final = "BackoffLimitExceeded"
    NODE_LOST: Final = "NodeLost"
    GPU_FAULT: Final = "GPUFault"
    NEVER_CLAIMED: Final = "NeverClaimed"
    REJECTED: Final = "Rejected"
    NOT_RESERVED: Final = "NotReserved"
    EVICTED: Final = "Evicted"
    PREEMPTED: Final = "Preempted"
    CRASHED: Final = "Crashed"
    STALLED: Final = "Stalled"
    OUT_OF_HOST_MEMORY: Final = "OutOfHostMemory"
    NOT_STORED: Final = "NotStored"  # trained, and not where output.uri wants it


class Rejection:
    """Why an agent refused a job (`execution.reason` beside state Rejected)."""

    NO_FREE_GPU: Final = "NoFreeGPU"
    NO_FREE_CPU: Final = "NoFreeCPU"
    NO_FREE_MEMORY: Final = "NoFreeMemory"
    TOO_MANY_JOBS: Final = "TooManyJobs"
