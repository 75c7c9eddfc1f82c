"""Object stores through fsspec: S3, what speaks like it, and Google's through the S3 form of its API.

Google's takes HMAC keys there (Cloud Storage, Settings, Interoperability); service account files and workload identity
are not read.
"""

from __future__ import annotations

from s3fs import S3FileSystem

from .config import Store
from .guard import Guard

CONNECT_WITHIN_S = 15
READ_WITHIN_S = 60
CONNECTIONS = 8


def file_system(store: Store, guard: Guard, certificates: str | None = None) -> S3FileSystem:
    """The store as an fsspec file system, to be used inside a running loop; paths are bucket/key.

    Signs with the configuration's credentials or not at all: neither the environment nor a file of the home folder nor
    a metadata service is asked for others. Every connection passes `guard`.
    """
    secret, token = store.secret_access_key, store.session_token
    return S3FileSystem(
        anon=store.access_key_id is None,
        key=store.access_key_id,
        secret=secret.get_secret_value() if secret else None,
        token=token.get_secret_value() if token else None,
        endpoint_url=store.url,
        client_kwargs={
            "region_name": store.region or ("auto" if store.url else "us-east-1"),
            **({"verify": certificates} if certificates else {}),
        },
        config_kwargs={
            "connect_timeout": CONNECT_WITHIN_S,
            "read_timeout": READ_WITHIN_S,
            "max_pool_connections": CONNECTIONS,
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
