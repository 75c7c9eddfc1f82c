"""Processes of `cyxwiz_store`, which alone reach the network for jobs: one for each order, ended when it is answered.

The node's credentials reach them through their sockets: neither an environment nor a trainer ever holds them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from cyxwiz_protocol.fetching import LONGEST_LINE_BYTES, FetchOrder
from cyxwiz_protocol.storing import StoreOrder

from .confinement import Confinement
from .orphans import Living
from .process_tree import MARKER, has_marker
from .remote import read_remote

COMMAND = (sys.executable, "-s", "-P", "-m", "cyxwiz_store")
_log = logging.getLogger(__name__)


class Unconfigured(Exception):
    """The administrator's file of stores cannot be read. Quotes no line of it."""


class NoAnswer(Exception):
    """The process ended without a word."""


class StoreProcesses:
    """Starts them."""

    def __init__(self, remote: Path | None, instance: str, living: Living, uid: int | None = None) -> None:
        """`remote` is the administrator's file, read anew for each order. They run as `uid`; None is the runner's."""
        self._remote = remote
        self._instance = instance
        self._living = living
        self._uid = uid
        self._numbers = itertools.count(1)

    def configuration(self) -> dict[str, Any]:
        """The administrator's file, credentials included. Raises Unconfigured."""
        if self._remote is None:
            return {}
        try:
            return read_remote(self._remote)
        except (OSError, ValueError) as error:
            _log.error("the configuration of stores cannot be read: %s", error)
            raise Unconfigured("this node's configuration of stores cannot be read") from error

    @contextlib.asynccontextmanager
    async def answering(
        self, order: FetchOrder | StoreOrder, descriptors: Sequence[int] = (), *, as_runner: bool = False
    ) -> AsyncIterator[bytes]:
        """The answer to `order`, a line, of a process that lives until the block ends. Raises NoAnswer, OSError.

        It inherits `descriptors`, by their numbers here. `as_runner` gives it the runner's own uid.
        """
        loop = asyncio.get_running_loop()
        marker = f"{self._instance}/store-{next(self._numbers)}"
        ours, its = socket.socketpair()
        with ours:
            with its:
                process = self._spawn(its, marker, descriptors, None if as_runner else self._uid)
            self._living[process.pid] = has_marker(marker)
            try:
                ours.setblocking(False)
                with contextlib.suppress(ConnectionError):  # it ended: the missing answer says so
                    await loop.sock_sendall(ours, order.model_dump_json(by_alias=True).encode() + b"\n")
                yield await _read_line(loop, ours)
            finally:
                process.kill()  # it holds locks only; complete files are complete
                process.wait()
                del self._living[process.pid]

    def _spawn(
        self, connection: socket.socket, marker: str, descriptors: Sequence[int], uid: int | None
    ) -> subprocess.Popen[bytes]:
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
            pass_fds=(connection.fileno(), *descriptors),
            start_new_session=True,
            preexec_fn=Confinement(uid),  # safe: this process has one thread
        )


async def _read_line(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        part = await loop.sock_recv(connection, 65_536)
        line += part
        if not part or len(line) > LONGEST_LINE_BYTES:
            raise NoAnswer
    return line
