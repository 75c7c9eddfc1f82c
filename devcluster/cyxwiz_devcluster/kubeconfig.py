"""Kubeconfig files: written for a cluster of ours, and read where an existing cluster is named."""

import base64
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .certificates import KeyPair
from .errors import DevclusterError


@dataclass(frozen=True)
class Endpoint:
    """The `cluster` part of a kubeconfig: where an API server is and how it is recognised."""

    entry: dict[str, Any]

    @property
    def server(self) -> str:
        return self.entry["server"]

    def ca(self) -> bytes | None:
        """The PEM of the authority that signed the server's certificate, where the kubeconfig has one."""
        if data := self.entry.get("certificate-authority-data"):
            return base64.b64decode(data)
        if path := self.entry.get("certificate-authority"):
            return Path(path).read_bytes()
        return None


def endpoint(server: str, ca_file: Path) -> Endpoint:
    return Endpoint({"server": server, "certificate-authority-data": _base64(ca_file.read_bytes())})


def read_endpoint(kubeconfig: Path) -> Endpoint:
    """The cluster that the current context of a kubeconfig names."""
    try:
        document = yaml.safe_load(kubeconfig.read_text())
        context = _named(document["contexts"], document["current-context"])["context"]
        entry = dict(_named(document["clusters"], context["cluster"])["cluster"])
        entry["server"] = str(entry["server"])
    except OSError as error:
        raise DevclusterError(f"The kubeconfig {kubeconfig} cannot be read ({error.strerror}).") from error
    except (yaml.YAMLError, KeyError, TypeError, StopIteration) as error:
        raise DevclusterError(
            f"The kubeconfig {kubeconfig} names no cluster with its current context: try it with `kubectl version`."
        ) from error
    if path := entry.get("certificate-authority"):  # relative to the kubeconfig's own folder
        entry["certificate-authority"] = str(kubeconfig.absolute().parent / path)
    return Endpoint(entry)


def write_for_certificate(path: Path, endpoint: Endpoint, user: str, pair: KeyPair) -> Path:
    """A kubeconfig that proves the user by a client certificate."""
    credentials = {
        "client-certificate-data": _base64(pair.certificate.read_bytes()),
        "client-key-data": _base64(pair.key.read_bytes()),
    }
    return _write(path, endpoint, user, credentials)


def write_for_token(path: Path, endpoint: Endpoint, token: str) -> Path:
    """A kubeconfig that sends a bearer token."""
    return _write(path, endpoint, "token", {"token": token.strip()})


def _write(path: Path, endpoint: Endpoint, user: str, credentials: dict[str, str]) -> Path:
    """The file is there whole, and only its owner could read it at any moment."""
    name = "devcluster"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": endpoint.entry}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
        "current-context": name,
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        yaml.safe_dump(document, file, sort_keys=False)
    return temporary.replace(path)


def _named(items: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(item for item in items if item["name"] == name)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
