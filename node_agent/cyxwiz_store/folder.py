"""All objects below a prefix as one file: a tar that is put together while it is read, and resumed at any byte of it.

So the cache has one entry for a folder of a million images, with one version: the digest of the store's listing.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import tarfile
import unicodedata
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from typing import Any

from s3fs import S3FileSystem

from cyxwiz_crds import size_text
from cyxwiz_protocol.location import Location

from .guard import Guard
from .objects import CHUNK_BYTES, answered
from .source import Facts, Unreachable, Unreadable

MOST_OBJECTS = 1_000_000
AT_ONCE = 16
"""Small objects are read so many at a time: each by itself takes a way there and back."""
SMALL_BYTES = 2**20
_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)


@dataclass(frozen=True)
class Member:
    """One object."""

    name: str
    """Below the prefix."""
    size: int
    version: str

    @property
    def header(self) -> bytes:
        info = tarfile.TarInfo(self.name)
        info.size, info.mode = self.size, 0o444
        return info.tobuf(tarfile.PAX_FORMAT)

    @property
    def padding(self) -> bytes:
        return bytes(-self.size % _BLOCK)


class ObjectFolder:
    """The objects below one prefix, as a source for the cache."""

    def __init__(self, location: Location, files: S3FileSystem, guard: Guard, largest_bytes: int) -> None:
        self._location = location
        self._files = files
        self._guard = guard
        self._largest = largest_bytes
        self._members: list[Member] = []

    async def facts(self) -> Facts:
        members = [member async for member in self._listed()]
        if not members:
            raise Unreadable(f"{self._location}: there are no objects below it")
        self._members = sorted(members, key=lambda member: member.name)
        digest, size = hashlib.sha256(), len(_END)
        for member in self._members:
            digest.update(f"{member.name}\0{member.size}\0{member.version}\0".encode())
            size += len(member.header) + member.size + len(member.padding)
        return Facts(size, digest.hexdigest())

    async def read(self, start: int, facts: Facts) -> AsyncGenerator[bytes]:
        """The tar from byte `start` on. Raises Changed for an object that is another one than when it was listed."""
        ahead: deque[tuple[Member, int, asyncio.Task[bytes] | None]] = deque()
        try:
            for member, skip in self._from(start):
                small = member.size <= SMALL_BYTES
                ahead.append((member, skip, asyncio.create_task(self._whole(member)) if small else None))
                if len(ahead) >= AT_ONCE or not small:
                    while ahead and (len(ahead) >= AT_ONCE or not small):
                        async for part in self._packed(*ahead.popleft()):
                            yield part
            while ahead:
                async for part in self._packed(*ahead.popleft()):
                    yield part
            assert facts.size is not None
            yield _END[max(0, start - (facts.size - len(_END))) :]
        finally:
            for _, _, task in ahead:
                if task is not None:
                    task.cancel()
            await asyncio.gather(*(task for _, _, task in ahead if task is not None), return_exceptions=True)

    async def _listed(self) -> AsyncGenerator[Member]:
        place = {"Bucket": self._location.authority, "Prefix": self._location.path}
        more: dict[str, str] = {}
        count = total = 0
        while True:
            page = await self._answer(self._files._call_s3("list_objects_v2", **place, **more))
            for entry in page.get("Contents", ()):
                name = str(entry["Key"]).removeprefix(self._location.path)
                if name.endswith("/") or not name:  # how some tools mark a folder
                    continue
                _check(name, self._location)
                count, total = count + 1, total + int(entry["Size"])
                if count > MOST_OBJECTS or total > self._largest:
                    most = f"{MOST_OBJECTS} objects or {size_text(self._largest)}"
                    raise Unreadable(f"{self._location} has more than {most}, the most this node fetches")
                yield Member(name, int(entry["Size"]), str(entry["ETag"]))
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _from(self, start: int) -> Iterator[tuple[Member, int]]:
        """The members that end after byte `start` of the tar, and how much of each lies before it."""
        at = 0
        for member in self._members:
            length = len(member.header) + member.size + len(member.padding)
            if at + length > start:
                yield member, max(0, start - at)
            at += length

    async def _packed(self, member: Member, skip: int, whole: asyncio.Task[bytes] | None) -> AsyncGenerator[bytes]:
        """The member's part of the tar, but for its first `skip` bytes."""
        header = member.header
        yield header[skip:]
        at = max(0, skip - len(header))
        if whole is not None:
            yield (await whole)[at:]
        elif at < member.size:
            async with contextlib.aclosing(self._object(member, at)) as parts:
                async for part in parts:
                    yield part
        yield member.padding[max(0, at - member.size) :]

    async def _whole(self, member: Member) -> bytes:
        async with contextlib.aclosing(self._object(member, 0)) as parts:
            return b"".join([part async for part in parts])

    async def _object(self, member: Member, start: int) -> AsyncGenerator[bytes]:
        if member.size == 0:
            return
        place = {"Bucket": self._location.authority, "Key": self._location.path + member.name}
        part = {"Range": f"bytes={start}-"} if start else {}
        answer = await self._answer(self._files._call_s3("get_object", **place, **part, IfMatch=member.version))
        body, left = answer["Body"], member.size - start
        try:
            while chunk := await self._answer(body.read(CHUNK_BYTES)):
                left -= len(chunk)
                yield chunk
        finally:
            body.close()
        if left:
            raise Unreachable(f"{self._location}{member.name} ended {left} bytes early")

    async def _answer(self, call: Any) -> Any:
        try:
            return await answered(call, self._location, self._guard)
        except FileNotFoundError as error:
            raise Unreadable(f"{self._location}: there is no such bucket or object") from error
        except PermissionError as error:
            raise Unreadable(f"{self._location}: this node's credentials may not list or read it") from error


def _check(name: str, where: Location) -> None:
    """Raises Unreadable for a key that is no path below a folder."""
    parts = name.split("/")
    plain = all(part not in ("", ".", "..") and len(part.encode()) <= 255 for part in parts)
    if not plain or "\\" in name or any(unicodedata.category(letter) in ("Cc", "Cf", "Cs") for letter in name):
        raise Unreadable(f"{where} has an object that is no path: {ascii(name)[:100]}")
