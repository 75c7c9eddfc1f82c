"""The contract of CyxWiz: both resources as pydantic models, and the CRDs made from them.

Every value that comes from the API server becomes one of these models at one place; nothing behind it handles
dictionaries.
"""

from ._version import __version__
from .accounts import Goodput, Receipt
from .base import API_VERSION, GROUP, VERSION, Model
from .compute_node import ComputeNode, ComputeNodeSpec, ComputeNodeStatus
from .conditions import Condition, upsert
from .quantities import size_bytes, size_text
from .reasons import (
    ENDED_STATES,
    FINAL_PHASES,
    ConditionType,
    Failure,
    Intent,
    NodePhase,
    Phase,
    Reason,
    Rejection,
    State,
)
from .training_job import (
    Assignment,
    AttemptRecord,
    Control,
    DryRunAnswer,
    Execution,
    Progress,
    RestoreFrom,
    Scheduling,
    TrainingJob,
    TrainingJobSpec,
    TrainingJobStatus,
)

__all__ = [
    "API_VERSION",
    "ENDED_STATES",
    "FINAL_PHASES",
    "GROUP",
    "VERSION",
    "Assignment",
    "AttemptRecord",
    "ComputeNode",
    "ComputeNodeSpec",
    "ComputeNodeStatus",
    "Condition",
    "ConditionType",
    "Control",
    "DryRunAnswer",
    "Execution",
    "Failure",
    "Goodput",
    "Intent",
    "Model",
    "NodePhase",
    "Phase",
    "Progress",
    "Reason",
    "Receipt",
    "Rejection",
    "RestoreFrom",
    "Scheduling",
    "State",
    "TrainingJob",
    "TrainingJobSpec",
    "TrainingJobStatus",
    "__version__",
    "size_bytes",
    "size_text",
    "upsert",
]
