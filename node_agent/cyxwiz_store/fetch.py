"""The files of one job, fetched into the node's cache."""

from __future__ import annotations

from pathlib import Path

from cyxwiz_protocol.fetching import Fetched, FetchOrder
from cyxwiz_protocol.location import Location, parse_location

from . import https
from .cache import Cache, Cached
from .config import NotAllowed, Remote
from .folder import ObjectFolder
from .guard import Guard
from .objects import ObjectFile, close, file_system
from .source import Unreadable


async def fetch(order: FetchOrder, remote: Remote, cache: Cache) -> list[tuple[Fetched, Cached]]:
    """Every file of the order is in the cache and cannot leave it. Raises BadLocation, Unreadable, Unreachable."""
    guard = Guard(remote.allowed)
    found: list[tuple[Fetched, Cached]] = []
    for uri in order.uris:
        location = parse_location(uri)
        cached = await _fetch(location, order.namespace, remote, guard, cache)
        entry = cached.entry
        found.append(
            (
                Fetched(
                    uri=uri,
                    path=str(cached.path),
                    name=location.name,
                    sha256=entry.sha256,
                    bytes=entry.size,
                    version=entry.version,
                    cached=cached.hit,
                    is_folder=location.scheme in ("s3", "gs") and location.path.endswith("/"),
                ),
                cached,
            )
        )
    return found


async def _fetch(location: Location, namespace: str, remote: Remote, guard: Guard, cache: Cache) -> Cached:
    name = str(location)
    if location.scheme == "https":
        async with https.session(guard, remote.certificates) as client:
            key = f"https {location.authority} {location.path} {location.query}"
            return await cache.fetch(key, name, https.HttpsFile(location, client, guard))
    try:
        store = remote.store_for(location, namespace)
    except NotAllowed as error:
        raise Unreadable(f"{name}: {error}") from error
    files = file_system(store, guard, remote.certificates)
    key = f"{store.url} {store.access_key_id} {location.scheme} {location.authority} {location.path}"
    try:
        if location.path.endswith("/"):
            return await cache.fetch(key, name, ObjectFolder(location, files, guard, remote.largest_bytes))
        return await cache.fetch(key, name, ObjectFile(location, files, guard))
    finally:
        await close(files)


def cache_of(order: FetchOrder, remote: Remote) -> Cache:
    """The node's cache within its configured bounds."""
    return Cache(Path(order.cache), remote.cache_bytes, remote.largest_bytes)
