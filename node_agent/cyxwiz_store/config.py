"""What the administrator lets this node read and write over the network: the file behind the runner's `--remote`.

    {
      "cacheSize": "200Gi",
      "largestFile": "100Gi",
      "allow": ["minio.storage.svc:9000", "10.20.0.0/16"],
      "stores": [
        {"scheme": "s3", "buckets": ["models"], "namespaces": ["team-a"], "endpoint": "http://minio.storage.svc:9000",
         "accessKeyId": "...", "secretAccessKey": "...", "write": true},
        {"scheme": "gs", "accessKeyId": "GOOG...", "secretAccessKey": "..."}
      ]
    }

It holds credentials, so it is the runner's alone, and reaches the fetching process through a pipe. `repr` shows none of
them. In place of the two keys a store may name a folder, `"credentials": "/etc/cyxwiz/stores/models"`, whose files the
runner puts there (`cyxwiz_runner.remote`).
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, SecretStr, field_validator

from cyxwiz_crds import Model, size_bytes
from cyxwiz_protocol.location import Location

from .guard import host_and_port

GOOGLE = "https://storage.googleapis.com"


def _a_size(text: str) -> str:
    size_bytes(text)
    return text


Size = Annotated[str, AfterValidator(_a_size)]


class NotAllowed(ValueError):
    """The configuration gives this job no such access; says why, for the job's author."""


class Store(Model):
    """Access to buckets of one object store."""

    model_config = ConfigDict(extra="forbid")

    scheme: Literal["s3", "gs"]
    buckets: list[str] = []
    """Empty: all that its credentials reach."""
    namespaces: list[str] = []
    """Whose jobs may use it. Empty: everybody's."""
    endpoint: str | None = None
    """http:// or https:// of another server than Amazon's or Google's; connecting to it is allowed."""
    region: str | None = None
    access_key_id: str | None = None
    """With secretAccessKey; of Google an HMAC key. Absent: unsigned requests."""
    secret_access_key: SecretStr | None = None
    session_token: SecretStr | None = None
    write: bool = False
    """Whether jobs may put their results there."""

    @field_validator("endpoint")
    @classmethod
    def _is_an_address(cls, endpoint: str | None) -> str | None:
        if endpoint is not None:
            parts = urlsplit(endpoint)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
                raise ValueError("must be http://host:port or https://host:port")
        return endpoint

    @property
    def url(self) -> str | None:
        """Where requests go; None leaves it to the region."""
        return self.endpoint or (GOOGLE if self.scheme == "gs" else None)


class Remote(Model):
    """All of it. Without a file: public data over https, s3 and gs, unsigned."""

    model_config = ConfigDict(extra="forbid")

    cache_size: Size = "50Gi"
    """Disk the node's cache may take."""
    largest_file: Size = "50Gi"
    """A file, or a folder, larger than this is not fetched."""
    allow: list[str] = []
    """Networks and hosts besides public addresses that may be connected to; never metadata services."""
    certificates: str | None = None
    """File of certificate authorities trusted besides the system's."""
    stores: list[Store] = []
    """The first that fits a job's bucket and namespace is used."""

    @property
    def cache_bytes(self) -> int:
        return size_bytes(self.cache_size)

    @property
    def largest_bytes(self) -> int:
        return min(size_bytes(self.largest_file), self.cache_bytes)

    @property
    def allowed(self) -> list[str]:
        """Networks and hosts that are no public ones, the stores' own endpoints included."""
        endpoints = [urlsplit(store.endpoint) for store in self.stores if store.endpoint]
        ports = {"http": 80, "https": 443}
        hosts = [f"[{parts.hostname}]:{parts.port or ports[parts.scheme]}" for parts in endpoints]
        return [*self.allow, *hosts]

    @field_validator("allow")
    @classmethod
    def _are_addresses(cls, allow: list[str]) -> list[str]:
        for entry in allow:
            try:
                ip_network(entry)
            except ValueError:
                host_and_port(entry)
        return allow

    def store_for(self, location: Location, namespace: str, *, write: bool = False) -> Store:
        """What reaches the bucket of `location` for jobs of `namespace`. Raises NotAllowed."""
        stores = [
            store
            for store in self.stores
            if store.scheme == location.scheme and (not store.buckets or location.authority in store.buckets)
        ]
        theirs = [store for store in stores if not store.namespaces or namespace in store.namespaces]
        fitting = [store for store in theirs if store.write or not write]
        if fitting:
            return fitting[0]
        if theirs:
            raise NotAllowed(f"this node may read {location.scheme}://{location.authority} and not write to it")
        if stores:
            raise NotAllowed(
                f"jobs of namespace {namespace} may not use {location.scheme}://{location.authority} on this node"
            )
        if write:
            raise NotAllowed(f"this node has no credentials to write to {location.scheme}://{location.authority}")
        return Store(scheme="gs" if location.scheme == "gs" else "s3")
