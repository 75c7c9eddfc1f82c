"""List-and-watch: the objects as they are, then every change, without end.

The protocol is Kubernetes' "efficient detection of changes": a consistent list, a watch from its resource version
with bookmarks, a new list after 410 Gone. What went away between two lists is reported as deleted, so that a reader
who follows the stream knows exactly what exists.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from collections.abc import AsyncIterator
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
import orjson

from .errors import ApiError, Expired, from_status

if TYPE_CHECKING:
    from .client import Kube

log = logging.getLogger(__name__)

# The server sends a bookmark about every minute; longer silence means that the connection is dead.
SILENCE_S = 90.0
PAGE = 500
BREATH = 50
"""Objects of a list that are read at a stretch."""


class ChangeKind(Enum):
    """What happened to an object, as far as the reader's selector sees it."""

    PRESENT = "present"
    """It is there, new or changed; `object` is the whole of it."""
    GONE = "gone"
    """Deleted, or no longer selected: only a GET can tell. `object` has at least the name, namespace and uid."""
    SYNCED = "synced"
    """Every object of the list has been told; `object` is empty. Said again after every new list."""


class Change(NamedTuple):
    """One step of the stream."""

    kind: ChangeKind
    object: dict[str, Any]


async def list_and_watch(
    kube: Kube, path: str, *, field_selector: str, label_selector: str = ""
) -> AsyncIterator[Change]:
    """The stream. It never ends and raises nothing but cancellation: outages are logged once and waited out."""
    selectors = {"fieldSelector": field_selector, "labelSelector": label_selector}
    selectors = {name: value for name, value in selectors.items() if value}
    known: dict[str, _Identity] = {}
    delay_s = 0.0
    broken: str | None = None
    while True:
        try:
            version = ""
            listed: set[str] = set()
            uids = {identity: uid for uid, identity in known.items()}
            async for page in _pages(kube, path, field_selector, label_selector):
                version = page["metadata"]["resourceVersion"]
                for number, item in enumerate(page["items"]):
                    if number % BREATH == 0:
                        await asyncio.sleep(0)  # the next page comes in meanwhile
                    uid, identity = item["metadata"]["uid"], _Identity.of(item)
                    earlier = uids.get(identity)
                    if earlier is not None and earlier != uid:
                        # Told before its namesake: a reader may go by names.
                        yield Change(ChangeKind.GONE, known.pop(earlier).as_object(earlier))
                        del uids[identity]
                    known[uid] = identity
                    listed.add(uid)
                    yield Change(ChangeKind.PRESENT, item)
            for uid in known.keys() - listed:
                yield Change(ChangeKind.GONE, known.pop(uid).as_object(uid))
            yield Change(ChangeKind.SYNCED, {})
            if broken is not None:
                log.info("watch of %s works again", path)
            delay_s, broken = 0.0, None
            async for change in _watch_from(kube, path, selectors, version):
                uid = change.object["metadata"]["uid"]
                if change.kind is ChangeKind.GONE:
                    known.pop(uid, None)
                else:
                    known[uid] = _Identity.of(change.object)
                yield change
        except Expired:
            log.info("watch of %s fell behind, listing again", path)
        except ApiError as error:
            if broken is None:
                log.warning("watch of %s broke, trying again: %s", path, error)
            broken = str(error)
            delay_s = min(max(2 * delay_s, 0.2), 10.0)
            await asyncio.sleep(delay_s * random.uniform(0.5, 1.5))  # noqa: S311  # spreads a fleet's retries, keeps no secret


class _Identity(NamedTuple):
    """Who an object is, but for its uid."""

    name: str
    namespace: str | None

    @classmethod
    def of(cls, item: dict[str, Any]) -> _Identity:
        metadata = item["metadata"]
        namespace = metadata.get("namespace")
        return cls(metadata["name"], sys.intern(namespace) if namespace else None)

    def as_object(self, uid: str) -> dict[str, Any]:
        metadata = {"name": self.name, "namespace": self.namespace, "uid": uid}
        return {"metadata": {key: value for key, value in metadata.items() if value is not None}}


async def _pages(kube: Kube, path: str, field_selector: str, label_selector: str) -> AsyncIterator[dict[str, Any]]:
    """The pages of one consistent list, each asked for while the one before is read.

    Whole, fifty thousand objects would be held at once.
    """

    def asked(continue_from: str) -> asyncio.Task[dict[str, Any]]:
        selectors = {"field_selector": field_selector, "label_selector": label_selector}
        return asyncio.create_task(kube.list(path, **selectors, limit=PAGE, continue_from=continue_from))

    coming: asyncio.Task[dict[str, Any]] | None = asked("")
    try:
        while coming is not None:
            page = await coming
            continue_from = page["metadata"].get("continue", "")
            coming = asked(continue_from) if continue_from else None
            yield page
    finally:
        if coming is not None:
            coming.cancel()


async def _watch_from(kube: Kube, path: str, selectors: dict[str, str], version: str) -> AsyncIterator[Change]:
    """Changes since `version`, over as many connections as it takes. Raises ApiError; Expired asks for a new list."""
    while True:
        query = {"watch": "1", "allowWatchBookmarks": "true", "resourceVersion": version} | selectors
        response = await kube.open_stream(path, query, silence_s=SILENCE_S)
        try:
            async for event in _events(response):
                if event["type"] == "ERROR":
                    status = event["object"]
                    raise from_status(int(status.get("code") or 500), status)
                version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] == "DELETED":
                    yield Change(ChangeKind.GONE, event["object"])
                elif event["type"] != "BOOKMARK":
                    yield Change(ChangeKind.PRESENT, event["object"])
        finally:
            response.close()


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """Parsed lines. Ends when the connection does, for whatever reason: the watch goes on from the last version."""
    pending = b""
    try:
        async for chunk in response.content.iter_any():
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                if line:
                    yield orjson.loads(line)
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        log.debug("watch connection ended: %s", error)
    except orjson.JSONDecodeError as error:
        raise Expired(0, "TornLine", str(error)) from error
