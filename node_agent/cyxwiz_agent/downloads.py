"""What jobs leave and print, over HTTP, to whoever has a signed path (`signing`).

Reached through the API server, so that a user needs no way to the node:

    kubectl get --raw "$(kubectl get tj x -o jsonpath={.status.execution.model.downloadPath})" > model.safetensors

What lies in a job folder is a job's to change: no link is followed, and a file whose digest is not the signed one any
more is not sent.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from cyxwiz_protocol.job_folder import JobFolder, open_inside

from . import logs
from .address import Address
from .peers import Peers
from .signing import LOGS, Signer

MOST_READERS = 16
CHUNK_BYTES = 1 << 18
_READ_AT_ONCE = 1 << 22
_REFUSED = "this path was not signed by this node's agent, or has run out: read it from the job's status again\n"


@dataclass(frozen=True)
class _Identity:
    device: int
    inode: int
    size: int
    changed_ns: int


class Downloads:
    """The files and logs of one node's jobs."""

    def __init__(self, node: str, state: Path, signer: Signer, peers: Peers) -> None:
        self._node = node
        self._state = state
        self._signer = signer
        self._peers = peers
        self._readers = asyncio.Semaphore(MOST_READERS)
        self._digests: dict[_Identity, str] = {}

    async def serve(self, address: Address) -> int:
        """The port it listens on."""
        app = web.Application()
        app.add_routes([web.get("/v1/{node}/{token}/{assignment}/{granted:.+}", self._get)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, address.host, address.port).start()
        return int(runner.addresses[0][1])

    async def _get(self, request: web.Request) -> web.StreamResponse:
        if self._readers.locked():
            return web.Response(status=503, text=f"{MOST_READERS} readers are here already\n")
        async with self._readers:
            try:
                return await self._answer(request)
            except ConnectionResetError:  # the reader has left
                return web.Response()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        named = request.match_info
        if named["node"] != self._node:
            return await self._peers.pass_on(request, named["node"])
        if not self._signer.allows(named["token"], named["assignment"], named["granted"], time.time()):
            return web.Response(status=403, text=_REFUSED)
        folder = JobFolder.of(self._state, named["assignment"])
        if named["granted"] == LOGS:
            return await logs.answer(request, folder)
        _, sha256, path = named["granted"].split("/", 2)
        return await self._send(request, folder, path, sha256)

    async def _send(self, request: web.Request, folder: JobFolder, path: str, sha256: str) -> web.StreamResponse:
        try:
            descriptor = await asyncio.to_thread(open_inside, folder.path, path)
        except OSError:
            return web.Response(status=404, text=f"{path} is not on {self._node} any more\n")
        try:
            if await asyncio.to_thread(self._digest, descriptor) != sha256:
                return web.Response(status=410, text=f"{path} has changed since its path was signed\n")
            size = os.fstat(descriptor).st_size
            headers = {"Accept-Ranges": "bytes", "ETag": f'"{sha256}"', "X-Content-Type-Options": "nosniff"}
            try:
                start, stop, _ = request.http_range.indices(size)
            except ValueError:
                start, stop = size, size
            if "Range" in request.headers:
                if start >= stop:
                    return web.Response(status=416, headers={"Content-Range": f"bytes */{size}"})
                headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
            response = web.StreamResponse(status=206 if "Range" in request.headers else 200, headers=headers)
            response.content_type, response.content_length = "application/octet-stream", stop - start
            await response.prepare(request)
            while start < stop:
                part = await asyncio.to_thread(os.pread, descriptor, min(CHUNK_BYTES, stop - start), start)
                if not part:
                    raise ConnectionResetError("the file was cut while it was sent")
                start += len(part)
                await response.write(part)
            return response
        finally:
            os.close(descriptor)

    def _digest(self, descriptor: int) -> str:
        """Of the whole file; remembered as long as nothing about it changes."""
        status = os.fstat(descriptor)
        identity = _Identity(status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns)
        if identity not in self._digests:
            digest, at = hashlib.sha256(), 0
            while part := os.pread(descriptor, _READ_AT_ONCE, at):
                digest.update(part)
                at += len(part)
            if len(self._digests) > 1000:
                self._digests.clear()
            self._digests[identity] = digest.hexdigest()
        return self._digests[identity]
