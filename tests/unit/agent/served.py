"""A real server on the files of a state folder, asked with signed paths."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from aiohttp import ClientSession

from cyxwiz_agent.address import Address
from cyxwiz_agent.downloads import Downloads
from cyxwiz_agent.peers import PORT_NAME, Peers
from cyxwiz_agent.signing import Signer
from cyxwiz_kube import Kube


class Slices:
    """What agents ask the API server for: the addresses of the others."""

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        return {
            "items": [
                {
                    "ports": [{"name": PORT_NAME, "port": port}],
                    "endpoints": [{"nodeName": n, "addresses": ["127.0.0.1"]}],
                }
                for n, port in self.ports.items()
            ]
        }


@dataclass
class Served:
    """The server of one node."""

    node: str
    state: Path
    port: int
    signer: Signer
    session: ClientSession

    def url(self, what: str) -> str:
        """`what` is <assignment>/<granted>, perhaps with a query; signed as a report would."""
        assignment, _, granted = what.partition("?")[0].partition("/")
        path = self.signer._signed(assignment, granted, time.time())
        _, question, query = what.partition("?")
        return f"http://127.0.0.1:{self.port}{path}{question}{query}"

    async def text(self, what: str) -> tuple[int, str]:
        async with self.session.get(self.url(what)) as answer:
            return answer.status, await answer.text()


@asynccontextmanager
async def serving(state: Path, node: str = "node-a", slices: Slices | None = None) -> AsyncIterator[Served]:
    """The agent of `node` serves `state` while the block runs."""
    slices = slices or Slices()
    signer = Signer.of(node, state)
    downloads = Downloads(node, state, signer, Peers(cast("Kube", slices), "cyxwiz-system"))
    slices.ports[node] = await downloads.serve(Address("127.0.0.1", 0))
    async with ClientSession() as session:
        yield Served(node, state, slices.ports[node], signer, session)
