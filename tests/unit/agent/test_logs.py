"""Job logs over HTTP: what is shown, to whom, and where it ends."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
import pytest_asyncio
from aiohttp import ClientSession
from hypothesis import given
from hypothesis import strategies as st

from cyxwiz_agent.address import Address
from cyxwiz_agent.logs import LONGEST_TAIL_BYTES, MOST_READERS, serve, tail_offset
from cyxwiz_protocol.job_folder import JobFolder, write_json


@dataclass
class Logs:
    """A server on the logs of one state folder."""

    state: Path
    url: str
    session: ClientSession

    def attempt(self, uid: str, attempt: int, log: str | None, name: str = "j") -> JobFolder:
        folder = JobFolder.of(self.state, f"{uid}-{attempt}")
        folder.path.mkdir(parents=True)
        write_json(folder.order, {"namespace": "team", "name": name, "attempt": attempt})
        if log is not None:
            folder.log.write_text(log)
        return folder

    async def get(self, path: str) -> tuple[int, str]:
        async with self.session.get(self.url + path) as answer:
            return answer.status, await answer.text()


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncIterator[Logs]:
    port = await serve(Address("127.0.0.1", 0), tmp_path)
    async with ClientSession() as session:
        yield Logs(tmp_path, f"http://127.0.0.1:{port}", session)


async def test_the_newest_attempt_is_shown(served: Logs) -> None:
    served.attempt("u", 1, "first\n")
    served.attempt("u", 2, "second\n")
    served.attempt("v", 1, "another job\n", name="k")
    assert await served.get("/logs/team/j") == (200, "second\n")


async def test_the_last_lines_are_shown(served: Logs) -> None:
    served.attempt("u", 1, "a\nb\nc\nunfinished")
    assert await served.get("/logs/team/j?tail=2") == (200, "c\nunfinished")
    assert await served.get("/logs/team/j?tail=0") == (200, "")


@pytest.mark.parametrize("tail", ["-1", "many", "10001", "9" * 50, ""])
async def test_a_tail_that_is_no_number_is_refused(served: Logs, tail: str) -> None:
    served.attempt("u", 1, "a\n")
    assert (await served.get(f"/logs/team/j?tail={tail}"))[0] == 400


@pytest.mark.parametrize("name", ["k", "..", "../j", "../../etc/passwd", "j/../j"])
async def test_a_job_that_was_never_here_is_not_found_whatever_its_name(served: Logs, name: str) -> None:
    served.attempt("u", 1, "a\n")
    assert (await served.get(f"/logs/team/{quote(name, safe='')}"))[0] == 404


@pytest.mark.parametrize("make", [lambda path, target: path.symlink_to(target), lambda path, _: os.mkfifo(path)])
async def test_what_is_not_a_file_of_the_job_is_not_shown(served: Logs, make: object, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    folder = served.attempt("u", 1, None)
    assert callable(make)
    make(folder.log, secret)
    assert await served.get("/logs/team/j") == (200, "")


async def test_a_log_is_followed_until_the_attempt_has_ended(served: Logs) -> None:
    folder = served.attempt("u", 1, None)
    async with served.session.get(served.url + "/logs/team/j?follow=1") as answer, asyncio.timeout(10):
        folder.log.write_text("one\n")
        assert await answer.content.readline() == b"one\n"
        with folder.log.open("a") as log:
            log.write("two\n")
        assert await answer.content.readline() == b"two\n"
        with folder.log.open("a") as log:
            log.write("last\n")
        folder.exit.write_text("{}")
        assert await answer.content.read() == b"last\n"


async def test_readers_are_bounded_and_a_reader_that_leaves_makes_room(served: Logs) -> None:
    served.attempt("u", 1, "a\n")
    followers = [await served.session.get(served.url + "/logs/team/j?follow=1") for _ in range(MOST_READERS)]
    assert (await served.get("/logs/team/j"))[0] == 503
    followers[0].close()
    async with asyncio.timeout(10):
        while (await served.get("/logs/team/j"))[0] != 200:  # noqa: ASYNC110  # nothing tells that a reader left
            await asyncio.sleep(0.05)
    for follower in followers:
        follower.close()


def offset_of(path: Path, content: bytes, lines: int) -> int:
    path.write_bytes(content)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return tail_offset(descriptor, lines)
    finally:
        os.close(descriptor)


@given(st.lists(st.binary(max_size=3).map(lambda line: line.replace(b"\n", b"")), max_size=6), st.integers(0, 8))
def test_the_tail_is_the_last_lines(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], tail: int) -> None:
    content = b"".join(line + b"\n" for line in lines)
    offset = offset_of(tmp_path_factory.getbasetemp() / "tail", content, tail)
    assert content[offset:] == b"".join(line + b"\n" for line in (lines[-tail:] if tail else []))


def test_a_line_without_end_is_cut(tmp_path: Path) -> None:
    assert offset_of(tmp_path / "log", b"x" * (LONGEST_TAIL_BYTES + 5), 1) == 5


@pytest.mark.parametrize("text", ["127.0.0.1:8444", "[::1]:1", "10.0.3.7:8444", "[fd00::7]:8444", "100.64.0.9:80"])
def test_logs_are_served_on_loopback_and_private_addresses(text: str) -> None:
    assert Address.parse(text).port == int(text.rpartition(":")[2])


@pytest.mark.parametrize(
    "text", ["0.0.0.0:8444", "[::]:8444", "8.8.8.8:80", ":80", "localhost:80", "127.0.0.1", "10.0.0.1:-1"]
)
def test_logs_are_served_nowhere_else(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        Address.parse(text)
