"""Named volumes and a store's keys on real kubelets: who reads, who writes, who is refused, and in what words."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest

from cyxwiz_devcluster.machine import FIRST_NODE
from tests.cluster.conftest import SECOND_NODE
from tests.cluster.installation import PROBE, Installation, say, seen_by_probe
from tests.cluster.storage import BUCKET, KEYS, Storage
from tests.thread import digits, finished, status_of

HOSTNAME = "kubernetes.io/hostname"
DATA = {"uri": "volume://digits/small/data.npz"}
Object = dict[str, Any]


def ended(pair: Installation, job: Object, namespace: str = "default") -> Object:
    """Status of the job at its end."""
    job["metadata"]["namespace"] = namespace
    pair.apply(job)
    name = job["metadata"]["name"]
    return status_of(pair.wait_for("tj", name, finished, what="finished", within_s=180, flags=("-n", namespace)))


@pytest.fixture(scope="module", autouse=True)
def data(pair: Installation, storage: Storage) -> None:
    """The same arrays in each volume, and a namespace that may use one more of them."""
    pair.kubectl("create", "namespace", "vision")
    generator = np.random.default_rng(0)
    labels = np.arange(200) % 4
    samples = generator.normal(size=(200, 8)).astype(np.float32) + 3 * labels[:, None]
    for name in ("digits", "vision"):
        folder = storage.of(name) / "small"
        folder.mkdir()
        np.savez(folder / "data.npz", x=samples, y=labels)


@pytest.mark.parametrize("node", [FIRST_NODE, SECOND_NODE])
def test_a_job_reads_a_claim_on_either_node(pair: Installation, node: str) -> None:
    model: Object = {"name": "mlp"}
    status = ended(pair, digits(f"reads-on-{node}", model=model, dataset=DATA, nodeSelector={HOSTNAME: node}))
    assert (status["phase"], status["assignment"]["node"]) == ("Succeeded", node), status
    say(f"volume://digits on {node}: {status['summary']}")


def test_a_namespace_that_may_use_a_volume_reads_it_and_others_hear_why_not(pair: Installation) -> None:
    job = digits("sees", model={"name": "mlp"}, dataset={"uri": "volume://vision/small/data.npz"})
    assert ended(pair, job, "vision")["phase"] == "Succeeded"
    status = ended(pair, job)
    assert (status["phase"], status["reason"]) == ("Failed", "UserError")
    assert "this node has no volume vision for this job's namespace" in status["summary"]
    say(f"another namespace: {status['summary']}")


def test_a_model_is_written_to_a_volume_and_read_back(pair: Installation, storage: Storage) -> None:
    output = {"uri": "volume://models/{namespace}/{name}"}
    status = ended(pair, digits("kept", epochs=1, output=output, nodeSelector={HOSTNAME: SECOND_NODE}))
    assert status["phase"] == "Succeeded", status
    model = status["execution"]["model"]
    assert (model["uri"], model["durable"]) == ("volume://models/default/kept/model.safetensors", True)
    lies = storage.of("models") / "default" / "kept" / "model.safetensors"
    assert hashlib.sha256(lies.read_bytes()).hexdigest() == model["sha256"]
    again = {"name": "cnn", "initFrom": {"job": "kept"}}
    assert ended(pair, digits("looks", jobType="Evaluation", model=again))["phase"] == "Succeeded"


def test_a_volume_that_may_only_be_read_takes_no_model(pair: Installation, storage: Storage) -> None:
    status = ended(pair, digits("misplaced", epochs=1, output={"uri": "volume://digits/models"}))
    assert (status["phase"], status["reason"]) == ("Failed", "UserError")
    assert "no volume digits that jobs of namespace default may write to" in status["summary"]
    say(f"a volume that is read only: {status['summary']}")
    pod = pair.get("pod", pair.node_pod().removeprefix("pod/"), "-n", "cyxwiz-system")
    runner = next(each for each in pod["spec"]["containers"] if each["name"] == "runner")
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in runner["volumeMounts"]}
    assert (mounts["/volumes/digits"], mounts["/volumes/models"]) == (True, False)
    write = ["exec", pair.node_pod(), "-c", "runner", "--", "touch", "/volumes/digits/mark"]
    pair.system(*write, check=False)
    assert not (storage.of("digits") / "mark").exists()


def test_a_model_is_put_into_a_bucket_with_the_keys_of_a_secret(pair: Installation, storage: Storage) -> None:
    output = {"uri": f"s3://{BUCKET}/{{namespace}}/{{name}}"}
    status = ended(pair, digits("bucketed", epochs=1, output=output))
    assert status["phase"] == "Succeeded", status
    model = status["execution"]["model"]
    assert model["uri"] == f"s3://{BUCKET}/default/bucketed/model.safetensors"
    stored = storage.bucket.get_object(Bucket=BUCKET, Key="default/bucketed/model.safetensors")["Body"].read()
    assert hashlib.sha256(stored).hexdigest() == model["sha256"]
    refused = ended(pair, digits("strange", epochs=1, output=output), "vision")
    assert refused["reason"] == "UserError"
    say(f"another namespace's bucket: {refused['summary']}")
    assert KEYS["secretAccessKey"] not in json.dumps([status, refused])


def test_a_job_reads_neither_keys_nor_token(pair: Installation) -> None:
    """The same search by root in the runner's container finds the keys, so it would have."""
    seen = seen_by_probe(pair, "robber")
    say(f"the job saw {seen}")
    assert seen["tried"] > 0
    assert seen["secrets"] == []
    script = pair.system("exec", pair.node_pod(), "-c", "runner", "--", "cat", PROBE)
    command = ["exec", "-i", pair.node_pod(), "-c", "runner", "--", "/opt/cyxwiz/bin/python", "-"]
    found = " ".join(json.loads(pair.system(*command, input=script))["secrets"])
    assert "/etc/cyxwiz/stores/0" in found
    assert "kubernetes.io/serviceaccount" not in found
