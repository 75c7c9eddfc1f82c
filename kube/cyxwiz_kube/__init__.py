"""A small asynchronous client of the Kubernetes API for operator and agent.

Sign-in, kubeconfigs and token rotation are the official client's (`kubernetes.config`); requests go over one aiohttp
session with orjson, which costs a third of its CPU per patch. No other module talks to the API server.
"""

from .client import Kube
from .errors import ApiError, Conflict, Forbidden, Invalid, NotFound, Unavailable
from .listing import Change, ChangeKind
from .patches import merge_diff

__all__ = [
    "ApiError",
    "Change",
    "ChangeKind",
    "Conflict",
    "Forbidden",
    "Invalid",
    "Kube",
    "NotFound",
    "Unavailable",
    "merge_diff",
]
