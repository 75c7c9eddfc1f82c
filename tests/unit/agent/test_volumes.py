from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cyxwiz_agent.attempt_files import AttemptFiles
from cyxwiz_crds import TrainingJob
from cyxwiz_protocol.volumes import Volumes, read_volumes

VOLUMES = Volumes.model_validate(
    {
        "volumes": [
            {"name": "shared", "path": "/mnt/shared"},
            {"name": "secret", "path": "/mnt/secret", "namespaces": ["team-a"]},
            {"name": "models", "path": "/mnt/models", "namespaces": ["team-a"], "readOnly": False},
        ]
    }
)


def order_of(state: Path, uri: str, namespace: str, output: str | None = None) -> dict[str, Any]:
    job = TrainingJob.model_validate(
        {
            "metadata": {"name": "job", "namespace": namespace, "uid": "u"},
            "spec": {"model": {"name": "mlp"}, "dataset": {"uri": uri}, "output": {"uri": output}},
            "status": {"attempt": 1, "assignment": {"id": "u-1", "node": "n"}},
        }
    )
    AttemptFiles(state, "n", "u-1").write_order(job, simulated=False, volumes=VOLUMES)
    return json.loads((state / "jobs" / "u-1" / "job.json").read_text())


@pytest.mark.parametrize(
    ("uri", "namespace", "expected"),
    [
        ("volume://shared/x.csv", "anyone", {"shared": "/mnt/shared"}),
        ("volume://secret/x.csv", "team-a", {"secret": "/mnt/secret"}),
        ("volume://secret/x.csv", "team-b", {}),
        ("volume://absent/x.csv", "team-a", {}),
        ("volume://secret/../x.csv", "team-a", {}),
        ("file://secret/x.csv", "team-a", {}),
    ],
)
def test_a_job_learns_of_the_volume_it_names_if_its_namespace_may_use_it(
    tmp_path: Path, uri: str, namespace: str, expected: dict[str, str]
) -> None:
    assert order_of(tmp_path, uri, namespace)["volumes"] == expected


@pytest.mark.parametrize(
    ("output", "namespace", "expected"),
    [
        ("volume://models/{namespace}/{name}", "team-a", "/mnt/models"),
        ("volume://models/x", "team-b", None),
        ("volume://secret/x", "team-a", None),  # read-only
        ("volume://shared/x", "team-a", None),
        ("volume://models/../x", "team-a", None),
        ("volume://absent/x", "team-a", None),
        ("s3://models/x", "team-a", None),
        (None, "team-a", None),
    ],
)
def test_a_job_is_given_a_volume_to_write_to_if_that_is_open_to_its_namespace_for_writing(
    tmp_path: Path, output: str | None, namespace: str, expected: str | None
) -> None:
    order = order_of(tmp_path, "builtin://digits", namespace, output)
    assert order.get("outputVolume") == expected
    assert order["volumes"] == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"volumes": [{"name": "a", "path": "relative"}]},
        {"volumes": [{"name": "A/..", "path": "/mnt"}]},
        {"volumes": [{"name": "a", "path": "/x"}, {"name": "a", "path": "/y"}]},
        {"volumes": [{"name": "a", "path": "/x", "readonly": False}]},
    ],
)
def test_a_mistake_in_the_file_of_volumes_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    (tmp_path / "volumes.json").write_text(json.dumps(wrong))
    with pytest.raises(ValidationError):
        read_volumes(tmp_path / "volumes.json")
