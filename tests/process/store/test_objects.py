"""s3:// and gs:// against a server that speaks S3."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path
from typing import Any

import boto3
import pytest

from cyxwiz_protocol.location import parse_location
from cyxwiz_store.config import Remote
from cyxwiz_store.folder import ObjectFolder
from cyxwiz_store.guard import Guard
from cyxwiz_store.objects import close, file_system

from .conftest import Node

CONTENT = bytes(range(256)) * 10_000
KEYS = {"accessKeyId": "AKIDEXAMPLE", "secretAccessKey": "hunter2"}


@pytest.fixture(scope="module")
def bucket(s3_endpoint: str) -> Any:
    client = boto3.client(
        "s3",
        endpoint_url=s3_endpoint,
        region_name="us-east-1",
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key="hunter2",
    )
    client.create_bucket(Bucket="data")
    client.put_object(Bucket="data", Key="a folder/x 100%.npz", Body=CONTENT)
    return client


@pytest.fixture
def store(node: Node, bucket: Any, s3_endpoint: str) -> Node:
    store = {"scheme": "s3", "buckets": ["data"], "namespaces": ["team"], "endpoint": s3_endpoint, **KEYS}
    node.remote["stores"] = [store, {**store, "scheme": "gs"}]
    return node


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_an_object_is_fetched_once_and_then_only_asked_about(store: Node, scheme: str) -> None:
    uri = f"{scheme}://data/a folder/x 100%.npz"
    (file,) = store.fetch(uri).fetched
    assert Path(file.path).read_bytes() == CONTENT
    assert (file.sha256, file.name, file.cached) == (hashlib.sha256(CONTENT).hexdigest(), "x 100%.npz", False)
    (again,) = store.fetch(uri).fetched
    assert again.cached


def test_an_object_that_changed_is_fetched_anew(store: Node, bucket: Any) -> None:
    bucket.put_object(Bucket="data", Key="changes", Body=b"one")
    store.fetch("s3://data/changes")
    bucket.put_object(Bucket="data", Key="changes", Body=b"other")
    (file,) = store.fetch("s3://data/changes").fetched
    assert Path(file.path).read_bytes() == b"other"


def test_what_is_not_there_or_not_allowed_is_said(store: Node) -> None:
    assert "there is no such object" in store.refusal("s3://data/absent")
    assert "jobs of namespace other may not use s3://data" in store.refusal("s3://data/absent", namespace="other")
    assert "there are no objects below it" in store.refusal("s3://data/absent/")


@pytest.fixture
def images(bucket: Any) -> dict[str, bytes]:
    """A folder of objects: small ones, one of a megabyte and more, and an empty one."""
    files = {f"train/{label}/{number}.png": f"{label}{number}".encode() * 99 for label in "ab" for number in range(20)}
    files |= {"large.bin": CONTENT, "nothing": b"", f"{'long' * 30}/{'name' * 30}": b"x"}
    for name, content in files.items():
        bucket.put_object(Bucket="data", Key=f"images/{name}", Body=content)
    bucket.put_object(Bucket="data", Key="images/train/", Body=b"")
    return files


def test_a_folder_of_objects_is_one_tar_that_is_fetched_once(
    store: Node, bucket: Any, images: dict[str, bytes]
) -> None:
    (folder,) = store.fetch("s3://data/images/").fetched
    assert (folder.is_folder, folder.name, folder.cached) == (True, "images", False)
    assert unpacked(Path(folder.path)) == images
    (again,) = store.fetch("s3://data/images/").fetched
    assert again.cached
    bucket.put_object(Bucket="data", Key="images/nothing", Body=b"something")
    (changed,) = store.fetch("s3://data/images/").fetched
    assert unpacked(Path(changed.path))["nothing"] == b"something"


def unpacked(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        members = {member.name: tar.extractfile(member) for member in tar}
        return {name: content.read() for name, content in members.items() if content is not None}


async def test_a_folder_of_objects_is_resumed_at_any_byte(s3_endpoint: str, images: dict[str, bytes]) -> None:
    location = parse_location("s3://data/images/")
    remote = Remote.model_validate({"stores": [{"scheme": "s3", "endpoint": s3_endpoint, **KEYS}]})
    guard = Guard(remote.allowed)
    files = file_system(remote.stores[0], guard)
    try:
        folder = ObjectFolder(location, files, guard, 2**30)
        facts = await folder.facts()
        whole = b"".join([part async for part in folder.read(0, facts)])
        assert len(whole) == facts.size
        for start in (1, 511, 512, 513, 5000, len(whole) // 2, len(whole) - 1025, len(whole) - 1, len(whole)):
            assert b"".join([part async for part in folder.read(start, facts)]) == whole[start:], start
    finally:
        await close(files)


def test_a_folder_that_is_too_large_or_has_keys_that_are_no_paths_is_refused(
    store: Node, bucket: Any, images: dict[str, bytes]
) -> None:
    assert "has more than 1000000 objects or 2Mi" in store.refusal("s3://data/images/", largestFile="2Mi")
    for key in ("odd/../up", "odd//x", "odd/back\\slash", "odd/\u202ex"):
        bucket.put_object(Bucket="data", Key=key, Body=b"x")
        assert "has an object that is no path" in store.refusal("s3://data/odd/"), key
        bucket.delete_object(Bucket="data", Key=key)


def test_an_endpoint_at_a_metadata_address_is_not_connected_to(store: Node) -> None:
    store.remote["stores"] = [{"scheme": "s3", "endpoint": "http://169.254.169.254"}]
    assert "link-local or metadata" in store.refusal("s3://data/x")


def test_a_mistake_in_the_configuration_names_its_place_and_no_secret(store: Node) -> None:
    store.remote["stores"][0]["endpoint"] = "minio"
    fetching = store.begin("s3://data/x")
    answer = fetching.answer()
    assert "hunter2" not in fetching.release() + str(answer)
    assert "stores.0.endpoint" in (answer.message or "")
