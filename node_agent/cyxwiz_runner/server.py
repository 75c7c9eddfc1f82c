"""The runner's socket: parses requests, hands them over, writes answers. It decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import ValidationError

from cyxwiz_crds import Model
from cyxwiz_protocol.runner_api import (
    LONGEST_LINE_BYTES,
    REQUEST,
    Answer,
    ForgetRequest,
    ListRequest,
    RenewRequest,
    Request,
    RunRequest,
    Snapshot,
    StopRequest,
    WarmRequest,
    WatchRequest,
)

from .jobs import Jobs
from .warm_gpus import WarmGpus

_log = logging.getLogger(__name__)


def bind(path: Path) -> socket.socket:
    """A socket at `path`, for this user alone. Raises OSError, such as for a path over 107 bytes."""
    path.unlink(missing_ok=True)  # of a runner that was killed; the lock says that none lives
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    return listener


class Changes:
    """Wakes every watcher after a change. Changes that come faster than a watcher reads become one."""

    def __init__(self) -> None:
        self._watchers: set[asyncio.Event] = set()

    def tell(self) -> None:
        for watcher in self._watchers:
            watcher.set()

    @contextlib.contextmanager
    def watching(self) -> Iterator[asyncio.Event]:
        """An event that is set after each change."""
        watcher = asyncio.Event()
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)


class Server:
    """Answers on the socket until closed."""

    def __init__(self, jobs: Jobs, warm_gpus: WarmGpus, snapshot: Callable[[], Snapshot], changes: Changes) -> None:
        self._jobs = jobs
        self._warm_gpus = warm_gpus
        self._snapshot = snapshot
        self._changes = changes
        self._admits = True
        self._connections: set[asyncio.Task[None]] = set()

    async def listen(self, listener: socket.socket) -> None:
        self._server = await asyncio.start_unix_server(self._connected, sock=listener, limit=LONGEST_LINE_BYTES)

    def stop_admission(self) -> None:
        """No new connection is taken and no new job; watchers hear on."""
        self._admits = False
        self._server.close()

    async def close(self) -> None:
        """Every watcher has been offered the last snapshot, and no connection is left."""
        self._changes.tell()
        await asyncio.sleep(0)  # for the watchers to write it; a slow reader is not waited for
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        try:
            await self._converse(reader, writer)
        except ConnectionError:  # the agent may vanish at any time
            pass
        except OSError as error:  # the claim could not be written: unanswered, so the agent asks again
            _log.error("request failed error=%s", error)
        finally:
            self._connections.discard(connection)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                line = await reader.readline()
            except ValueError:
                _log.warning("connection closed: a line of more than %d bytes", LONGEST_LINE_BYTES)
                return
            if not line.endswith(b"\n"):
                return
            try:
                request = REQUEST.validate_json(line)
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                where = ".".join(map(str, first["loc"]))
                await _write(writer, _bad(f"{where}: {first['msg']}" if where else first["msg"]))
                continue
            if isinstance(request, WatchRequest):
                await self._watch(reader, writer)
                return
            if isinstance(request, RunRequest) and not self._admits:
                return
            await _write(writer, self._answer(request))

    def _answer(self, request: Request) -> Answer | Snapshot:
        match request:
            case RunRequest():
                try:
                    return self._jobs.run(request)
                except ValueError as error:
                    return _bad(str(error))
            case StopRequest():
                return self._jobs.stop(request.assignment_id, request.grace_seconds)
            case RenewRequest():
                return self._jobs.renew(request.deadlines)
            case ForgetRequest():
                return self._jobs.forget(request.assignment_id)
            case WarmRequest():
                return self._warm_gpus.keep_on(request.gpus)
            case ListRequest() | WatchRequest():
                return self._snapshot()

    async def _watch(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Snapshots until the other side closes; what it says meanwhile is not read as requests."""
        closed = asyncio.create_task(_until_closed(reader))
        with self._changes.watching() as changed:
            told = asyncio.create_task(self._tell_changes(writer, changed))
            try:
                await asyncio.wait((closed, told), return_when=asyncio.FIRST_COMPLETED)
            finally:
                closed.cancel()
                told.cancel()
                await asyncio.gather(closed, told, return_exceptions=True)

    async def _tell_changes(self, writer: asyncio.StreamWriter, changed: asyncio.Event) -> None:
        while True:
            changed.clear()
            await _write(writer, self._snapshot())
            await changed.wait()


async def _until_closed(reader: asyncio.StreamReader) -> None:
    while await reader.read(65_536):
        pass


async def _write(writer: asyncio.StreamWriter, value: Model) -> None:
    writer.write(json.dumps(value.wire(), allow_nan=False).encode() + b"\n")
    await writer.drain()


def _bad(message: str) -> Answer:
    return Answer(ok=False, reason="BadRequest", message=message)
