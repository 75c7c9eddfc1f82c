"""Where a job's model is put when training has ended, and what a runner and the process that puts it there say.

    s3://bucket/prefix/{namespace}/{name}     an object store; gs:// likewise
    volume://name/folder/{namespace}/{name}   a named volume of the node that jobs may write to

runner    one line: a StoreOrder, with the files as inherited descriptors
process   one line: a StoreOutcome
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field

from cyxwiz_crds import Model

from .location import BadLocation, Location, parse_location

FIELD = "output.uri"
SCHEMES = ("s3", "gs", "volume")
MOST_FILES = 64
SUMS = "SHA256SUMS"
"""Stored last: where it lies, everything that it names does."""
_PLACEHOLDER = re.compile(r"\{[^{}]*\}?|\}")
_KNOWN = ("{namespace}", "{name}")

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class Target(Model):
    """A place for the files of one model, checked."""

    uri: str
    """Without placeholders."""
    volume: str | None = None
    """Folder of the volume that it names; None for an object store."""


class Offered(Model):
    """One file, open in the process that is to store it."""

    name: FileName
    descriptor: int
    bytes: int


class StoreOrder(Model):
    """Put these files there, for a job of this namespace. Without files: find out whether that could be done."""

    verb: Literal["store"] = "store"
    namespace: str
    target: Target
    files: Annotated[list[Offered], Field(max_length=MOST_FILES)] = []
    remote: dict[str, Any] = {}
    """The administrator's configuration, credentials included; empty for a volume."""


class StoredFile(Model):
    """One file whose bytes were read back from where it was put."""

    name: FileName
    sha256: Annotated[str, Field(max_length=64)]
    bytes: Annotated[int, Field(ge=0, le=2**53)]


class StoreOutcome(Model):
    """What came of it."""

    uri: str
    """Of the folder; a file's is this, a slash and its name."""
    files: Annotated[list[StoredFile], Field(max_length=MOST_FILES)] = []
    message: str | None = None
    """Why not all of it is there; None when it is."""
    for_good: bool = False
    """Asking again would not help before somebody has mended something."""

    def file(self, name: str) -> StoredFile | None:
        return next((file for file in self.files if file.name == name), None)


def output_location(uri: str, namespace: str, name: str) -> Location:
    """The place that output.uri names for this job. Raises BadLocation with a sentence."""
    for found in _PLACEHOLDER.findall(uri):
        if found not in _KNOWN:
            raise BadLocation(f"{FIELD}: {found[:40]!r} stands for nothing here: {' and '.join(_KNOWN)} do")
    location = parse_location(uri.replace("{namespace}", namespace).replace("{name}", name), FIELD)
    if location.scheme not in SCHEMES:
        raise BadLocation(f"{FIELD} {location}: a model is put to s3://, gs:// or volume://")
    return location
