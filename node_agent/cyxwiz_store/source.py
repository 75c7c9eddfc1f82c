"""What a file on the network is to the cache: how large it is, which version, and its bytes from a place on."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol


class Unreadable(Exception):
    """The file cannot be had and asking again would not help; says why, for the job's author."""


class Unreachable(Exception):
    """The file could not be had this time; says why."""


class Changed(Exception):
    """The file is another one than when it was asked about: begin anew."""


@dataclass(frozen=True)
class Facts:
    """What a server says of a file before it is read."""

    size: int | None
    """Bytes; None where the server does not say."""
    version: str | None
    """Names these very bytes; None where the server has no such name, so that nothing can be kept or resumed."""


class Source(Protocol):
    """One file on the network."""

    async def facts(self) -> Facts:
        """Raises Unreadable, Unreachable."""
        ...

    def read(self, start: int, facts: Facts) -> AsyncGenerator[bytes]:
        """The bytes from `start` on, of the version in `facts`. Raises Unreadable, Unreachable, Changed."""
        ...
