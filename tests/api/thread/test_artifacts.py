"""What a job leaves: fetched through the API server, started from and evaluated by other jobs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from cyxwiz_platform import Platform, reachable_address
from cyxwiz_platform.platform import LOOPBACK
from tests.doubles.s3 import s3_server
from tests.thread import Object, apply_and_wait, digits, finished, status_of


@dataclass(frozen=True)
class User:
    """Somebody with `view` in the job's namespace and a token of their own."""

    kubectl: Path
    kubeconfig: Path

    def run(self, *arguments: str) -> bytes:
        """What kubectl prints. Raises AssertionError with its complaint."""
        command = [str(self.kubectl), *arguments]
        environ = os.environ | {"KUBECONFIG": str(self.kubeconfig)}
        done = subprocess.run(command, env=environ, capture_output=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout


@pytest.fixture
def viewer(thread: Platform, tmp_path: Path) -> Iterator[User]:
    """May read the jobs of the namespace `default`, and nothing of the platform's."""
    kubectl = thread.cluster.run_kubectl
    kubectl("create", "serviceaccount", "viewer", "-n", "default")
    kubectl("create", "rolebinding", "viewer", "-n", "default", "--clusterrole=view", "--serviceaccount=default:viewer")
    token = kubectl("create", "token", "viewer", "-n", "default").strip()
    yield User(thread.cluster.kubectl, thread.cluster.kubeconfig_for_token(token, tmp_path / "viewer.kubeconfig"))
    kubectl("delete", "rolebinding/viewer", "serviceaccount/viewer", "-n", "default")


@pytest.fixture
def base(thread: Platform) -> Object:
    """A job that has trained a model."""
    job = apply_and_wait(thread, digits("base", epochs=3), finished, "a final phase")
    assert status_of(job)["phase"] == "Succeeded", status_of(job).get("summary")
    return job


def test_a_model_and_a_log_are_fetched_through_the_api_server(thread: Platform, base: Object, viewer: User) -> None:
    if reachable_address() == LOOPBACK:
        pytest.skip("the API server passes nothing on to a loopback address, and this machine has no other private one")
    assert len(thread.machines) > 1
    execution = status_of(base)["execution"]
    path = viewer.run("get", "tj", "base", "-o", "jsonpath={.status.execution.model.downloadPath}").decode()
    for _ in range(8):  # the API server picks any node's agent; whichever it is, the right one answers
        assert hashlib.sha256(viewer.run("get", "--raw", path)).hexdigest() == execution["model"]["sha256"]

    log = viewer.run("get", "--raw", execution["logsPath"] + "?follow=1")
    node = thread.machines[status_of(base)["assignment"]["node"]]
    assert log == node.state.joinpath("jobs", execution["assignmentID"], "trainer.log").read_bytes()

    for forged in (path.replace(execution["model"]["sha256"], "0" * 64), path.replace("model.safetensors", "other")):
        with pytest.raises(AssertionError, match="not signed"):
            viewer.run("get", "--raw", forged)
    with pytest.raises(AssertionError, match="forbidden"):
        viewer.run("get", "--raw", path.replace("cyxwiz-agent:logs", "cyxwiz-agent:http"))


def test_weights_are_evaluated_and_trained_further_where_they_lie(thread: Platform, base: Object) -> None:
    start = {"name": "cnn", "initFrom": {"job": "base"}}
    before = status_of(base)
    accuracy = before["execution"]["progress"]["validationAccuracy"]
    job = apply_and_wait(thread, digits("look", jobType="Evaluation", model=start), finished, "a final phase")
    status = status_of(job)
    assert status["phase"] == "Succeeded", status.get("summary")
    assert status["assignment"]["node"] == before["assignment"]["node"]
    assert status["assignment"]["initFrom"]["sha256"] == before["execution"]["model"]["sha256"]
    assert status["execution"]["progress"]["validationAccuracy"] == accuracy
    assert "model" not in status["execution"]
    assert status["summary"].startswith("Evaluated 180 samples on")

    further = status_of(apply_and_wait(thread, digits("further", epochs=1, model=start), finished, "a final phase"))
    assert further["phase"] == "Succeeded", further.get("summary")
    fresh_loss = float(before["execution"]["progress"]["lossHistory"].split()[0])
    assert float(further["execution"]["progress"]["loss"]) < fresh_loss / 2

    wider = {**start, "options": {"width": 32}}
    refused = status_of(apply_and_wait(thread, digits("wider", model=wider), finished, "a final phase"))
    assert (refused["phase"], refused["reason"]) == ("Failed", "UserError")
    assert "of model.initFrom has shape" in refused["summary"]


@pytest.fixture
def bucket(thread: Platform) -> Iterator[Any]:
    """A bucket `models` that jobs of the namespace `default` may write to."""
    with s3_server() as endpoint:
        keys = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "hunter2"}
        client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)
        client.create_bucket(Bucket="models")
        store = {"scheme": "s3", "buckets": ["models"], "namespaces": ["default"], "endpoint": endpoint, "write": True}
        keys = {"accessKeyId": "AKIDEXAMPLE", "secretAccessKey": "hunter2"}
        thread.remote.write_text(json.dumps({"stores": [store | keys]}))
        yield client
    thread.remote.write_text("{}")


def test_a_model_that_was_asked_for_elsewhere_lies_there_before_its_job_succeeds(
    thread: Platform, bucket: Any, tmp_path: Path
) -> None:
    output = {"uri": "s3://models/{namespace}/{name}", "formats": ["safetensors", "onnx"]}
    job = apply_and_wait(thread, digits("stored", epochs=1, output=output), finished, "a final phase")
    status = status_of(job)
    assert status["phase"] == "Succeeded", status.get("summary")
    model = status["execution"]["model"]
    assert (model["uri"], model["durable"]) == ("s3://models/default/stored/model.safetensors", True)
    (onnx,) = model["exports"]
    assert onnx["uri"] == "s3://models/default/stored/model.onnx"
    assert onnx["message"].startswith("onnxruntime answers as torch: largest difference")
    for file in bucket.list_objects_v2(Bucket="models")["Contents"]:
        name = file["Key"].removeprefix("default/stored/")
        (tmp_path / name).write_bytes(bucket.get_object(Bucket="models", Key=file["Key"])["Body"].read())
    done = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path, check=False)
    assert done.returncode == 0
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.iterdir()}
    assert (digests["model.safetensors"], digests["model.onnx"]) == (model["sha256"], onnx["sha256"])
    assert digests.keys() >= {"config.json", "network.py", "predict.py", "metrics.jsonl"}

    start = {"name": "cnn", "initFrom": {"job": "stored"}}
    looked = status_of(apply_and_wait(thread, digits("relook", jobType="Evaluation", model=start), finished, "its end"))
    assert looked["phase"] == "Succeeded", looked.get("summary")

    elsewhere = {"uri": "s3://others/x"}
    refused = status_of(apply_and_wait(thread, digits("nowhere", output=elsewhere), finished, "a final phase"))
    assert (refused["reason"], refused["attempt"]) == ("UserError", 1)
    assert "no credentials to write to s3://others" in refused["summary"]


def test_a_job_waits_for_the_one_it_starts_from(thread: Platform) -> None:
    later = digits("later", epochs=1, model={"name": "cnn", "initFrom": {"job": "sooner"}})
    waits = apply_and_wait(
        thread, later, lambda job: status_of(job).get("reason") == "WaitingForWeights", "waiting for weights"
    )
    assert "none of that name" in status_of(waits)["summary"]
    thread.apply(digits("sooner", epochs=1))
    done = thread.wait_for("trainingjob", "later", finished, what="a final phase", within_s=90)
    assert status_of(done)["phase"] == "Succeeded", status_of(done).get("summary")
