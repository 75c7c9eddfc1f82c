"""A small asynchronous client of the Kubernetes API for operator and agent.

Sign-in, TLS and token rotation are the official client's (`kubernetes.aio.config`); requests go over one aiohttp
session with orjson, which costs a third of the client CPU per patch. No other module imports a Kubernetes client.
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
