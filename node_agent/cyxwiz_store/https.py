"""https:// files by aiohttp itself: fsspec's reader takes a whole answer into memory and unpacks what is compressed."""

from __future__ import annotations

import contextlib
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from urllib.parse import urljoin

import aiohttp
from yarl import URL

from cyxwiz_protocol.location import BadLocation, Location, parse_location

from .guard import Guard, Refused
from .source import Changed, Facts, Unreachable, Unreadable

MOST_REDIRECTS = 5
CHUNK_BYTES = 2**20
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=15, sock_read=60)
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


def session(guard: Guard, certificates: str | None = None) -> aiohttp.ClientSession:
    """A client that keeps no cookies, follows nothing by itself, unpacks nothing, and asks no proxy."""
    context = ssl.create_default_context()
    if certificates is not None:
        context.load_verify_locations(certificates)
    return aiohttp.ClientSession(
        connector=guard.connector(ssl=context),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=TIMEOUT,
        auto_decompress=False,
        headers={"Accept-Encoding": "identity", "User-Agent": "cyxwiz"},
    )


class HttpsFile:
    """One file behind an address, which may redirect."""

    def __init__(self, location: Location, client: aiohttp.ClientSession, guard: Guard) -> None:
        self._location = location
        self._client = client
        self._guard = guard

    async def facts(self) -> Facts:
        # GET for one byte, not HEAD: an address that was signed for reading is refused for HEAD.
        async with self._get({"Range": "bytes=0-0"}) as answer:
            size = answer.content_length
            if answer.status == 206:
                total = _content_range(answer)[2]
                size = None if total == "*" else int(total)
            return Facts(size, _version(answer))

    async def read(self, start: int, facts: Facts) -> AsyncGenerator[bytes]:
        headers = {"Range": f"bytes={start}-"} if start else {}
        if facts.version is not None and start:
            headers["If-Range"] = facts.version
        async with self._get(headers) as answer:
            if _version(answer) != facts.version:
                raise Changed
            if start and (answer.status != 206 or int(_content_range(answer)[0]) != start):
                raise Changed
            try:
                async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
                    yield chunk
            except (aiohttp.ClientError, TimeoutError) as error:
                raise Unreachable(f"{self._location}: the connection broke off") from error

    @contextlib.asynccontextmanager
    async def _get(self, headers: dict[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        location = self._location
        for _ in range(MOST_REDIRECTS + 1):
            url = _url(location)
            try:
                answer = await self._client.get(URL(url, encoded=True), headers=headers, allow_redirects=False)
            except aiohttp.ClientConnectorError as error:
                raise self._translated(location, error) from error
            except aiohttp.InvalidURL as error:
                raise Unreadable(f"{location} is no address") from error
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise Unreachable(f"{location}: {str(error) or 'no answer in time'}") from error
            async with answer:
                if answer.status not in _REDIRECTS:
                    self._check(location, answer)
                    yield answer
                    return
                location = _redirected(location, url, answer.headers.get("Location", ""))
        raise Unreadable(f"{self._location} redirects more than {MOST_REDIRECTS} times")

    def _translated(self, location: Location, error: aiohttp.ClientConnectorError) -> Unreadable | Unreachable:
        if isinstance(error, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError)):
            return Unreadable(f"{location}: its certificate is not trusted by this node")
        if isinstance(error.os_error, Refused) or self._guard.refused:
            return Unreadable(f"{location}: {self._guard.refused[-1]}, and this node does not connect to it")
        return Unreachable(f"{location}: {error.os_error.strerror or error.os_error}")

    def _check(self, location: Location, answer: aiohttp.ClientResponse) -> None:
        status = answer.status
        if status in _AGAIN:
            raise Unreachable(f"{location} answers {status}")
        if status == 416:
            raise Changed
        if status not in (200, 206):
            hint = {401: ": it wants credentials", 403: ": it may not be read", 404: ": there is no such file"}
            raise Unreadable(f"{location} answers {status}{hint.get(status, '')}")
        if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Unreadable(f"{location} is sent compressed although it was asked for as it is")


def _url(location: Location) -> str:
    return f"https://{location.authority}{location.path}{'?' + location.query if location.query else ''}"


def _redirected(location: Location, url: str, target: str) -> Location:
    try:
        found = parse_location(urljoin(url, target), "its redirect")
    except (BadLocation, ValueError) as error:
        raise Unreadable(f"{location}: {error}") from error
    if found.scheme != "https":
        raise Unreadable(f"{location} redirects to {found.scheme}://: only https:// is followed")
    return found


def _version(answer: aiohttp.ClientResponse) -> str | None:
    """A strong ETag, or the time of the last change."""
    etag = answer.headers.get("ETag", "")
    if etag.startswith('"'):
        return etag[:256]
    return answer.headers.get("Last-Modified", "")[:64] or None


def _content_range(answer: aiohttp.ClientResponse) -> tuple[str, str, str]:
    found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if found is None:
        raise Unreadable(f"{answer.url.host} answers with a part and does not say which")
    return found[1], found[2], found[3]
