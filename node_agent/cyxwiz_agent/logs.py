"""Job logs over HTTP: what a job has printed on this node, as plain text, and what it goes on to print.

    GET /logs/<namespace>/<name>?tail=100&follow=1

Whoever can reach it can read every job's log: there is no authorization yet. So it has an address of its own, is off
unless that is given, and takes no address that the world could reach.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web
from pydantic import ValidationError

from cyxwiz_crds import Model
from cyxwiz_protocol.job_folder import JobFolder, open_regular

from .address import Address

MOST_LINES = 10_000
LINES_BY_DEFAULT = 1_000
# Lines are looked for no further back than this.
LONGEST_TAIL_BYTES = 1 << 20
CHUNK_BYTES = 1 << 16
LONGEST_ORDER_BYTES = 1 << 20
MOST_READERS = 16
LOOK_EVERY_S = 0.25


class _Named(Model):
    """The part of a job.json that says whose attempt it is."""

    namespace: str
    name: str
    attempt: int


class JobLogs:
    """Finds the newest attempt of a job here. Names from outside are compared, never made into paths."""

    def __init__(self, state: Path) -> None:
        self._jobs = state / "jobs"
        self._state = state
        self._named: dict[str, _Named] = {}

    def newest(self, namespace: str, name: str) -> JobFolder | None:
        """The folder of the job's newest attempt on this node: of its newest namesake, when there were several."""
        found: list[tuple[int, int, str]] = []
        try:
            entries = list(os.scandir(self._jobs))
        except OSError:
            return None
        present = {entry.name for entry in entries}
        self._named = {key: value for key, value in list(self._named.items()) if key in present}
        for entry in entries:
            named = self._named.get(entry.name) or self._read(entry.name)
            if named is not None and (named.namespace, named.name) == (namespace, name):
                found.append((_written_ns(self._jobs / entry.name / "job.json"), named.attempt, entry.name))
        return JobFolder.of(self._state, max(found)[2]) if found else None

    def _read(self, folder: str) -> _Named | None:
        try:
            descriptor = open_regular(JobFolder.of(self._state, folder).order)
        except (OSError, ValueError):
            return None
        with os.fdopen(descriptor, "rb") as file:
            # Only the agent names jobs: an order that another user wrote is a job's own invention.
            if os.fstat(file.fileno()).st_uid != os.geteuid():
                return None
            try:
                named = _Named.model_validate_json(file.read(LONGEST_ORDER_BYTES))
            except ValidationError:
                return None
        self._named[folder] = named
        return named


def tail_offset(descriptor: int, lines: int) -> int:
    """Where the last `lines` lines begin."""
    end = os.fstat(descriptor).st_size
    begin = max(0, end - LONGEST_TAIL_BYTES)
    content = os.pread(descriptor, end - begin, begin)
    at = len(content) - content.endswith(b"\n")
    for _ in range(lines):
        at = content.rfind(b"\n", 0, max(at, 0))
        if at < 0:
            return begin
    return begin + at + 1 if lines else end


async def chunks(folder: JobFolder, lines: int, *, follow: bool) -> AsyncIterator[bytes]:
    """The log's last lines, and with `follow` what is added until the attempt has ended.

    Empty chunks come between, so that the caller can notice that nobody reads any more.
    """
    descriptor: int | None = None
    offset = 0
    try:
        while True:
            ended = folder.exit.exists()
            if descriptor is None:
                try:
                    descriptor = await asyncio.to_thread(open_regular, folder.log)
                    offset = await asyncio.to_thread(tail_offset, descriptor, lines)
                except OSError:
                    pass  # nothing printed yet, or nothing that may be shown
            while descriptor is not None:
                content = await asyncio.to_thread(os.pread, descriptor, CHUNK_BYTES, offset)
                if not content:
                    break
                offset += len(content)
                yield content
            if ended or not follow:
                return
            yield b""
            await asyncio.sleep(LOOK_EVERY_S)
    finally:
        if descriptor is not None:
            os.close(descriptor)


async def serve(address: Address, state: Path) -> int:
    """The port it listens on."""
    logs = JobLogs(state)
    readers = asyncio.Semaphore(MOST_READERS)

    async def get(request: web.Request) -> web.StreamResponse:
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        tail = request.query.get("tail", str(LINES_BY_DEFAULT))
        if not (tail.isascii() and tail.isdigit() and int(tail[:9]) <= MOST_LINES):
            return web.Response(status=400, text=f"tail: a number from 0 to {MOST_LINES}\n")
        if readers.locked():
            return web.Response(status=503, text=f"{MOST_READERS} readers are here already\n")
        async with readers:
            folder = await asyncio.to_thread(logs.newest, namespace, name)
            if folder is None:
                return web.Response(status=404, text=f"no attempt of {namespace}/{name} has been on this node\n")
            response = web.StreamResponse(headers={"X-Content-Type-Options": "nosniff"})
            response.content_type, response.charset = "text/plain", "utf-8"
            await response.prepare(request)
            follow = request.query.get("follow", "0") not in ("0", "false", "")
            try:
                async for content in chunks(folder, int(tail), follow=follow):
                    if request.transport is None or request.transport.is_closing():
                        break
                    if content:
                        await response.write(content)
            except ConnectionResetError:
                pass  # the reader has left
            return response

    app = web.Application()
    app.add_routes([web.get("/logs/{namespace}/{name}", get)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, address.host, address.port).start()
    return int(runner.addresses[0][1])


def _written_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
