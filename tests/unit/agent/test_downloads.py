"""Signed paths: what they give, what they refuse, and on which node."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from cyxwiz_agent.signing import KEY_FILE, VALID_FOR_S, Signer
from cyxwiz_protocol.job_folder import JobFolder, open_inside

from .served import Served, Slices, serving

CONTENT = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MODEL = f"u-1/files/{SHA256}/model/model.safetensors"
SIGNER = Signer("node-a", b"k" * 32)
NOW = 1_800_000_000.0


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    folder = JobFolder.of(tmp_path, "u-1")
    folder.model.mkdir(parents=True)
    (folder.model / "model.safetensors").write_bytes(CONTENT)
    async with serving(tmp_path) as found:
        yield found


async def get(served: Served, url: str, **headers: str) -> tuple[int, bytes, Mapping[str, str]]:
    async with served.session.get(url, headers=headers) as answer:
        return answer.status, await answer.read(), answer.headers


async def test_a_signed_path_brings_the_file(served: Served) -> None:
    status, body, headers = await get(served, served.url(MODEL))
    assert (status, body) == (200, CONTENT)
    assert headers["ETag"] == f'"{SHA256}"'


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("bytes=0-9", 206, slice(0, 10)),
        ("bytes=1000000-", 206, slice(1_000_000, None)),
        ("bytes=-7", 206, slice(-7, None)),
        ("bytes=99999999-", 416, None),
        ("bytes=9-1", 416, None),
        ("lines=1-2", 416, None),
    ],
)
async def test_a_part_can_be_asked_for(served: Served, asked: str, status: int, part: slice | None) -> None:
    found, body, headers = await get(served, served.url(MODEL), Range=asked)
    assert found == status
    if part is not None:
        assert body == CONTENT[part]
        first = part.indices(len(CONTENT))[0]
        assert headers["Content-Range"] == f"bytes {first}-{first + len(body) - 1}/{len(CONTENT)}"


async def test_a_path_that_was_changed_anywhere_is_refused(served: Served) -> None:
    url = served.url(MODEL)
    (JobFolder.of(served.state, "u-2").path).mkdir()
    for old, new in (
        ("u-1", "u-2"),
        ("model.safe", "other.safe"),
        (SHA256, "0" * 64),
        ("files", "logs"),
        ("/v1/", "/v1//"),
    ):
        assert (await get(served, url.replace(old, new)))[0] in (403, 404), new
    signature = url.split("/")[5].split(".")[1]
    for forged in ("0" * 64, "", signature[:-1], signature.upper(), signature[::-1]):
        assert (await get(served, url.replace(signature, forged)))[0] == 403
    assert (await get(served, url))[0] == 200


async def test_a_path_runs_out(served: Served) -> None:
    path = served.signer.file_path("u-1", "model/model.safetensors", SHA256, time.time() - VALID_FOR_S - 86_400)
    status, body, _ = await get(served, f"http://127.0.0.1:{served.port}{path}")
    assert status == 403
    assert b"read it from the job's status again" in body


async def test_a_file_that_has_changed_is_not_sent_under_its_old_digest(served: Served) -> None:
    assert (await get(served, served.url(MODEL)))[0] == 200
    (JobFolder.of(served.state, "u-1").model / "model.safetensors").write_bytes(b"x" * len(CONTENT))
    assert (await get(served, served.url(MODEL)))[0] == 410
    (JobFolder.of(served.state, "u-1").model / "model.safetensors").unlink()
    assert (await get(served, served.url(MODEL)))[0] == 404


@pytest.mark.parametrize(
    "make",
    [
        lambda model, secret: (model / "model.safetensors").symlink_to(secret / "key"),
        lambda model, secret: (model / "model.safetensors").hardlink_to(secret / "key"),
        lambda model, secret: os.mkfifo(model / "model.safetensors"),
        lambda model, secret: (model.rmdir(), model.symlink_to(secret)),
    ],
)
async def test_a_job_cannot_have_other_files_sent(tmp_path: Path, make: Callable[[Path, Path], object]) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    for name in ("key", "model.safetensors"):
        (secret / name).write_bytes(b"secret")
    folder = JobFolder.of(tmp_path, "u-1")
    folder.model.mkdir(parents=True)
    make(folder.model, secret)
    digest = hashlib.sha256(b"secret").hexdigest()
    async with serving(tmp_path) as served:
        status, body, _ = await get(served, served.url(f"u-1/files/{digest}/model/model.safetensors"))
    assert status == 404
    assert b"secret" not in body


@pytest.mark.parametrize(
    "path", ["../agent.key", "/etc/passwd", "a/../../agent.key", "", "model//x", ".", "a/./b", "a\0b"]
)
def test_no_path_leads_out_of_the_folder(tmp_path: Path, path: str) -> None:
    assert SIGNER.file_path("u-1", path, SHA256, NOW) is None
    (tmp_path / "job").mkdir()
    (tmp_path / "agent.key").write_bytes(b"k")
    with pytest.raises(OSError, match=r"no path|No such file|Not a directory"):
        os.close(open_inside(tmp_path / "job", path))


async def test_the_wrong_agent_passes_a_request_on_to_the_right_one(
    served: Served, tmp_path_factory: pytest.TempPathFactory
) -> None:
    slices = Slices()
    slices.ports["node-a"] = served.port
    async with serving(tmp_path_factory.mktemp("b"), "node-b", slices) as other:
        url = served.url(MODEL).replace(str(served.port), str(other.port))
        assert (await get(other, url))[:2] == (200, CONTENT)
        status, body, headers = await get(other, url, Range="bytes=5-9")
        assert (status, body) == (206, CONTENT[5:10])
        assert headers["Content-Range"] == f"bytes 5-9/{len(CONTENT)}"
        assert (await get(other, url.replace("node-a", "node-z")))[0] == 404
        forged = url.replace(SHA256, "0" * 64)
        assert (await get(other, forged))[0] == 403


async def test_a_request_is_passed_on_once(tmp_path: Path) -> None:
    slices = Slices()
    async with serving(tmp_path, "node-b", slices) as other:
        slices.ports["node-z"] = other.port  # an address that is wrong, as after a move
        async with other.session.get(f"http://127.0.0.1:{other.port}/v1/node-z/1.{'0' * 64}/u-1/logs") as answer:
            assert answer.status == 404


def test_the_key_outlives_the_agent_and_is_its_own(tmp_path: Path) -> None:
    path = Signer.of("node-a", tmp_path).log_path("u-1", NOW)
    assert Signer.of("node-a", tmp_path).log_path("u-1", NOW) == path
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    (tmp_path / KEY_FILE).chmod(0o644)
    with pytest.raises(OSError, match="no key of the agent"):
        Signer.of("node-a", tmp_path)


def test_the_path_is_the_same_all_day_and_another_node_signs_another() -> None:
    assert SIGNER.log_path("u-1", NOW) == SIGNER.log_path("u-1", NOW + 3)
    assert SIGNER.log_path("u-1", NOW) != Signer("node-b", b"k" * 32).log_path("u-1", NOW)


@given(st.text(max_size=100))
def test_no_text_is_a_signature(token: str) -> None:
    assert not SIGNER.allows(token, "u-1", "logs", NOW)
