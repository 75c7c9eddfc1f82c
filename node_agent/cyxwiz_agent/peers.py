"""Requests that reached the wrong node's agent, passed on to the right one.

The API server's proxy to a Service picks any of its agents. Each knows the others from the Service's EndpointSlices and
passes a request on once; it can neither check nor make the other's signature.
"""

from __future__ import annotations

import time
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, web

from cyxwiz_kube import ApiError, Kube

SERVICE = "cyxwiz-agent"
PORT_NAME = "logs"
PASSED_ON = "X-Cyxwiz-Passed-On"
KNOWN_FOR_S = 10.0
CHUNK_BYTES = 1 << 18
_KEPT_HEADERS = ("Content-Type", "Content-Length", "Content-Range", "Accept-Ranges", "ETag", "X-Content-Type-Options")


def proxy_path(namespace: str) -> str:
    """Where the API server passes requests on to the agents."""
    return f"/api/v1/namespaces/{namespace}/services/{SERVICE}:{PORT_NAME}/proxy"


class Peers:
    """The agents of the other nodes."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube = kube
        self._slices = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        self._found: dict[str, str] = {}
        self._at = float("-inf")

    async def pass_on(self, request: web.Request, node: str) -> web.StreamResponse:
        """What the agent of `node` answers, as it comes."""
        if PASSED_ON in request.headers:
            return web.Response(status=404, text=f"this is not the agent of {node}\n")
        try:
            url = await self._url(node)
        except ApiError as error:
            return web.Response(status=502, text=f"the agent of {node} cannot be looked up: {error.message}\n")
        if url is None:
            return web.Response(status=404, text=f"there is no agent of {node}\n")
        headers = {PASSED_ON: "1"} | {name: request.headers[name] for name in ("Range",) if name in request.headers}
        timeout = ClientTimeout(total=None, sock_connect=5, sock_read=None)
        try:
            async with (
                ClientSession(timeout=timeout, auto_decompress=False) as session,
                session.get(url + request.raw_path, headers=headers, allow_redirects=False) as answer,
            ):
                kept = {name: answer.headers[name] for name in _KEPT_HEADERS if name in answer.headers}
                response = web.StreamResponse(status=answer.status, headers=kept)
                await response.prepare(request)
                async for part in answer.content.iter_any():
                    await response.write(part)
                return response
        except ClientError as error:
            return web.Response(status=502, text=f"the agent of {node} does not answer: {error}\n")

    async def _url(self, node: str) -> str | None:
        if node not in self._found or time.monotonic() - self._at > KNOWN_FOR_S:
            slices = await self._kube.get(self._slices, labelSelector=f"kubernetes.io/service-name={SERVICE}")
            self._found = dict(pair for item in slices["items"] for pair in _urls(item))
            self._at = time.monotonic()
        return self._found.get(node)


def _urls(item: dict[str, Any]) -> list[tuple[str, str]]:
    """Node and URL of each endpoint of a slice."""
    port = next((port["port"] for port in item.get("ports") or () if port.get("name") == PORT_NAME), None)
    host = "[{}]" if item.get("addressType") == "IPv6" else "{}"
    return [
        (endpoint["nodeName"], f"http://{host.format(endpoint['addresses'][0])}:{port}")
        for endpoint in item.get("endpoints") or ()
        if port and endpoint.get("nodeName") and endpoint.get("addresses")
    ]
