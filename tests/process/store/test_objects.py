"""s3:// and gs:// against a server that speaks S3."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import boto3
import pytest

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
    assert "is a folder" in store.refusal("s3://data/a folder/")


def test_an_endpoint_at_a_metadata_address_is_not_connected_to(store: Node) -> None:
    store.remote["stores"] = [{"scheme": "s3", "endpoint": "http://169.254.169.254"}]
    assert "link-local or metadata" in store.refusal("s3://data/x")


def test_a_mistake_in_the_configuration_names_its_place_and_no_secret(store: Node) -> None:
    store.remote["stores"][0]["endpoint"] = "minio"
    fetching = store.begin("s3://data/x")
    answer = fetching.answer()
    assert "hunter2" not in fetching.release() + str(answer)
    assert "stores.0.endpoint" in (answer.message or "")
