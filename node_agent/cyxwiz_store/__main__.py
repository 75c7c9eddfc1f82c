"""`python -m cyxwiz_store --socket-fd N`: fetches the files that its runner names and holds them till it is let go."""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys

from pydantic import ValidationError

from cyxwiz_crds import Failure
from cyxwiz_protocol.fetching import LONGEST_LINE_BYTES, FetchAnswer, FetchOrder
from cyxwiz_protocol.location import BadLocation

from .config import Remote
from .fetch import cache_of, fetch
from .source import Unreachable, Unreadable


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
        answer = asyncio.run(obey(FetchOrder.model_validate_json(line)))
        runner.sendall(answer.model_dump_json(by_alias=True).encode() + b"\n")
        runner.recv(1)  # until the runner has its links: the locks go with this process
    return 0


async def obey(order: FetchOrder) -> FetchAnswer:
    """The answer to `order`. What it fetched stays in the cache as long as this process lives."""
    try:
        remote = Remote.model_validate(order.remote)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        return FetchAnswer(
            failure=Failure.CRASHED,
            message=f"this node's configuration of stores is wrong at {place}: {error.errors()[0]['msg']}",
        )
    try:
        found = await fetch(order, remote, cache_of(order, remote))
    except (BadLocation, Unreadable) as error:
        return FetchAnswer(failure=Failure.USER_ERROR, message=str(error))
    except Unreachable as error:
        return FetchAnswer(failure=Failure.CRASHED, message=f"the data could not be fetched: {error}")
    return FetchAnswer(fetched=[fetched for fetched, _ in found])


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
