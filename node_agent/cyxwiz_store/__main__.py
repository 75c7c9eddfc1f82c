"""`python -m cyxwiz_store --socket-fd N`: does what its runner's one line asks, answers with one, and waits.

Files that it has fetched stay in the cache, and files that it stores stay open, until its socket is closed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from cyxwiz_crds import Failure
from cyxwiz_protocol.fetching import LONGEST_LINE_BYTES, FetchAnswer, FetchOrder
from cyxwiz_protocol.location import BadLocation
from cyxwiz_protocol.storing import StoreOrder, StoreOutcome

from .config import Remote
from .fetch import cache_of, fetch
from .source import Unreachable, Unreadable
from .store import store

_ORDER: TypeAdapter[FetchOrder | StoreOrder] = TypeAdapter(
    Annotated[FetchOrder | StoreOrder, Field(discriminator="verb")]
)


def main(argv: list[str] | None = None) -> int:
    """One order. Returns the exit code of the process: 0 when the order was answered."""
    parser = argparse.ArgumentParser(prog="python -m cyxwiz_store", description=__doc__)
    parser.add_argument("--socket-fd", type=int, required=True, metavar="N", help="inherited unix stream socket")
    arguments = parser.parse_args(argv)
    os.umask(0o077)
    with socket.socket(fileno=arguments.socket_fd) as runner:
        line = _read_line(runner)
        if line is None:
            return 1
        order = _ORDER.validate_json(line)
        answer = asyncio.run(obey(order) if isinstance(order, FetchOrder) else put(order))
        runner.sendall(answer.model_dump_json(by_alias=True).encode() + b"\n")
        runner.recv(1)  # until the runner has its links: the locks go with this process
    return 0


async def put(order: StoreOrder) -> StoreOutcome:
    """What came of `order`."""
    try:
        remote = Remote.model_validate(order.remote)
    except ValidationError as error:
        return StoreOutcome(uri=order.target.uri, message=_mistake(error))
    return await store(order, remote)


async def obey(order: FetchOrder) -> FetchAnswer:
    """The answer to `order`. What it fetched stays in the cache as long as this process lives."""
    try:
        remote = Remote.model_validate(order.remote)
    except ValidationError as error:
        return FetchAnswer(failure=Failure.CRASHED, message=_mistake(error))
    try:
        found = await fetch(order, remote, cache_of(order, remote))
    except (BadLocation, Unreadable) as error:
        return FetchAnswer(failure=Failure.USER_ERROR, message=str(error))
    except Unreachable as error:
        return FetchAnswer(failure=Failure.CRASHED, message=f"the data could not be fetched: {error}")
    return FetchAnswer(fetched=[fetched for fetched, _ in found])


def _mistake(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"this node's configuration of stores is wrong at {'.'.join(map(str, first['loc']))}: {first['msg']}"


def _read_line(runner: socket.socket) -> bytes | None:
    line = b""
    while not line.endswith(b"\n"):
        part = runner.recv(65_536)
        if not part or len(line) > LONGEST_LINE_BYTES:
            return None
        line += part
    return line


if __name__ == "__main__":
    sys.exit(main())
