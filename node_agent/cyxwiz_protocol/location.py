"""Where data, weights or results are: the one reader of every `uri` of a job. Hostile until it has passed here.

    mock://cifar10?samples=2000          synthetic data
    builtin://digits                     comes with the node
    file://folder/data.npz               below the node's data folder
    volume://name/folder/data.npz        below a named volume of the node
    https://host[:port]/path?query       over TLS
    s3://bucket/key  gs://bucket/key     an object store; keys are taken as they are, without percent-decoding

Pure text: nothing is looked up, opened or connected to. What a node allows is decided where it is read: below a root by
`cyxwiz_protocol.below`, over the network by `cyxwiz_store`.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

LONGEST = 1024
LOCAL = frozenset({"file", "volume"})
REMOTE = frozenset({"https", "s3", "gs"})
"""Schemes that are fetched over the network, by a process that holds no job."""

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,31}")
_VOLUME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_HOST = re.compile(r"(?=.{1,253}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_LIKE_A_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)")
_ESCAPED = {code: f"\\x{code:02x}" for code in (*range(32), 127)}
_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


class BadLocation(ValueError):
    """The text is no location; says what is wrong with it and what to write, for the job's author."""


@dataclass(frozen=True)
class Location:
    """One parsed uri."""

    scheme: str
    """As written, lower case. One that is not in this module may be an installed package's."""
    authority: str
    """Name of the volume, bucket, or host with its port; empty for the others."""
    path: str
    """Decoded and relative, without empty, `.` and `..` parts: may be joined to a root. An object's key. For https the
    path as it is sent, with its slash."""
    query: str = ""
    """What follows the question mark of https and of mock; it may be a signature."""

    @property
    def is_remote(self) -> bool:
        return self.scheme in REMOTE

    @property
    def name(self) -> str:
        """The last part of the path, for messages and to tell the kind of file by its suffix."""
        return self.path.rstrip("/").rpartition("/")[2]

    def __str__(self) -> str:
        """For logs and messages: without the query, which may hold a signature."""
        slash = "/" if self.authority and self.scheme != "https" else ""
        query = "?…" if self.query and self.scheme == "https" else f"?{self.query}" if self.query else ""
        return f"{self.scheme}://{self.authority}{slash}{self.path}{query}"


def parse_location(uri: str, field: str = "dataset.uri") -> Location:
    """The location that `uri` names. Raises BadLocation with a sentence that begins with `field`."""
    try:
        return _parse(uri)
    except BadLocation as error:
        raise BadLocation(f"{field} {_shown(uri)}: {error}") from None


def _parse(uri: str) -> Location:
    if len(uri) > LONGEST:
        raise BadLocation(f"it has {len(uri)} characters, at most {LONGEST} are allowed")
    _check_characters(uri)
    scheme, separator, rest = uri.partition("://")
    if not separator:
        raise BadLocation("it has no scheme: write builtin://digits, for example")
    if not _SCHEME.fullmatch(scheme):
        raise BadLocation("its scheme must be small letters, such as file://")
    if not rest:
        raise BadLocation("nothing follows the scheme")
    return _PARSERS.get(scheme, _plain)(scheme, rest)


def _plain(scheme: str, rest: str) -> Location:
    path, _, query = rest.partition("?")
    return Location(scheme, "", path, query)


def _file(scheme: str, rest: str) -> Location:
    return Location(scheme, "", _relative(_decoded(rest)))


def _volume(scheme: str, rest: str) -> Location:
    name, _, path = rest.partition("/")
    if not _VOLUME.fullmatch(name):
        raise BadLocation("a volume's name has small letters, digits and dashes: write volume://name/path")
    return Location(scheme, name, _relative(_decoded(path)))


def _object(scheme: str, rest: str) -> Location:
    bucket, _, key = rest.partition("/")
    if "@" in bucket:
        raise BadLocation("credentials do not belong here: they come from the node's configuration")
    if not _BUCKET.fullmatch(bucket):
        raise BadLocation(f"a bucket's name has small letters, digits, dots and dashes: write {scheme}://bucket/key")
    folder = "/" if key.endswith("/") else ""
    return Location(scheme, bucket, _relative(key) + folder)


def _https(scheme: str, rest: str) -> Location:
    if "\\" in rest:
        raise BadLocation("a backslash means different things to different readers: write %5C")
    if "#" in rest:
        raise BadLocation("a part after # is never sent: leave it out")
    if _PERCENT.search(rest):
        raise BadLocation("a % must be followed by two hexadecimal digits")
    end = min((place for mark in "/?" if (place := rest.find(mark)) >= 0), default=len(rest))
    authority, (path, _, query) = rest[:end], rest[end:].partition("?")
    for part in path.split("/"):
        if unquote_to_bytes(part) in (b".", b".."):
            raise BadLocation(". and .. are not allowed in the path")
    host = _host_and_port(authority)
    if not path.strip("/"):
        raise BadLocation("it names a host and no file")
    return Location(scheme, host, path, query)


def _host_and_port(authority: str) -> str:
    if "@" in authority:
        raise BadLocation("credentials do not belong here: they come from the node's configuration")
    if authority.startswith("["):
        inside, closed, port = authority[1:].partition("]")
        try:
            address = ipaddress.IPv6Address(inside if closed and "%" not in inside else "")
        except ValueError:
            raise BadLocation("its host is no IPv6 address in brackets") from None
        return f"[{address}]{_port(port)}"
    host, colon, port = authority.lower().partition(":")
    host = host.removesuffix(".")
    last = host.rpartition(".")[2]
    if _LIKE_A_NUMBER.fullmatch(last):
        try:  # else 2130706433, 0x7f.1 and 0177.0.0.1 would be 127.0.0.1 to some readers
            ipaddress.IPv4Address(host)
        except ValueError:
            raise BadLocation("an address must be four decimal numbers, such as 192.0.2.1") from None
    elif not _HOST.fullmatch(host):
        raise BadLocation("its host has letters, digits, dots and dashes only; write others as xn--…")
    return f"{host}{_port(colon + port)}"


def _port(text: str) -> str:
    if not text:
        return ""
    number = text.removeprefix(":")
    if not (text.startswith(":") and re.fullmatch(r"[0-9]{1,5}", number) and 1 <= int(number) <= 65_535):
        raise BadLocation("its port must be a number from 1 to 65535")
    return "" if int(number) == 443 else f":{int(number)}"


def _decoded(path: str) -> str:
    """Percent-decoded once, and checked again: what was hidden shows."""
    for mark in "?#":
        if mark in path:
            raise BadLocation(f"write {mark} of a file's name as %{ord(mark):02X}")
    if _PERCENT.search(path):
        raise BadLocation("a % must be followed by two hexadecimal digits: write % as %25")
    try:
        decoded = unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        raise BadLocation("its percent-encoded bytes are no UTF-8") from None
    _check_characters(decoded)
    return decoded


def _relative(path: str) -> str:
    if "\\" in path:
        raise BadLocation("a backslash means different things to different readers: write /")
    parts = [part for part in path.split("/") if part]
    if ".." in parts or "." in parts:
        raise BadLocation(". and .. are not allowed in the path")
    if not parts:
        raise BadLocation("it names no file")
    if any(len(part.encode()) > 255 for part in parts):
        raise BadLocation("a part of its path is longer than 255 bytes")
    return "/".join(parts)


def _check_characters(text: str) -> None:
    for place, character in enumerate(text):
        # Control, format (bidirectional marks, zero width), surrogate, private and unassigned; line and paragraph ends.
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
            raise BadLocation(f"character U+{ord(character):04X} at place {place} is not allowed")


def _shown(uri: str) -> str:
    """At most 200 printable characters of it, without what may be a password or a signature."""
    head, question, _ = uri.partition("?")
    scheme, separator, rest = head.partition("://")
    authority, slash, path = rest.partition("/")
    if "@" in authority:
        authority = f"***@{authority.rpartition('@')[2]}"
    text = f"{scheme}{separator}{authority}{slash}{path}{'?***' if question else ''}"
    return f"'{text[:200].encode('ascii', 'backslashreplace').decode()}'".translate(_ESCAPED)


_PARSERS: dict[str, Callable[[str, str], Location]] = {
    "file": _file,
    "volume": _volume,
    "s3": _object,
    "gs": _object,
    "https": _https,
}
