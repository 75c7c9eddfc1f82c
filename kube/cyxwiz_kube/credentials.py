"""Where the API server is and who we are there: from the pod's service account, or from a kubeconfig.

Of a kubeconfig the current context's server, authority, token and client certificate are read. Plug-ins that fetch
tokens (`exec`, `auth-provider`) are not: they are for people at a terminal.
"""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
READ_AGAIN_S = 60.0
"""Projected tokens are replaced on disk when a fifth of their life is left: minutes before the end."""

Token = Callable[[], str | None]
"""The present bearer token; None where a client certificate speaks for us."""


class NoCredentials(Exception):
    """Neither a service account nor a usable kubeconfig; says what is missing."""


class Credentials:
    """One API server and one identity."""

    def __init__(self, server: str, tls: ssl.SSLContext | None, token: Token) -> None:
        self.server = server
        self.tls = tls
        """None: the server speaks plain HTTP."""
        self.token = token

    @classmethod
    def of_pod(cls, folder: Path = SERVICE_ACCOUNT, environ: Mapping[str, str] = os.environ) -> Credentials:
        """Those of the pod's service account. Raises NoCredentials."""
        host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
        if not host or not port:
            raise NoCredentials("KUBERNETES_SERVICE_HOST is not set: this is no pod")
        token = TokenFile(folder / "token")
        try:
            token()
            tls = _tls((folder / "ca.crt").read_text())
        except (OSError, ssl.SSLError) as error:
            raise NoCredentials(f"the service account in {folder} cannot be read: {error}") from error
        return cls(f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}", tls, token)

    @classmethod
    def of_kubeconfig(cls, path: Path) -> Credentials:
        """Those of the current context. Raises NoCredentials."""
        try:
            document = yaml.safe_load(path.read_text())
            context = _named(document, "context", document["current-context"])
            cluster = _named(document, "cluster", context["cluster"])
            user = _named(document, "user", context["user"])
            if not _TOKEN_KEYS & user.keys() and {"exec", "auth-provider"} & user.keys():
                raise NoCredentials(f"{path}: user {context['user']!r} needs a plug-in: give one with a token")
            return cls(cluster["server"], _tls_of(cluster, user, path.parent), _token_of(user, path.parent))
        except (OSError, yaml.YAMLError, ssl.SSLError, LookupError, TypeError, ValueError) as error:
            raise NoCredentials(f"the kubeconfig {path} cannot be used: {type(error).__name__}: {error}") from error


class TokenFile:
    """The token in a file that is replaced from time to time."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._token: str | None = None
        self._read_at = 0.0

    def __call__(self) -> str:
        """Read again once a minute. Raises OSError when it never could be read."""
        now = self._clock()
        if self._token is None or now - self._read_at >= READ_AGAIN_S:
            try:
                self._token = self._path.read_text().strip()
            except OSError:
                if self._token is None:
                    raise
            self._read_at = now
        return self._token


_TOKEN_KEYS = {"token", "tokenFile", "client-certificate", "client-certificate-data"}


def _named(document: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    for entry in document[f"{kind}s"]:
        if entry["name"] == name:
            return entry[kind]
    raise LookupError(f"no {kind} is called {name!r}")


def _token_of(user: dict[str, Any], folder: Path) -> Token:
    if (path := user.get("tokenFile")) is not None:
        return TokenFile(folder / path)
    token = user.get("token")
    return lambda: token


def _tls_of(cluster: dict[str, Any], user: dict[str, Any], folder: Path) -> ssl.SSLContext | None:
    if not cluster["server"].startswith("https"):
        return None
    authority = _pem(cluster, "certificate-authority", folder)
    context = _tls(None if authority is None else authority.decode())
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = _pem(user, "client-certificate", folder), _pem(user, "client-key", folder)
    if certificate is not None:
        with tempfile.NamedTemporaryFile() as file:  # Python's ssl reads client certificates from files alone
            file.write(certificate + b"\n" + (key or b""))
            file.flush()
            context.load_cert_chain(file.name)
    return context


def _pem(entry: dict[str, Any], field: str, folder: Path) -> bytes | None:
    """The content of `field`, which may stand in the kubeconfig itself or in a file beside it."""
    if data := entry.get(f"{field}-data"):
        return base64.b64decode(data)
    return (folder / entry[field]).read_bytes() if entry.get(field) else None


def _tls(authority: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority)
    # Python 3.13 demands a key usage extension that many a cluster's CA lacks; kubectl does not.
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    return context
