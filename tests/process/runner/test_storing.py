"""A job's model, put elsewhere by the real runner and a real storing process."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from cyxwiz_protocol.job_folder import JobFolder
from tests.doubles.s3 import s3_process

from .conftest import Runner

KEYS = {"accessKeyId": "AKIDEXAMPLE", "secretAccessKey": "hunter2"}
WEIGHTS = hashlib.sha256(b"weights").hexdigest()


@pytest.fixture
def s3() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Of this test alone, and its address."""
    with s3_process() as server:
        yield server


@pytest.fixture
def storing(runner: Runner, s3: tuple[subprocess.Popen[str], str], tmp_path: Path) -> Runner:
    """A runner that may write to the bucket models."""
    config = tmp_path / "remote.json"
    store = {"scheme": "s3", "buckets": ["models"], "endpoint": s3[1], "write": True, **KEYS}
    config.write_text(json.dumps({"stores": [store]}))
    client(s3[1]).create_bucket(Bucket="models")
    runner.start("--remote", str(config))
    return runner


def client(endpoint: str) -> Any:
    keys = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "hunter2"}
    return boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)


def order(uri: str, volume: Path | None = None) -> dict[str, Any]:
    spec = {"model": {"name": "mlp"}, "dataset": {"uri": "builtin://digits"}, "output": {"uri": uri}}
    named = {"assignmentId": "a", "namespace": "team", "name": "job"}
    return {**named, "spec": spec, **({"outputVolume": str(volume)} if volume else {})}


def let_it_end(folder: JobFolder) -> None:
    (folder.path / "go").touch()


def test_a_job_is_over_when_its_model_lies_in_the_bucket(
    storing: Runner, s3: tuple[subprocess.Popen[str], str]
) -> None:
    folder = storing.run("train", **order("s3://models/{namespace}/{name}/"))
    let_it_end(folder)
    job = storing.wait_for_state(folder, "Reaped")
    assert job.exit is not None
    assert (job.exit.cause, job.exit.exit_code) == ("Exited", 0)
    stored = job.exit.stored
    assert stored is not None
    assert (stored.uri, stored.message) == ("s3://models/team/job", None)
    assert stored.files[0].name == "model.safetensors"
    assert stored.files[0].sha256 == WEIGHTS
    body = client(s3[1]).get_object(Bucket="models", Key="team/job/model.safetensors")["Body"]
    assert body.read() == b"weights"
    assert b"hunter2" not in (folder.path / "facts.json").read_bytes()
    assert storing.children() == []


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("s3://absent/x", "this node has no credentials to write to s3://absent"),
        ("volume://models/x", "this node has no volume models that jobs of namespace team may write to"),
        ("s3://models/{uid}", "'{uid}' stands for nothing here: {namespace} and {name} do"),
        ("file://models/x", "a model is put to s3://, gs:// or volume://"),
        ("volume://models/{namespace}/../x", ". and .. are not allowed in the path"),
    ],
)
def test_a_place_that_cannot_be_written_to_ends_the_job_before_it_has_a_trainer(
    storing: Runner, uri: str, words: str
) -> None:
    folder = storing.run("train", gpus=["GPU-1"], **order(uri))
    job = storing.wait_for_state(folder, "Reaped")
    assert job.exit is not None
    assert (job.exit.cause, job.start, job.exit.stored) == ("StartFailed", None, None)
    record = json.loads(folder.metrics.read_text())
    assert record["failure"] == "UserError"
    assert words in record["message"]


def test_a_store_that_hangs_holds_nobody(
    storing: Runner,
    s3: tuple[subprocess.Popen[str], str],
    until: Callable[[Callable[[], Any], str], Any],
) -> None:
    folder = storing.run("train", **order("s3://models/hangs"))
    storing.wait_for_state(folder, "Running")  # so it was asked whether the model could be stored
    s3[0].send_signal(signal.SIGSTOP)
    let_it_end(folder)
    until(lambda: stores_now(storing), "its model is being stored")
    storing.stop(folder, 0)
    job = storing.wait_for_state(folder, "Reaped")
    assert job.exit is not None
    assert (job.exit.cause, job.exit.exit_code) == ("Exited", 0)
    assert job.exit.stored is not None
    assert job.exit.stored.message == "the job was told to stop before it was stored"
    assert "the model was not stored" in folder.log.read_text()
    assert (folder.model / "model.safetensors").read_bytes() == b"weights", "it stays on the node"
    until(lambda: not storing.leftovers(), "nothing is left of it")


def stores_now(runner: Runner) -> bool:
    commands = [Path(f"/proc/{pid}/cmdline") for pid in runner.children()]
    return any(b"cyxwiz_store" in command.read_bytes() for command in commands if command.exists())


def test_links_and_odd_names_in_a_models_folder_are_not_stored(
    runner: Runner, tmp_path: Path, until: Callable[[Callable[[], Any], str], Any]
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    runner.start()
    spoilers: list[Callable[[Path], Any]] = [
        lambda model: (model / "secret").symlink_to("/etc/passwd"),
        lambda model: (model / "secret").hardlink_to(model / "model.safetensors"),
        lambda model: (model / "a\nb").touch(),
        lambda model: (model / "folder").mkdir(),
        lambda model: None,
    ]
    outcomes: list[Any] = []
    for spoil in spoilers:
        folder = runner.run("train", **order("volume://models/{name}", volume))
        until(lambda model=folder.model: (model / "SHA256SUMS").exists(), "there is a model")
        spoil(folder.model)
        let_it_end(folder)
        job = runner.wait_for_state(folder, "Reaped")
        assert job.exit is not None
        outcomes.append(job.exit.stored)
    assert [bool(outcome.message) for outcome in outcomes] == [True, True, True, True, False]
    assert [outcome.files for outcome in outcomes[:4]] == [[], [], [], []]
    assert sorted(path.name for path in (volume / "job").iterdir()) == ["SHA256SUMS", "model.safetensors"]
