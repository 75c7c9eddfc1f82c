"""The files that a job needs from the network are on this machine before it is given a trainer or a GPU.

They are fetched by a process of their own (`cyxwiz_store`) into the cache of the node. The node's credentials reach it
through its socket: neither an environment nor a trainer ever holds them. A job gets a hard link to each file in its own
folder, so that it reaches its files and no others, and the cache knows what is in use.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cyxwiz_crds import Failure
from cyxwiz_protocol.fetching import (
    INDEX,
    LONGEST_LINE_BYTES,
    FetchAnswer,
    Fetched,
    FetchOrder,
    Inputs,
    remote_uris,
)
from cyxwiz_protocol.job_folder import JobFolder, write_json
from cyxwiz_protocol.location import BadLocation
from cyxwiz_protocol.order import JobOrder
from cyxwiz_protocol.records import FailureRecord, encode_record

from .confinement import Confinement
from .job_files import open_to_append
from .orphans import Living
from .process_tree import MARKER, has_marker
from .remote import read_remote
from .trainer import StartFailed

COMMAND = (sys.executable, "-s", "-P", "-m", "cyxwiz_store")
_log = logging.getLogger(__name__)


class NotFetched(StartFailed):
    """A file of the job could not be had; its text is for the job's author."""

    def __init__(self, failure: str, message: str) -> None:
        super().__init__(message)
        self.failure = failure


class Fetcher:
    """Starts fetching processes, one for each job that needs any."""

    def __init__(self, cache: Path, remote: Path | None, instance: str, living: Living, uid: int | None = None) -> None:
        """`remote` is the administrator's file, read anew for each job. The processes run as `uid`, which owns the
        cache; None is the runner's own. Raises OSError."""
        self._cache = cache
        self._remote = remote
        self._instance = instance
        self._living = living
        self._uid = uid
        self._numbers = itertools.count(1)
        cache.mkdir(mode=0o700, exist_ok=True)
        if uid is not None and cache.stat().st_uid != uid:
            for path in (cache, *cache.rglob("*")):
                os.chown(path, uid, uid, follow_symlinks=False)

    async def fetch(self, folder: JobFolder) -> bool:
        """Everything that the order of `folder` names is in its inputs; False where it names nothing remote.

        Raises NotFetched, StartFailed, OSError.
        """
        try:
            order = JobOrder.model_validate_json(folder.order.read_bytes())
        except ValueError:  # the trainer will say what is wrong with its order
            return False
        try:
            uris = remote_uris(order.spec)
        except BadLocation as error:  # known before a trainer is taken for it
            raise NotFetched(Failure.USER_ERROR, str(error)) from error
        if not uris:
            return False
        began = time.monotonic()
        request = FetchOrder(namespace=order.namespace, uris=uris, cache=str(self._cache), remote=self._configuration())
        fetched = await self._run(request, folder)
        transferred = sum(file.bytes for file in fetched if not file.cached)
        _log.info(
            "inputs fetched assignment=%s files=%d bytes=%d seconds=%.1f",
            *(folder.assignment_id, len(fetched), transferred, time.monotonic() - began),
        )
        return True

    def _configuration(self) -> dict[str, Any]:
        if self._remote is None:
            return {}
        try:
            return read_remote(self._remote)
        except (OSError, ValueError) as error:
            _log.error("the configuration of stores cannot be read: %s", error)
            raise NotFetched(Failure.CRASHED, "this node's configuration of stores cannot be read") from error

    async def _run(self, order: FetchOrder, folder: JobFolder) -> list[Fetched]:
        """One process from its start to its end."""
        loop = asyncio.get_running_loop()
        marker = f"{self._instance}/fetch-{next(self._numbers)}"
        ours, its = socket.socketpair()
        with ours:
            with its:
                process = self._spawn(its, marker)
            self._living[process.pid] = has_marker(marker)
            try:
                ours.setblocking(False)
                with contextlib.suppress(ConnectionError):  # it ended: the missing answer says so
                    await loop.sock_sendall(ours, order.model_dump_json(by_alias=True).encode() + b"\n")
                answer = await _read_answer(loop, ours)
                if answer.failure is not None:
                    raise NotFetched(answer.failure, answer.message or "a file could not be fetched")
                _link(answer.fetched, folder)
            finally:
                process.kill()  # it holds locks only; complete files are complete
                process.wait()
                del self._living[process.pid]
        return answer.fetched

    def _spawn(self, connection: socket.socket, marker: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*COMMAND, "--socket-fd", str(connection.fileno())],
            stdin=subprocess.DEVNULL,
            env={
                MARKER: marker,
                "PATH": os.environ.get("PATH", os.defpath),
                "LANG": "C.UTF-8",
                "HOME": "/nonexistent",
                # Credentials come through the socket and from nowhere else.
                "AWS_EC2_METADATA_DISABLED": "true",
                "AWS_CONFIG_FILE": os.devnull,
                "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            },
            cwd="/",
            pass_fds=(connection.fileno(),),
            start_new_session=True,
            preexec_fn=Confinement(self._uid),  # safe: this process has one thread
        )


def tell(folder: JobFolder, failure: NotFetched) -> None:
    """The job's records end with why it has no data. Raises OSError."""
    record = FailureRecord(t=time.time(), failure=failure.failure, message=str(failure)[:1000])
    with os.fdopen(open_to_append(folder.metrics), "ab") as file:
        file.write(encode_record(record))


def drop_inputs(folder: JobFolder) -> None:
    """The job's links are gone, so that its files may leave the cache. The index stays as a record."""
    with contextlib.suppress(OSError):
        for path in folder.inputs.iterdir():
            if path.name != INDEX:
                path.unlink()


async def _read_answer(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> FetchAnswer:
    line = b""
    while not line.endswith(b"\n"):
        part = await loop.sock_recv(connection, 65_536)
        line += part
        if not part or len(line) > LONGEST_LINE_BYTES:
            raise StartFailed("the process that fetches its data ended without an answer")
    return FetchAnswer.model_validate_json(line)


def _link(fetched: list[Fetched], folder: JobFolder) -> None:
    """The job's inputs are these files, and its to read alone: nobody else gets through its folder."""
    shutil.rmtree(folder.inputs, ignore_errors=True)
    folder.inputs.mkdir()
    folder.inputs.chmod(0o755)
    here: list[Fetched] = []
    for number, file in enumerate(fetched):
        os.link(file.path, folder.inputs / str(number))
        here.append(file.model_copy(update={"path": str(number)}))
    index = folder.inputs / INDEX
    write_json(index, Inputs(fetched=here).wire())
    index.chmod(0o644)
