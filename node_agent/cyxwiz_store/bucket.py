"""A folder of an object store that files are put into: large ones in parts, each sent again until it has arrived."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from typing import Any

from s3fs import S3FileSystem

from cyxwiz_protocol.location import Location
from cyxwiz_protocol.storing import SUMS, Offered

from .guard import Guard
from .objects import CHUNK_BYTES, answered
from .patience import patiently
from .source import Unreachable, Unreadable

PART_BYTES = 16 * 2**20
MOST_PARTS = 9_000
"""Stores take 10,000."""


class Bucket:
    """The objects below one prefix."""

    def __init__(self, location: Location, files: S3FileSystem, guard: Guard) -> None:
        self._location = location
        self._files = files
        self._guard = guard

    async def probe(self) -> None:
        """By an upload that is begun and taken back: the one question that is answered for writing alone."""
        upload = await self._ask("create_multipart_upload", SUMS)
        await self._abort(SUMS, upload["UploadId"])

    async def put(self, file: Offered) -> str:
        digest = hashlib.sha256()
        part_bytes = max(PART_BYTES, -(-file.bytes // MOST_PARTS))
        if file.bytes <= part_bytes:
            content = await _read(file, 0, file.bytes)
            digest.update(content)
            await self._ask("put_object", file.name, Body=content, ContentMD5=_md5(content))
            return digest.hexdigest()
        upload = (await self._ask("create_multipart_upload", file.name))["UploadId"]
        try:
            parts: list[dict[str, Any]] = []
            for start in range(0, file.bytes, part_bytes):
                content = await _read(file, start, min(part_bytes, file.bytes - start))
                digest.update(content)
                number = len(parts) + 1
                given = {"UploadId": upload, "PartNumber": number, "Body": content, "ContentMD5": _md5(content)}
                answer = await self._ask("upload_part", file.name, **given)
                parts.append({"PartNumber": number, "ETag": answer["ETag"]})
            await self._ask("complete_multipart_upload", file.name, UploadId=upload, MultipartUpload={"Parts": parts})
        except BaseException:  # also when this process is told to end: parts that nobody completes are paid for
            await self._abort(file.name, upload)
            raise
        return digest.hexdigest()

    async def read(self, name: str) -> AsyncIterator[bytes]:
        body = (await self._ask("get_object", name))["Body"]
        try:
            while chunk := await self._answered(body.read(CHUNK_BYTES), name):
                yield chunk
        finally:
            body.close()

    async def _abort(self, name: str, upload: str) -> None:
        with contextlib.suppress(Unreadable, Unreachable):  # the store's own rules clear it away
            await self._ask("abort_multipart_upload", name, UploadId=upload)

    async def _ask(self, method: str, name: str, **given: Any) -> Any:
        """The store's answer, asked again while it has none."""
        place = {"Bucket": self._location.authority, "Key": f"{self._location.path.rstrip('/')}/{name}"}
        return await patiently(lambda: self._answered(self._files._call_s3(method, **place, **given), name))

    async def _answered(self, call: Awaitable[Any], name: str) -> Any:
        path = f"{self._location.path.rstrip('/')}/{name}"
        try:
            return await answered(call, replace(self._location, path=path), self._guard)
        except FileNotFoundError as error:
            bucket = f"{self._location.scheme}://{self._location.authority}"
            raise Unreadable(f"{self._location}: there is no bucket {bucket}") from error
        except PermissionError as error:
            raise Unreadable(f"{self._location}: this node's credentials may not write there") from error


async def _read(file: Offered, start: int, count: int) -> bytes:
    content = await asyncio.to_thread(os.pread, file.descriptor, count, start)
    if len(content) < count:
        raise Unreadable(f"{file.name} has become shorter since training ended")
    return content


def _md5(content: bytes) -> str:
    """As the store compares it with what has arrived."""
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
