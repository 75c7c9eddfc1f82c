"""A job's log over HTTP: what an attempt has printed, as plain text, and what it goes on to print.

    ?tail=100&follow=1

Who may ask is decided in `downloads`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

from aiohttp import web

from cyxwiz_protocol.job_folder import JobFolder, open_regular

MOST_LINES = 10_000
LINES_BY_DEFAULT = 1_000
# Lines are looked for no further back than this.
LONGEST_TAIL_BYTES = 1 << 20
CHUNK_BYTES = 1 << 16
LOOK_EVERY_S = 0.25


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


async def answer(request: web.Request, folder: JobFolder) -> web.StreamResponse:
    """The log of one attempt, as ?tail= and ?follow= ask."""
    tail = request.query.get("tail", str(LINES_BY_DEFAULT))
    if not (tail.isascii() and tail.isdigit() and int(tail[:9]) <= MOST_LINES):
        return web.Response(status=400, text=f"tail: a number from 0 to {MOST_LINES}\n")
    response = web.StreamResponse(headers={"X-Content-Type-Options": "nosniff"})
    response.content_type, response.charset = "text/plain", "utf-8"
    await response.prepare(request)
    follow = request.query.get("follow", "0") not in ("0", "false", "")
    async for content in chunks(folder, int(tail), follow=follow):
        if request.transport is None or request.transport.is_closing():
            break
        if content:
            await response.write(content)
    return response
