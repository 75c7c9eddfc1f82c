"""What the API server can answer instead of an object, as exceptions with its own words."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """The API server, or the way to it, said no."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}" if status else f"{reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class Conflict(ApiError):
    """409: the object has changed since it was read, or exists already."""


class NotFound(ApiError):
    """404: there is no such object."""


class Invalid(ApiError):
    """422 or 400: the schema, a rule of the fence or an admission policy refused the write."""


class Forbidden(ApiError):
    """401 or 403: this token may not do that."""


class Expired(ApiError):
    """410: the resource version is too old to watch from; list again."""


class Unavailable(ApiError):
    """The server could not be reached, did not answer in time, or asks to come back later. Worth a retry."""


def from_status(status: int, body: Any) -> ApiError:
    """The exception for an HTTP status and the Status object (or whatever else came) in its body."""
    details: dict[str, Any] = body if isinstance(body, dict) else {}
    reason = str(details.get("reason") or "Unknown")
    message = str(details.get("message") or body or "no message")
    match status:
        case 400 | 422:
            kind = Invalid
        case 401 | 403:
            kind = Forbidden
        case 404:
            kind = NotFound
        case 409:
            kind = Conflict
        case 410:
            kind = Expired
        case _:
            kind = Unavailable
    return kind(status, reason, message)
