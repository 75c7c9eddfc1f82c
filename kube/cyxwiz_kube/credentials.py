"""Where the API server is and who we are there: what the official client reads from a service account or a kubeconfig.

So tokens are rotated and kubeconfigs understood, plug-ins included, as in every other tool. A plug-in that must renew
its token holds up the caller while it runs; a pod has none.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml
from kubernetes.client import Configuration
from kubernetes.config import ConfigException, load_kube_config
from kubernetes.config.incluster_config import InClusterConfigLoader

ASKED_EVERY_S = 1.0
"""For each answer the official client works its whole configuration out anew: 0.3 ms, as much as a request costs."""
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class NoCredentials(Exception):
    """Neither a service account nor a usable kubeconfig; says what is missing."""


class Credentials:
    """One API server and one identity."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = cast(Any, configuration)  # the client's types name neither its defaults nor its hooks
        self._authorization: str | None = None
        self._ask_again_at = float("-inf")
        self.server = str(self._configuration.host)
        self.tls = _tls(self._configuration) if self.server.startswith("https") else None
        """None: the server speaks plain HTTP."""

    @classmethod
    def of_pod(cls, folder: Path = SERVICE_ACCOUNT, environ: Mapping[str, str] = os.environ) -> Credentials:
        """Those of the pod's service account; the token is read again once a minute. Raises NoCredentials."""
        configuration = Configuration()
        loader = InClusterConfigLoader(str(folder / "token"), str(folder / "ca.crt"), environ=dict(environ))
        try:
            cast(Any, loader).load_and_set(configuration)
            return cls(configuration)
        except (ConfigException, OSError) as error:
            raise NoCredentials(f"the service account in {folder} cannot be used: {error}") from error

    @classmethod
    def of_kubeconfig(cls, path: Path) -> Credentials:
        """Those of the current context; the file is never written. Raises NoCredentials."""
        configuration = Configuration()
        try:
            load_kube_config(str(path), client_configuration=configuration, persist_config=False)
            return cls(configuration)
        except (ConfigException, OSError, yaml.YAMLError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise NoCredentials(f"the kubeconfig {path} cannot be used: {type(error).__name__}: {error}") from error

    def authorization(self) -> str | None:
        """The header's value, at most a second old; None where a client certificate speaks for us."""
        now = time.monotonic()
        if now < self._ask_again_at:
            return self._authorization
        self._ask_again_at = now + ASKED_EVERY_S
        try:
            header = self._configuration.get_api_key_with_prefix("BearerToken")
        except (ConfigException, OSError):  # a token being replaced: the one before is good for minutes still
            header = self._authorization
        self._authorization = header.strip() if header else None
        return self._authorization

    def for_kopf(self) -> dict[str, Any]:
        """The same, as the fields of `kopf.ConnectionInfo`."""
        scheme, _, token = (self.authorization() or "").partition(" ")
        return {
            "server": self.server,
            "ca_path": self._configuration.ssl_ca_cert,
            "insecure": not self._configuration.verify_ssl,
            "scheme": scheme or None,
            "token": token or None,
            "certificate_path": self._configuration.cert_file,
            "private_key_path": self._configuration.key_file,
        }


def _tls(configuration: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    # Python 3.13 demands a key usage extension that many a cluster's CA lacks; kubectl does not.
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
