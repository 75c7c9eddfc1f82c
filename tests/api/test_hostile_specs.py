"""Objects made to harm, as the API server itself answers them: refused in a sentence, and nothing of them is kept."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml

from cyxwiz_kube import Invalid, Kube, paths
from cyxwiz_kube.credentials import Credentials
from cyxwiz_platform import Platform

from .test_bad_objects import SIZE, job_with

JOBS = paths.training_jobs("default")
NAME = "a lowercase RFC 1123 subdomain"
MIB = 2**20

# (what it is, path below spec, value, words of the answer)
FIELDS: list[tuple[str, str, Any, str]] = [
    ("the largest 64-bit integer", "epochs", 2**63 - 1, "less than or equal to 100000"),
    ("one more than it", "epochs", 2**63, "must be of type integer"),
    ("the smallest 64-bit integer", "priority", -(2**63), "greater than or equal to -1000000000"),
    ("a float for a count", "batchSize", 1e300, "must be of type integer"),
    ("a huge float", "hyperparameters.learningRate", 1e308, "less than or equal to 100"),
    ("a float that rounds to nothing", "hyperparameters.learningRate", -1e-300, "greater than 0"),
    ("a NaN as text", "hyperparameters.learningRate", "NaN", "must be of type number"),
    ("an infinity as text", "hyperparameters.learningRate", "Infinity", "must be of type number"),
    ("hexadecimal", "epochs", "0x10", "must be of type integer"),
    ("octal", "epochs", "0o17", "must be of type integer"),
    ("words of a shell", "epochs", "$(reboot)", "must be of type integer"),
    ("a thousand years", "activeDeadlineSeconds", 31_536_000_000, "less than or equal to 31536000"),
    ("steps without end", "maxSteps", 10**12, "less than or equal to 1000000000"),
    ("a batch of the whole world", "batchSize", 2**40, "less than or equal to 1048576"),
    ("memory of the whole world", "resources.memory", "1Ei", SIZE),
    ("memory with an exponent", "resources.memory", "1e30", SIZE),
    ("memory that is negative nothing", "resources.memory", "-0", SIZE),
    ("memory that is no number", "resources.memory", "NaNGi", SIZE),
    ("memory in other digits", "resources.memory", "８Gi", SIZE),
    ("memory with a line end", "resources.memory", "8Gi\n", SIZE),
    ("memory with a NUL", "resources.memory", "8Gi\0", SIZE),
    ("memory of many digits", "resources.memory", "9" * 21, "Too long: may not be more than 20"),
    ("memory from a shell", "resources.memory", "`reboot`", SIZE),
    ("all GPUs there are", "resources.gpus", 2**31, "less than or equal to 16"),
    ("all CPUs there are", "resources.cpus", 2**31, "less than or equal to 512"),
    ("a model elsewhere", "model.name", "../../etc/passwd", "model.name in body should match"),
    ("a model at an address", "model.name", "https://169.254.169.254/x", "model.name in body should match"),
    ("a model that is an import", "model.name", "os;import os", "model.name in body should match"),
    ("a model that is a dunder", "model.name", "__import__", "model.name in body should match"),
    ("a model from a template", "model.name", "${jndi:ldap://x/y}", "model.name in body should match"),
    ("a model with a line end", "model.name", "cnn\n", "model.name in body should match"),
    ("a model in a terminal's language", "model.name", "\x1b[2Jcnn", "model.name in body should match"),
    ("a model in other letters", "model.name", "сnn", "model.name in body should match"),
    ("a model with a hidden mark", "model.name", "cnn\u200b", "model.name in body should match"),
    ("a model that is a list", "model.name", ["cnn"], "must be of type string"),
    ("code as a model", "model.name", {"$eval": "1"}, 'unknown field "spec.model.name.$eval"'),
    ("an option that is a tree", "model.options", {"width": {"a": {}}}, 'unknown field "spec.model.options.width.a"'),
    ("an option that is a list", "model.options", {"width": [1]}, "must be of type integer,string"),
    ("an option that is a program", "model.options", {"width": "x" * 10_000}, "Too long: may not be more than 64"),
    ("a program", "program", {"inline": "import os"}, 'unknown field "spec.program"'),
    ("a command", "command", ["/bin/sh"], 'unknown field "spec.command"'),
    ("a container", "template", {"spec": {}}, 'unknown field "spec.template"'),
    ("a variable", "env", [{"name": "LD_PRELOAD", "value": "/x"}], 'unknown field "spec.env"'),
    ("a place on the host", "hostPath", "/", 'unknown field "spec.hostPath"'),
    ("a user to run as", "runAsUser", 0, 'unknown field "spec.runAsUser"'),
    ("a prototype", "__proto__", {"admin": True}, 'unknown field "spec.__proto__"'),
    ("a uri that is a list", "dataset.uri", ["file://a"], "must be of type string"),
    ("a uri that is a number", "dataset.uri", 2130706433, "must be of type string"),
    ("a uri without end", "dataset.uri", "file://" + "a/" * 600, "Too long: may not be more than 1024"),
    ("held-out data without end", "dataset.validation.uri", "file://" + "a/" * 600, "Too long: may not be more than"),
    ("held-out data that is a list", "dataset.validation.uri", ["file://a"], "must be of type string"),
    ("headers beside a uri", "dataset.headers", {"Metadata": "true"}, 'unknown field "spec.dataset.headers"'),
    ("an output that is a host", "output.uri", "https://169.254.169.254/x", "must begin with s3://"),
    ("an output on the host", "output.uri", "file:///etc/cron.d", "must begin with s3://"),
    ("an output of another letter", "output.uri", "ѕ3://models/x", "must begin with s3://"),
    ("an output before a line end", "output.uri", "\ns3://models/x", "must begin with s3://"),
    ("an output without end", "output.uri", "s3://" + "a/" * 600, "Too long: may not be more than 1024"),
    ("an output that is a list", "output.uri", ["s3://a/b"], "must be of type string"),
    ("keys beside an output", "output.secretAccessKey", "hunter2", 'unknown field "spec.output.secretAccessKey"'),
    ("a format that is code", "output.formats", ["onnx", "__import__('os')"], "Unsupported value"),
    ("weights without end", "model.initFrom", {"uri": "file://" + "a" * 1024}, "Too long: may not be more than 1024"),
    ("weights and their digest", "model.initFrom", {"job": "a", "sha256": "x"}, 'unknown field "spec.model.initFrom.'),
    ("a column without end", "dataset.labelColumn", "x" * 129, "Too long: may not be more than 128"),
    ("selectors without end", "nodeSelector", {"k": "v" * 64}, "Too long: may not be more than 63"),
    ("null for a number", "hyperparameters.seed", [None], "must be of type integer"),
]  # fmt: skip

# (what it is, the metadata, words of the answer)
METADATA: list[tuple[str, Any, str]] = [
    ("a name that climbs", {"name": "../../secrets/x"}, NAME),
    ("a name that is a place", {"name": "."}, "metadata.name"),
    ("a name of slashes", {"name": "a/b"}, NAME),
    ("an encoded name", {"name": "a%2fb"}, NAME),
    ("a name with a line end", {"name": "a\nb"}, NAME),
    ("a name with a NUL", {"name": "a\0b"}, NAME),
    ("a name for a terminal", {"name": "\x1b]0;owned\x07"}, NAME),
    ("a name that reads backwards", {"name": "a\u202eb"}, NAME),
    ("a name without end", {"name": "a" * 254}, "must be no more than 253"),
    ("no name", {}, "name or generateName is required"),
    ("a label that is code", {"generateName": "a-", "labels": {"x": "$(reboot)"}}, "metadata.labels"),
    ("a label's name that climbs", {"generateName": "a-", "labels": {"../x": "y"}}, "metadata.labels"),
    ("an annotation of a megabyte", {"generateName": "a-", "annotations": {"x": "y" * MIB}}, "Too long"),
    ("a finalizer without a name", {"generateName": "a-", "finalizers": [""]}, "metadata.finalizers"),
    ("an owner that is nobody", {"generateName": "a-", "ownerReferences": [{"name": "x"}]}, "metadata.ownerReferences"),
]  # fmt: skip


def with_spec(text: str) -> str:
    """A whole object whose spec is this JSON, which may be none."""
    kind = '"apiVersion":"cyxwiz.io/v1alpha1","kind":"TrainingJob","metadata":{"generateName":"hostile-"}'
    return f'{{{kind},"spec":{text}}}'


SMALL = '"model":{"name":"cnn"},"dataset":{"uri":"builtin://digits"}'

# (what it is, the very bytes, their media type, the status, words of the answer)
BYTES: list[tuple[str, str | bytes, str, int, str]] = [
    ("NaN", with_spec(f'{{{SMALL},"hyperparameters":{{"learningRate":NaN}}}}'), "json", 400, "invalid character 'N'"),
    ("an infinity", with_spec(f'{{{SMALL},"hyperparameters":{{"learningRate":-Infinity}}}}'), "json", 400, "invalid"),
    ("a number that overflows", with_spec(f'{{{SMALL},"epochs":1e400}}'), "json", 400, "1e400"),
    ("a number beyond every integer", with_spec(f'{{{SMALL},"epochs":{10**30}}}'), "json", 422, "of type integer"),
    ("a million digits", with_spec(f'{{{SMALL},"epochs":{"9" * MIB}}}'), "json", 400, "cannot unmarshal number"),
    ("a key twice", with_spec(f'{{{SMALL},"epochs":1,"epochs":2}}'), "json", 400, "duplicate field"),
    ("a bare control character", with_spec('{"model":{"name":"c\x01"}}'), "json", 400, "invalid character"),
    ("bytes that are no text", b'\xff\xfe{"kind":1}', "json", 400, "invalid character"),
    ("nothing", "", "json", 400, "unexpected end of JSON input"),
    ("a list", "[]", "json", 400, "cannot unmarshal array"),
    ("half an object", with_spec(f"{{{SMALL}"), "json", 400, "unexpected end of JSON input"),
    ("a comment", with_spec(f"{{{SMALL}/**/}}"), "json", 400, "invalid character '/'"),
    ("more after the end", with_spec(f"{{{SMALL}}}") + "{}", "json", 400, "after top-level value"),
    ("a tree of 20,000 levels", with_spec('{"a":' * 20_000 + "1" + "}" * 20_000), "json", 400, "exceeded max depth"),
    ("lists in lists", with_spec("[" * 20_000 + "]" * 20_000), "json", 400, "exceeded max depth"),
    ("five megabytes", with_spec(f'{{{SMALL},"x":"{"y" * 5 * MIB}"}}'), "json", 413, "limit is 3145728"),
    ("another kind", with_spec(f"{{{SMALL}}}").replace("TrainingJob", "Secret"), "json", 422, "must be TrainingJob"),
    ("a pickle", b"\x80\x04\x95cos\nsystem\n", "json", 400, "invalid character"),
    ("a YAML tag", "!!python/object/apply:os.system [reboot]", "yaml", 400, "TrainingJob"),
    ("a YAML bomb", "", "yaml", 400, "excessive aliasing"),
    ("a form", "spec=1", "x-www-form-urlencoded", 415, "the body of the request was in an unknown format"),
    ("XML with an entity", "<!DOCTYPE x [<!ENTITY y SYSTEM 'file:///etc/passwd'>]>", "xml", 415, "unknown format"),
]  # fmt: skip


def yaml_bomb() -> str:
    """A billion laughs: a few hundred bytes of aliases that are gigabytes when written out."""
    levels = [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    return "\n".join(["a0: &a0 [x,x,x,x,x,x,x,x,x]", *levels, "kind: TrainingJob"])


@pytest_asyncio.fixture
async def raw(idle: Platform) -> AsyncIterator[aiohttp.ClientSession]:
    """The administrator's connection, for bytes that no client of ours would send."""
    credentials = Credentials.of_kubeconfig(idle.cluster.kubeconfig)
    connector = aiohttp.TCPConnector(ssl=credentials.tls or False)
    async with aiohttp.ClientSession(credentials.server, connector=connector) as session:
        yield session


@pytest_asyncio.fixture(autouse=True)
async def nothing_is_kept(admin: Kube) -> AsyncIterator[None]:
    yield
    assert (await admin.list(JOBS))["items"] == []


@pytest.mark.parametrize(("path", "value", "words"), [case[1:] for case in FIELDS], ids=[case[0] for case in FIELDS])
async def test_a_hostile_field_is_refused(admin: Kube, path: str, value: Any, words: str) -> None:
    with pytest.raises(Invalid) as refused:
        await admin.create(JOBS, job_with(path, value))
    assert words in refused.value.message


@pytest.mark.parametrize(("metadata", "words"), [case[1:] for case in METADATA], ids=[case[0] for case in METADATA])
async def test_a_hostile_name_is_refused(admin: Kube, metadata: Any, words: str) -> None:
    with pytest.raises(Invalid) as refused:
        await admin.create(JOBS, job_with("epochs", 1) | {"metadata": metadata})
    assert words in refused.value.message


@pytest.mark.parametrize(("body", "media", "status", "words"), [case[1:] for case in BYTES], ids=[c[0] for c in BYTES])
async def test_hostile_bytes_are_refused(
    raw: aiohttp.ClientSession, body: str | bytes, media: str, status: int, words: str
) -> None:
    data = (body or (yaml_bomb() if media == "yaml" else "")).encode() if isinstance(body, str) else body
    headers = {"Content-Type": f"application/{media}", "Accept": "application/json"}
    async with raw.post(JOBS, params={"fieldValidation": "Strict"}, data=data, headers=headers) as answer:
        text = await answer.text()
        assert answer.status == status, text[:500]
    assert words in text


async def test_a_status_sent_with_a_new_job_is_dropped(admin: Kube) -> None:
    body = job_with("epochs", 1) | {"status": {"phase": "Succeeded", "assignment": {"id": "x", "node": "node-a"}}}
    job = await admin.create(JOBS, body)
    assert job["status"] == {"phase": "Pending"}
    await admin.delete(f"{JOBS}/{job['metadata']['name']}", uid=job["metadata"]["uid"])


def test_the_bomb_is_one() -> None:
    """Small as text; the parser in use here, which shares what is named twice, holds it without writing it out."""
    assert len(yaml_bomb()) < 1000
    assert len(json.dumps(yaml.safe_load(yaml_bomb())["a3"])) > 10_000
