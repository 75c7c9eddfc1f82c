"""What the runner has promised, on disk before it acts, so that a later runner can end what this one leaves behind."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from cyxwiz_crds import Model
from cyxwiz_protocol.job_folder import JobFolder, write_json
from cyxwiz_protocol.records import ExitRecord
from cyxwiz_protocol.runner_api import RunRequest

from .process_tree import Process, all_processes, has_marker, marker_of, select_tree, send_signal, uid_of

_COMPLAIN_AFTER_S = 10.0
_log = logging.getLogger(__name__)


class Claim(Model):
    """One attempt this node has taken, until the agent has reported its end."""

    request: RunRequest
    boot_id: str
    pid: int | None = None
    """Of the trainer's main process, once there is one."""
    start_time: int | None = None
    """Field 22 of /proc/<pid>/stat: pid, start time and boot name a process for good."""
    marker: str | None = None
    uid: int | None = None
    """Of the trainer alone; None where it had the runner's."""


class Journal:
    """One file per claim."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._boot_id = boot_id()

    def write(
        self,
        request: RunRequest,
        root: Process | None = None,
        marker: str | None = None,
        uid: int | None = None,
    ) -> None:
        """The claim is on disk, as far as it is known."""
        claim = Claim(
            request=request,
            boot_id=self._boot_id,
            pid=root.pid if root else None,
            start_time=root.start_time if root else None,
            marker=marker,
            uid=uid,
        )
        write_json(self._path(request.assignment_id), claim.wire())

    def drop(self, assignment_id: str) -> None:
        self._path(assignment_id).unlink(missing_ok=True)

    def claims(self) -> list[Claim]:
        """Every claim of this runner and earlier ones. A file that is none is told and left out."""
        claims: list[Claim] = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                claims.append(Claim.model_validate_json(path.read_bytes()))
            except ValidationError as error:
                _log.error("claim unreadable file=%s error=%s", path.name, error.errors()[0]["msg"])
        return claims

    def _path(self, assignment_id: str) -> Path:
        return self._folder / f"{assignment_id}.json"


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def leftovers(claims: list[Claim], identity: str, instance: str) -> Iterator[Process]:
    """Living processes of earlier runners of this state folder, whose markers begin with its `identity`."""
    processes = [process for process in all_processes() if not process.is_dead]
    by_pid = {process.pid: process for process in processes}
    found: dict[int, Process] = {}
    for claim in claims:
        root = by_pid.get(claim.pid or 0)
        if root and claim.boot_id == boot_id() and claim.start_time == root.start_time:
            tree = select_tree(root, processes, has_marker(claim.marker or ""))
            found.update((process.pid, process) for process in tree)
    uids = {claim.uid for claim in claims if claim.uid is not None and claim.boot_id == boot_id()}
    for process in processes:
        if uids and uid_of(process.pid) in uids:
            found[process.pid] = process
        marker = marker_of(process.pid) or ""
        if marker.startswith(f"{identity}.") and not marker.startswith(f"{instance}/"):
            found[process.pid] = process
    yield from found.values()


async def end_leftovers(claims: list[Claim], identity: str, instance: str) -> None:
    """No process of an earlier runner is left. Waits as long as that takes: two jobs on one GPU would be worse."""
    complain_at = time.monotonic() + _COMPLAIN_AFTER_S
    killed: set[int] = set()
    while left := list(leftovers(claims, identity, instance)):
        for process in left:
            send_signal(process, signal.SIGKILL)
        if new := {process.pid for process in left} - killed:
            _log.info("leftovers killed pids=%s", sorted(new))
            killed |= new
        if time.monotonic() > complain_at:
            complain_at = math.inf
            _log.error("leftovers do not end pids=%s", sorted(process.pid for process in left))
        await asyncio.sleep(0.05)


def settle(claims: list[Claim], state: Path) -> list[tuple[Claim, ExitRecord]]:
    """Every claim of an earlier runner with how it ended; where nobody wrote that, it ended with its runner."""
    settled: list[tuple[Claim, ExitRecord]] = []
    for claim in claims:
        folder = JobFolder.of(state, claim.request.assignment_id)
        record = read_exit(folder)
        if record is None:
            record = ExitRecord(assignment_id=folder.assignment_id, cause="RunnerRestarted", ended_at=time.time())
            write_exit(folder, record)
        settled.append((claim, record))
    return settled


def read_exit(folder: JobFolder) -> ExitRecord | None:
    """How the attempt ended; None where no runner has said so."""
    try:
        return ExitRecord.model_validate_json(folder.exit.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def write_exit(folder: JobFolder, record: ExitRecord) -> None:
    """The folder says how its attempt ended. A folder that was removed meanwhile has no reader. Raises OSError."""
    try:
        write_json(folder.exit, record.wire())
    except FileNotFoundError:
        _log.warning("job folder gone assignment=%s", folder.assignment_id)
