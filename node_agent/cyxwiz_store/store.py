"""A job's model, put where its output.uri says and read back from there: what counts is what was read."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from typing import Protocol

from cyxwiz_protocol.location import Location, parse_location
from cyxwiz_protocol.storing import FIELD, SUMS, Offered, StoredFile, StoreOrder, StoreOutcome

from .bucket import Bucket
from .config import NotAllowed, Remote
from .guard import Guard
from .objects import close, file_system
from .source import Unreachable, Unreadable
from .volume import Folder

BEGIN_WITHIN_S = 300.0
SLOWEST_BYTES_PER_S = 1_000_000
"""A store that takes less than this is given up, and the job says so."""


class Place(Protocol):
    """A folder that files are put into."""

    async def probe(self) -> None:
        """Files could be put there. Nothing of it stays. Raises Unreadable, Unreachable."""
        ...

    async def put(self, file: Offered) -> str:
        """The file is there, whole. Returns the SHA-256 of what was sent. Raises Unreadable, Unreachable."""
        ...

    def read(self, name: str) -> AsyncIterator[bytes]:
        """What lies there. Raises Unreadable, Unreachable."""
        ...


async def store(order: StoreOrder, remote: Remote) -> StoreOutcome:
    """Every file of the order is there, or the outcome says why not. An order without files only asks."""
    target = order.target
    location = parse_location(target.uri, FIELD)
    stored: list[StoredFile] = []
    size = sum(file.bytes for file in order.files)
    try:
        async with asyncio.timeout(BEGIN_WITHIN_S + 2 * size / SLOWEST_BYTES_PER_S):
            if target.volume is not None:
                await _into(Folder(target.volume, location), order, stored)
            else:
                await _into_bucket(location, order, remote, stored)
    except (Unreadable, NotAllowed) as error:
        return StoreOutcome(uri=target.uri, files=stored, message=str(error), for_good=True)
    except Unreachable as error:
        return StoreOutcome(uri=target.uri, files=stored, message=str(error))
    except TimeoutError:
        message = f"{location}: slower than {SLOWEST_BYTES_PER_S // 1_000_000} MB/s"
        return StoreOutcome(uri=target.uri, files=stored, message=message)
    return StoreOutcome(uri=target.uri, files=stored)


async def _into_bucket(location: Location, order: StoreOrder, remote: Remote, stored: list[StoredFile]) -> None:
    guard = Guard(remote.allowed)
    files = file_system(remote.store_for(location, order.namespace, write=True), guard, remote.certificates)
    try:
        await _into(Bucket(location, files, guard), order, stored)
    finally:
        await close(files)


async def _into(place: Place, order: StoreOrder, stored: list[StoredFile]) -> None:
    if not order.files:
        await place.probe()
    for file in sorted(order.files, key=lambda file: file.name == SUMS):
        if os.fstat(file.descriptor).st_size != file.bytes:
            raise Unreadable(f"{file.name} has changed since training ended")
        sent = await place.put(file)
        digest, size = hashlib.sha256(), 0
        async for part in place.read(file.name):
            digest.update(part)
            size += len(part)
        if digest.hexdigest() != sent or size != file.bytes:
            raise Unreachable(f"{file.name}: what was read back is not what was sent")
        stored.append(StoredFile(name=file.name, sha256=sent, bytes=size))
