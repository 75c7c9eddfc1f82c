"""Who we are to the API server: the pod's service account, or a kubeconfig."""

from __future__ import annotations

import base64
import datetime
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from cyxwiz_devcluster.certificates import Authority
from cyxwiz_kube.credentials import Credentials, NoCredentials

POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


def kubeconfig(folder: Path, cluster: dict[str, Any], user: dict[str, Any]) -> Path:
    path = folder / "kubeconfig"
    document = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1:6443", **cluster}}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(yaml.safe_dump(document))
    return path


def test_a_pods_service_account(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")
    (tmp_path / "token").write_text("abc\n")
    (tmp_path / "ca.crt").write_bytes(authority.pair.certificate.read_bytes())
    credentials = Credentials.of_pod(tmp_path, POD)
    assert credentials.server == "https://10.96.0.1:443"
    assert credentials.authorization() == "bearer abc"
    assert credentials.for_kopf()["token"] == "abc"
    assert credentials.tls is not None
    assert len(credentials.tls.get_ca_certs()) == 1
    assert Credentials.of_pod(tmp_path, {**POD, "KUBERNETES_SERVICE_HOST": "fd00::1"}).server == "https://[fd00::1]:443"


def test_a_rotated_token_is_read_again_within_a_minute_and_a_missing_one_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = datetime.timedelta()
    monkeypatch.setattr("cyxwiz_kube.credentials.ASKED_EVERY_S", 0.0)

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return datetime.datetime.now(tz) + passed

    clock = SimpleNamespace(datetime=Clock, timedelta=datetime.timedelta)
    monkeypatch.setattr("kubernetes.config.incluster_config.datetime", clock)
    (tmp_path / "ca.crt").write_bytes(Authority(tmp_path / "pki").pair.certificate.read_bytes())
    path = tmp_path / "token"
    path.write_text("old")
    credentials = Credentials.of_pod(tmp_path, POD)
    path.write_text("new")
    assert credentials.authorization() == "bearer old"
    passed = datetime.timedelta(minutes=1)
    assert credentials.authorization() == "bearer new"
    path.unlink()
    passed = datetime.timedelta(minutes=3)
    assert credentials.authorization() == "bearer new"


def test_a_kubeconfig_with_a_client_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")
    pair = authority.issue("admin", "admin", groups=["system:masters"])
    encoded = {
        "client-certificate-data": base64.b64encode(pair.certificate.read_bytes()).decode(),
        "client-key-data": base64.b64encode(pair.key.read_bytes()).decode(),
    }
    cluster = {"certificate-authority": str(authority.pair.certificate)}
    credentials = Credentials.of_kubeconfig(kubeconfig(tmp_path, cluster, encoded))
    assert credentials.authorization() is None
    assert credentials.for_kopf()["token"] is None
    assert credentials.tls is not None


def test_a_kubeconfig_with_a_token_beside_it(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("abc")
    assert Credentials.of_kubeconfig(kubeconfig(tmp_path, {}, {"tokenFile": "secret"})).authorization() == "Bearer abc"
    assert Credentials.of_kubeconfig(kubeconfig(tmp_path, {}, {"token": "def"})).authorization() == "Bearer def"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "file is empty"),
        ("{", "ParserError"),
        ("current-context: x\ncontexts: []", "Expected object with name x"),
        ("current-context: x\ncontexts: [{name: x, context: {cluster: c, user: u}}]", "clusters"),
    ],
)
def test_a_kubeconfig_that_is_none_is_answered_with_its_name(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(content)
    with pytest.raises(NoCredentials, match=said):
        Credentials.of_kubeconfig(path)


def test_a_plug_in_is_asked_for_the_token(tmp_path: Path) -> None:
    answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "ghi"}}
    plug_in = {"apiVersion": answer["apiVersion"], "command": "echo", "args": [json.dumps(answer)]}
    credentials = Credentials.of_kubeconfig(kubeconfig(tmp_path, {}, {"exec": plug_in}))
    assert credentials.authorization() == "Bearer ghi"


def test_outside_a_pod_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(NoCredentials, match="host/port is not set"):
        Credentials.of_pod(tmp_path, {})
