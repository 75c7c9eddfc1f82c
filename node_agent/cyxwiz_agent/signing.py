"""Signed paths: whoever may read a job may read what its status points to, and nobody else.

    /v1/<node>/<expires>.<signature>/<assignment>/logs
    /v1/<node>/<expires>.<signature>/<assignment>/files/<sha256>/<path below the job folder>

The signature is HMAC-SHA256 (RFC 2104) with a key that no process but this node's agent reads. It covers the node, the
assignment (and so the job's uid), what is granted (a file with its digest, or the log) and the Unix time at which it
runs out. A path stands in `status.execution`, so reading the job is the authorization.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
from pathlib import Path

KEY_FILE = "agent.key"
KEY_BYTES = 32
VALID_FOR_S = 30 * 24 * 3600
_TOKEN = re.compile(r"([0-9]{1,12})\.([0-9a-f]{64})")
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
LOGS = "logs"


class Signer:
    """Signs for one node, and knows its own signatures again."""

    def __init__(self, node: str, key: bytes) -> None:
        self._node = node
        self._key = key

    @classmethod
    def of(cls, node: str, state: Path) -> Signer:
        """With the key of the node's state folder, made at the first start. Raises OSError for one others can read."""
        path = state / KEY_FILE
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            pass
        else:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(KEY_BYTES))
                os.fsync(file.fileno())
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            status = os.fstat(file.fileno())
            key = file.read()
        if stat.S_IMODE(status.st_mode) & 0o077 or status.st_uid != os.geteuid() or len(key) != KEY_BYTES:
            raise OSError(f"{path} is no key of the agent's own: remove it, and paths signed before are void")
        return cls(node, key)

    def log_path(self, assignment_id: str, now: float) -> str:
        """The signed path of the attempt's log."""
        return self._signed(assignment_id, LOGS, now)

    def file_path(self, assignment_id: str, path: str, sha256: str, now: float) -> str | None:
        """The signed path of a file below the job folder; None for a name or digest that is none.

        Both come from a record, which a job's own code may have written.
        """
        if not _PLAIN_PATH.fullmatch(path) or not _SHA256.fullmatch(sha256):
            return None
        return self._signed(assignment_id, f"files/{sha256}/{path}", now)

    def allows(self, token: str, assignment_id: str, granted: str, now: float) -> bool:
        """Whether `token` was made here for exactly this, and has not run out. Takes as long whatever is wrong."""
        found = _TOKEN.fullmatch(token)
        expires, signature = found.groups() if found else ("0", "")
        is_ours = hmac.compare_digest(signature.encode(), self._signature(expires, assignment_id, granted).encode())
        return is_ours and now < int(expires)

    def _signed(self, assignment_id: str, granted: str, now: float) -> str:
        # To the day, so that the same path stands in every report of a day.
        expires = str(int((now + VALID_FOR_S) // 86_400) * 86_400)
        token = f"{expires}.{self._signature(expires, assignment_id, granted)}"
        return f"/v1/{self._node}/{token}/{assignment_id}/{granted}"

    def _signature(self, expires: str, assignment_id: str, granted: str) -> str:
        message = "\0".join(("v1", self._node, expires, assignment_id, granted)).encode()
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()
