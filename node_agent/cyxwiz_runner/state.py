"""The runner's folders, and the lock that makes it the only runner of them."""

from __future__ import annotations

import fcntl
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from cyxwiz_protocol.job_folder import write_whole
from cyxwiz_protocol.runner_api import socket_path


class AlreadyRunning(Exception):
    """Another runner holds the state folder."""


@dataclass(frozen=True)
class State:
    """One node's state folder, held by this process until it ends."""

    path: Path
    identity: str
    """Of the folder, the same in every run: what an earlier runner of it left behind can be told from a stranger's."""
    instance: str
    """Of this run: the identity, and a part never used before."""
    _lock: int

    @property
    def socket(self) -> Path:
        return socket_path(self.path)

    @property
    def journal(self) -> Path:
        return self.path / "runner" / "journal"

    @property
    def spawns(self) -> Path:
        """A private folder for each trainer: its home, its temporary files, its early output."""
        return self.path / "runner" / "spawns"

    @property
    def shapes(self) -> Path:
        """What jobs here have trained."""
        return self.path / "runner" / "shapes.json"

    @property
    def cache(self) -> Path:
        """Files from the network; beside the jobs, which hold links to them."""
        return self.path / "cache"

    def let_through(self) -> None:
        """Other uids get through to the folders that are theirs; they cannot list what lies on the way."""
        for folder in (self.path, self.path / "jobs", self.path / "runner", self.spawns):
            folder.chmod(folder.stat().st_mode | 0o001)

    def release(self) -> None:
        """Another runner may take the folder."""
        os.close(self._lock)


def hold_state(path: Path) -> State:
    """The folders exist and are this process's alone. Raises AlreadyRunning, OSError."""
    own = path / "runner"
    for folder in (path / "jobs", own / "journal", own / "spawns"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(own / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise AlreadyRunning(f"another runner holds {path}") from error
    identity = _identity(own / "identity")
    return State(path, identity, f"{identity}.{secrets.token_hex(4)}", lock)


def _identity(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        identity = secrets.token_hex(8)
        write_whole(path, identity.encode())
        return identity
