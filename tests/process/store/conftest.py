"""A real fetching process, an HTTPS server and a server that speaks S3."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cyxwiz_protocol.fetching import FetchAnswer, FetchOrder
from cyxwiz_protocol.storing import StoreOrder, StoreOutcome
from tests.doubles.s3 import s3_server
from tests.doubles.web import WebServer


class StoreProcess:
    """One `cyxwiz_store` process."""

    def __init__(self, order: FetchOrder | StoreOrder) -> None:
        ours, its = socket.socketpair()
        with its:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cyxwiz_store", "--socket-fd", str(its.fileno())],
                pass_fds=(its.fileno(), *(file.descriptor for file in getattr(order, "files", ()))),
                env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "AWS_EC2_METADATA_DISABLED": "true"},
                stderr=subprocess.PIPE,
            )
        ours.settimeout(120)
        self._socket = ours
        self._socket.sendall(order.model_dump_json(by_alias=True).encode() + b"\n")

    def line(self) -> bytes:
        with self._socket.makefile("rb") as lines:
            line = lines.readline()
        assert line, self.process.communicate()[1].decode()[-2000:]
        return line

    def release(self) -> str:
        """It has ended; what it printed."""
        self._socket.close()
        printed = self.process.communicate(timeout=60)[1].decode()
        assert self.process.returncode == 0, printed
        return printed


class Fetching(StoreProcess):
    """One that fetches."""

    def answer(self) -> FetchAnswer:
        return FetchAnswer.model_validate_json(self.line())


class Storing(StoreProcess):
    """One that stores."""

    def outcome(self) -> StoreOutcome:
        return StoreOutcome.model_validate_json(self.line())


class Node:
    """A cache folder and the administrator's configuration."""

    def __init__(self, cache: Path, remote: dict[str, Any]) -> None:
        self.cache = cache
        self.remote = remote

    def begin(self, *uris: str, namespace: str = "team", **remote: Any) -> Fetching:
        return Fetching(
            FetchOrder(namespace=namespace, uris=list(uris), cache=str(self.cache), remote={**self.remote, **remote})
        )

    def fetch(self, *uris: str, namespace: str = "team", **remote: Any) -> FetchAnswer:
        """The answer of a process that has ended since."""
        fetching = self.begin(*uris, namespace=namespace, **remote)
        answer = fetching.answer()
        fetching.release()
        return answer

    def refusal(self, *uris: str, **options: Any) -> str:
        answer = self.fetch(*uris, **options)
        assert answer.failure == "UserError", answer
        assert answer.message
        return answer.message


@pytest.fixture(scope="module")
def _web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    web = WebServer(tmp_path_factory.mktemp("web"))
    yield web
    web.close()


@pytest.fixture
def web(_web: WebServer) -> WebServer:
    _web.files.clear()
    _web.hits.clear()
    return _web


@pytest.fixture
def node(tmp_path: Path, web: WebServer) -> Node:
    """It may connect to the HTTPS server of the test."""
    return Node(tmp_path / "cache", {"allow": [web.address], "certificates": web.certificates})


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    """A server that speaks S3."""
    with s3_server() as endpoint:
        yield endpoint
