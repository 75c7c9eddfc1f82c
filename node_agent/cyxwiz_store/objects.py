"""Object stores through fsspec: S3, what speaks like it, and Google's through the S3 form of its API.

Google's takes HMAC keys there (Cloud Storage, Settings, Interoperability); service account files and workload identity
are not read.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from s3fs import S3FileSystem

from cyxwiz_protocol.location import Location

from .config import Store
from .guard import Guard
from .source import Changed, Facts, Unreachable, Unreadable

CONNECT_WITHIN_S = 15
READ_WITHIN_S = 60
CONNECTIONS = 8
CHUNK_BYTES = 2**20


def file_system(store: Store, guard: Guard, certificates: str | None = None) -> S3FileSystem:
    """The store as an fsspec file system, to be used inside a running loop; paths are bucket/key.

    Signs with the configuration's credentials or not at all: neither the environment nor a file of the home folder nor
    a metadata service is asked for others. Every connection passes `guard`.
    """
    secret, token = store.secret_access_key, store.session_token
    files = S3FileSystem(
        anon=store.access_key_id is None,
        key=store.access_key_id,
        secret=secret.get_secret_value() if secret else None,
        token=token.get_secret_value() if token else None,
        endpoint_url=store.url,
        client_kwargs={
            "region_name": store.region or ("auto" if store.scheme == "gs" else "us-east-1"),
            **({"verify": certificates} if certificates else {}),
        },
        config_kwargs={
            "connect_timeout": CONNECT_WITHIN_S,
            "read_timeout": READ_WITHIN_S,
            "max_pool_connections": CONNECTIONS,
            "retries": {"max_attempts": 1},  # whoever asks counts the tries
            "proxies": {},
            # Only Amazon's own names exist for every bucket.
            "s3": {"addressing_style": "path" if store.url else "virtual"},
            # Newer checksums of uploads are Amazon's alone.
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
            "connector_args": {
                "use_dns_cache": False,
                "resolver": guard,
                "socket_factory": guard.open_socket,
            },
        },
        asynchronous=True,
        skip_instance_cache=True,
        use_listings_cache=False,
    )
    files.retries = 1
    return files


class ObjectFile:
    """One object of a store."""

    def __init__(self, location: Location, files: S3FileSystem, guard: Guard) -> None:
        self._location = location
        self._files = files
        self._guard = guard
        self._place = {"Bucket": location.authority, "Key": location.path}

    async def facts(self) -> Facts:
        head = await self._answer(self._files._call_s3("head_object", **self._place))
        return Facts(int(head["ContentLength"]), str(head["ETag"])[:256])

    async def read(self, start: int, facts: Facts) -> AsyncGenerator[bytes]:
        part = {"Range": f"bytes={start}-"} if start else {}
        answer = await self._answer(
            self._files._call_s3("get_object", **self._place, **part, IfMatch=facts.version)  # else two versions mix
        )
        body = answer["Body"]
        try:
            while chunk := await self._answer(body.read(CHUNK_BYTES)):
                yield chunk
        finally:
            body.close()

    async def _answer(self, call: Awaitable[Any]) -> Any:
        try:
            return await answered(call, self._location, self._guard)
        except FileNotFoundError as error:
            raise Unreadable(f"{self._location}: there is no such object") from error
        except PermissionError as error:
            raise Unreadable(f"{self._location}: this node's credentials may not read it") from error


async def answered(call: Awaitable[Any], where: Location, guard: Guard) -> Any:
    """What the store says. Raises FileNotFoundError and PermissionError, and what else it says as ours.

    s3fs has made OSErrors of most errors.
    """
    try:
        return await call
    except (FileNotFoundError, PermissionError):
        raise
    except (OSError, BotoCoreError, ClientError) as error:
        if guard.refused:
            reason = f"{guard.refused[-1]}, and this node does not connect to it"
            raise Unreadable(f"{where}: {reason}") from error
        if "PreconditionFailed" in str(error) or "pre-condition" in str(error):
            raise Changed from error
        raise Unreachable(f"{where}: {str(error)[:200]}") from error


async def close(files: S3FileSystem) -> None:
    """Its connections are closed."""
    with contextlib.suppress(AttributeError):  # never connected
        await files._s3creator.__aexit__(None, None, None)
