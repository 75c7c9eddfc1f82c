from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from cyxwiz_protocol.location import parse_location
from cyxwiz_store.config import NotAllowed, Remote

CONFIG = {
    "stores": [
        {"scheme": "s3", "buckets": ["team-a"], "namespaces": ["a"], "accessKeyId": "AK", "secretAccessKey": "hunter2"},
        {"scheme": "s3", "buckets": ["shared"], "endpoint": "http://minio:9000", "write": False},
        {"scheme": "s3", "buckets": ["results"], "endpoint": "https://10.0.0.7", "write": True},
    ]
}


def test_a_bucket_is_reached_with_its_own_store_and_only_by_its_namespaces() -> None:
    remote = Remote.model_validate(CONFIG)
    location = parse_location("s3://team-a/x.npz")
    assert remote.store_for(location, "a").access_key_id == "AK"
    with pytest.raises(NotAllowed, match="namespace b may not use s3://team-a"):
        remote.store_for(location, "b")


def test_a_bucket_of_no_store_is_read_without_credentials_and_never_written() -> None:
    remote = Remote.model_validate(CONFIG)
    assert remote.store_for(parse_location("s3://public/x"), "a").access_key_id is None
    with pytest.raises(NotAllowed, match="no credentials to write to s3://public"):
        remote.store_for(parse_location("s3://public/x"), "a", write=True)
    with pytest.raises(NotAllowed, match="may read s3://shared and not write"):
        remote.store_for(parse_location("s3://shared/x"), "a", write=True)
    assert remote.store_for(parse_location("s3://results/x"), "a", write=True).write


def test_endpoints_are_allowed_and_secrets_are_not_shown() -> None:
    remote = Remote.model_validate(CONFIG)
    assert remote.allowed == ["[minio]:9000", "[10.0.0.7]:443"]
    assert "hunter2" not in repr(remote)
    assert "hunter2" not in str(remote.wire())


@pytest.mark.parametrize(
    "wrong",
    [
        {"cacheSize": "lots"},
        {"allow": ["10.0.0.1/8"]},
        {"store": []},
        {"stores": [{"scheme": "ftp"}]},
        {"stores": [{"scheme": "s3", "endpoint": "minio:9000"}]},
        {"stores": [{"scheme": "s3", "endpoint": "http://user:pw@minio"}]},
        {"stores": [{"scheme": "s3", "secretKey": "typo"}]},
    ],
)
def test_a_mistake_in_the_configuration_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Remote.model_validate(wrong)
