"""Models put into buckets of a server that speaks S3, and into volumes; each read back before it counts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from cyxwiz_protocol.storing import Offered, StoreOrder, StoreOutcome, Target
from cyxwiz_store.bucket import PART_BYTES

from .conftest import Storing

KEYS = {"accessKeyId": "AKIDEXAMPLE", "secretAccessKey": "hunter2"}
SMALL = {"model.safetensors": b"weights" * 1000, "config.json": b"{}", "SHA256SUMS": b"the last"}


@pytest.fixture(scope="module")
def client(s3_endpoint: str) -> Any:
    keys = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "hunter2"}
    client = boto3.client("s3", endpoint_url=s3_endpoint, region_name="us-east-1", **keys)
    client.create_bucket(Bucket="models")
    return client


@pytest.fixture
def store(client: Any, s3_endpoint: str) -> dict[str, Any]:
    store = {"scheme": "s3", "buckets": ["models", "absent"], "namespaces": ["team"], "endpoint": s3_endpoint}
    return {"stores": [{**store, **KEYS, "write": True}]}


@pytest.fixture
def offered(tmp_path: Path) -> Iterator[Any]:
    """Files as a runner hands them over: open."""
    descriptors: list[int] = []

    def offer(files: dict[str, bytes]) -> list[Offered]:
        offers: list[Offered] = []
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
            descriptors.append(os.open(tmp_path / name, os.O_RDONLY))
            offers.append(Offered(name=name, descriptor=descriptors[-1], bytes=len(content)))
        return offers

    yield offer
    for descriptor in descriptors:
        os.close(descriptor)


def put(uri: str, files: list[Offered], volume: Path | None = None, **remote: Any) -> StoreOutcome:
    target = Target(uri=uri, volume=volume and str(volume))
    storing = Storing(StoreOrder(namespace="team", target=target, files=files, remote=remote))
    outcome = storing.outcome()
    assert "hunter2" not in storing.release() + outcome.model_dump_json()
    return outcome


def test_a_model_lies_in_the_bucket_file_by_file_with_its_digests(client: Any, store: Any, offered: Any) -> None:
    outcome = put("s3://models/team/job", offered(SMALL), **store)
    assert outcome.message is None
    assert [file.name for file in outcome.files][-1] == "SHA256SUMS"
    for file in outcome.files:
        content = client.get_object(Bucket="models", Key=f"team/job/{file.name}")["Body"].read()
        assert content == SMALL[file.name]
        assert (file.sha256, file.bytes) == (hashlib.sha256(content).hexdigest(), len(content))


def test_a_large_file_is_put_in_parts_and_is_the_same(client: Any, store: Any, offered: Any) -> None:
    content = os.urandom(PART_BYTES) + b"the rest"
    outcome = put("s3://models/large", offered({"model.safetensors": content}), **store)
    assert outcome.message is None
    answer = client.get_object(Bucket="models", Key="large/model.safetensors")
    assert answer["ETag"].endswith('-2"'), "two parts"
    assert answer["Body"].read() == content
    assert not client.list_multipart_uploads(Bucket="models").get("Uploads")


def test_a_question_whether_it_could_be_stored_leaves_nothing(client: Any, store: Any) -> None:
    assert put("s3://models/question", [], **store).message is None
    assert not client.list_objects_v2(Bucket="models", Prefix="question").get("Contents")
    assert not client.list_multipart_uploads(Bucket="models").get("Uploads")


@pytest.mark.parametrize("files", [{}, SMALL])
def test_what_cannot_be_stored_says_why(store: Any, offered: Any, files: dict[str, bytes]) -> None:
    def answer(uri: str, **remote: Any) -> StoreOutcome:
        outcome = put(uri, offered(files), **remote)
        assert outcome.message
        assert outcome.files == []
        return outcome

    absent = answer("s3://absent/x", **store)
    assert ("there is no bucket s3://absent" in (absent.message or ""), absent.for_good) == (True, True)
    reads_only = {"stores": [{**store["stores"][0], "write": False}]}
    assert "may read s3://models and not write to it" in (answer("s3://models/x", **reads_only).message or "")
    others = {"stores": [{**store["stores"][0], "namespaces": ["other"]}]}
    assert "jobs of namespace team may not use s3://models" in (answer("s3://models/x", **others).message or "")
    assert "no credentials to write to gs://models" in (answer("gs://models/x", **store).message or "")
    metadata = {"stores": [{**store["stores"][0], "endpoint": "http://169.254.169.254"}]}
    assert "link-local or metadata" in (answer("s3://models/x", **metadata).message or "")


def test_a_store_that_does_not_answer_may_be_asked_again(store: Any, offered: Any) -> None:
    closed: dict[str, Any] = {"stores": [{**store["stores"][0], "endpoint": "http://127.0.0.1:9"}]}
    outcome = put("s3://models/x", offered(SMALL), **closed)
    assert (bool(outcome.message), outcome.for_good) == (True, False)


def test_a_file_that_has_changed_is_not_stored(store: Any, offered: Any, tmp_path: Path) -> None:
    files = offered(SMALL)
    (tmp_path / "model.safetensors").write_bytes(b"longer" * 9000)
    outcome = put("s3://models/changed", files, **store)
    assert "has changed since training ended" in (outcome.message or "")
    assert outcome.file("SHA256SUMS") is None


def test_a_model_lies_in_a_volume_and_replaces_an_older_one(offered: Any, tmp_path: Path) -> None:
    root = tmp_path / "volume"
    (root / "team").mkdir(parents=True)
    assert put("volume://models/team/job", [], root).message is None
    for content in (b"first", b"second"):
        outcome = put("volume://models/team/job", offered({"model.safetensors": content}), root)
        assert outcome.message is None
        path = root / "team" / "job" / "model.safetensors"
        assert path.read_bytes() == content
        assert path.stat().st_mode & 0o777 == 0o644
        assert [file.sha256 for file in outcome.files] == [hashlib.sha256(content).hexdigest()]
    assert [path.name for path in (root / "team" / "job").iterdir()] == ["model.safetensors"]


def test_no_link_in_a_volume_leads_what_is_stored_elsewhere(offered: Any, tmp_path: Path) -> None:
    root, outside = tmp_path / "volume", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "link").symlink_to(outside)
    (root / "file").write_text("no folder")
    for uri in ("volume://models/link/job", "volume://models/link", "volume://models/file/job"):
        for files in ({}, SMALL):
            outcome = put(uri, offered(files), root)
            assert "is a link or no folder" in (outcome.message or ""), outcome
            assert outcome.for_good
    (root / "job").mkdir()
    (root / "job" / "model.safetensors").symlink_to(outside / "victim")
    assert put("volume://models/job", offered(SMALL), root).message is None
    assert (root / "job" / "model.safetensors").read_bytes() == SMALL["model.safetensors"], "the link was replaced"
    assert list(outside.iterdir()) == []
