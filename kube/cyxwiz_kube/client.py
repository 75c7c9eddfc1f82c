"""One connection pool to one API server, and the verbs CyxWiz needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from .credentials import Credentials, NoCredentials
from .errors import Unavailable, from_status
from .listing import Change, list_and_watch

MERGE_PATCH = "application/merge-patch+json"


class Kube:
    """Requests as plain dictionaries; the caller's models parse them.

    Writes ask for strict field validation: a field the server would drop is an error, not a silence.
    """

    def __init__(self, credentials: Credentials, *, user_agent: str, request_timeout_s: float) -> None:
        self.credentials = credentials
        self._timeout = aiohttp.ClientTimeout(total=request_timeout_s, sock_connect=5)
        self._session = aiohttp.ClientSession(
            base_url=credentials.server,
            connector=aiohttp.TCPConnector(ssl=credentials.tls or False, limit=64),
            headers={"User-Agent": user_agent, "Accept": "application/json"},
            json_serialize=lambda value: orjson.dumps(value).decode(),
        )

    @classmethod
    async def connect(cls, *, kubeconfig: Path | None = None, user_agent: str, request_timeout_s: float = 15) -> Kube:
        """A client for the named kubeconfig, or for the pod's own service account where there is none.

        Raises Unavailable when neither can be read.
        """
        try:
            credentials = Credentials.of_kubeconfig(kubeconfig) if kubeconfig else Credentials.of_pod()
        except NoCredentials as error:
            advice = "give --kubeconfig, or run in a pod with a service account"
            raise Unavailable(0, "NoCredentials", f"{error} ({advice})") from error
        return cls(credentials, user_agent=user_agent, request_timeout_s=request_timeout_s)

    async def __aenter__(self) -> Kube:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """No connection is open any more."""
        await self._session.close()

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        """The object at `path`. Raises NotFound, Forbidden, Unavailable."""
        return await self._request("GET", path, query=query)

    async def list(
        self, path: str, *, field_selector: str = "", label_selector: str = "", limit: int = 0, continue_from: str = ""
    ) -> dict[str, Any]:
        """One page of a consistent list, as the server gives it (`items`, `metadata.resourceVersion`)."""
        query = {"fieldSelector": field_selector, "labelSelector": label_selector}
        query |= {"continue": continue_from, "limit": str(limit) if limit else ""}
        return await self._request("GET", path, query={key: value for key, value in query.items() if value})

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The new object. Raises Conflict when the name is taken."""
        return await self._request("POST", path, body=body, query={"fieldValidation": "Strict"})

    async def replace(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The object after a PUT; with a resource version in its metadata this is a compare-and-swap."""
        return await self._request("PUT", path, body=body, query={"fieldValidation": "Strict"})

    async def merge_patch(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The object after an RFC 7386 merge patch: lists replaced whole, null deletes.

        Raises Conflict when the body carries a stale `metadata.resourceVersion`, Invalid when schema or fence refuse.
        """
        return await self._request(
            "PATCH", path, body=body, content_type=MERGE_PATCH, query={"fieldValidation": "Strict"}
        )

    async def delete(
        self, path: str, *, uid: str, resource_version: str | None = None, grace_s: int | None = None
    ) -> None:
        """The object with this uid is being deleted. Raises NotFound, or Conflict when it is another by now.

        `grace_s` is for pods: a shorter time to end than their own, also for one that is ending already.
        """
        preconditions = {"uid": uid} | ({"resourceVersion": resource_version} if resource_version else {})
        body: dict[str, Any] = {"preconditions": preconditions, "propagationPolicy": "Background"}
        if grace_s is not None:
            body["gracePeriodSeconds"] = grace_s
        await self._request("DELETE", path, body=body)

    def watch(self, path: str, *, field_selector: str = "", label_selector: str = "") -> AsyncIterator[Change]:
        """List-and-watch without end; see `listing`."""
        return list_and_watch(self, path, field_selector=field_selector, label_selector=label_selector)

    async def open_stream(self, path: str, query: dict[str, str], *, silence_s: float) -> aiohttp.ClientResponse:
        """The open response of a watch. The caller closes it. Raises like `get`."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=silence_s)
        try:
            response = await self._session.get(path, params=query, headers=self._authorization(), timeout=timeout)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise Unavailable(0, "NoConnection", str(error) or type(error).__name__) from error
        if response.status >= 400:
            body = await _body(response)
            response.close()
            raise from_status(response.status, body)
        return response

    async def _request(
        self,
        method: str,
        path: str,
        *,
        body: dict[str, Any] | None = None,
        content_type: str = "application/json",
        query: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        headers = self._authorization()
        data = None
        if body is not None:
            headers["Content-Type"] = content_type
            data = orjson.dumps(body)
        try:
            async with self._session.request(
                method, path, params=query, data=data, headers=headers, timeout=self._timeout
            ) as response:
                answer = await _body(response)
                if response.status >= 400:
                    raise from_status(response.status, answer)
                return answer
        except (TimeoutError, asyncio.IncompleteReadError, aiohttp.ClientError, OSError) as error:
            raise Unavailable(0, "NoConnection", str(error) or type(error).__name__) from error

    def _authorization(self) -> dict[str, str]:
        header = self.credentials.authorization()
        return {"Authorization": header} if header else {}


async def _body(response: aiohttp.ClientResponse) -> Any:
    raw = await response.read()
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return raw[:512].decode(errors="replace")
