from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cyxwiz_runner.remote import read_remote


def written(folder: Path, remote: Any) -> Path:
    (folder / "remote.json").write_text(json.dumps(remote))
    return folder / "remote.json"


def test_a_stores_keys_come_from_the_files_of_its_secret(tmp_path: Path) -> None:
    (tmp_path / "accessKeyId").write_text("AK\n")
    (tmp_path / "secretAccessKey").write_text("hunter2\n")
    stores = [{"scheme": "s3", "credentials": str(tmp_path)}, {"scheme": "gs"}]
    assert read_remote(written(tmp_path, {"cacheSize": "1Gi", "stores": stores})) == {
        "cacheSize": "1Gi",
        "stores": [{"scheme": "s3", "accessKeyId": "AK", "secretAccessKey": "hunter2"}, {"scheme": "gs"}],
    }


def test_a_secret_without_a_key_is_named_and_not_quoted(tmp_path: Path) -> None:
    (tmp_path / "accessKeyId").write_text("hunter2")
    remote = written(tmp_path, {"stores": [{"scheme": "s3", "credentials": str(tmp_path)}]})
    with pytest.raises(ValueError, match="has no file secretAccessKey") as refused:
        read_remote(remote)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("other", [[], None, "x", {"stores": None}, {"stores": [1, None]}, {"stores": {"a": 1}}])
def test_what_is_no_configuration_is_left_to_whoever_parses_it(tmp_path: Path, other: Any) -> None:
    assert read_remote(written(tmp_path, other)) == other
