"""A fetched folder: a tar whose members are read where they lie, as files of that folder. Nothing is unpacked."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from cyxwiz_trainer.failures import UserError

from .file import File


@dataclass(frozen=True)
class PackedFile(File):
    """One member. Its descriptor is the tar's, and stays the folder's to close."""

    start: int = 0
    length: int = 0

    @property
    def is_folder(self) -> bool:
        return False

    @property
    def size(self) -> int:
        return self.length

    def open(self) -> BinaryIO:
        return io.BufferedReader(_Window(self.descriptor, self.start, self.length))

    def child(self, name: str) -> File | None:
        return None

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class PackedFolder(File):
    """The tar's root, or a folder in it."""

    entries: dict[str, File] = field(default_factory=dict[str, File])

    @property
    def is_folder(self) -> bool:
        return True

    def child(self, name: str) -> File | None:
        return self.entries.get(name)

    def names(self) -> Iterator[str]:
        yield from sorted(name for name in self.entries if not name.startswith("."))

    def close(self) -> None:
        pass


def packed_folder(name: str, path: str) -> PackedFolder:
    """The tar at `path` as the folder `name`. Raises UserError for what is none."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    root = PackedFolder(name, descriptor)
    try:
        with os.fdopen(os.dup(descriptor), "rb") as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                _place(root, member, descriptor)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(f"{name} was not fetched whole: {error}") from error
    return root


def _place(root: PackedFolder, member: tarfile.TarInfo, descriptor: int) -> None:
    *folders, last = member.name.split("/")
    at = root
    for part in folders:
        below = at.entries.setdefault(part, PackedFolder(part, descriptor))
        if not isinstance(below, PackedFolder):  # a store may hold both a and a/b
            raise UserError(f"{member.name[:200]} lies in {part[:100]}, which is a file itself: rename one of them")
        at = below
    if last in at.entries:
        raise UserError(f"{member.name[:200]} is a file and a folder: rename one of them")
    at.entries[last] = PackedFile(last, descriptor, member.offset_data, member.size)


class _Window(io.RawIOBase):
    """Some bytes of a file, as a file."""

    def __init__(self, descriptor: int, start: int, length: int) -> None:
        self._descriptor = descriptor
        self._start = start
        self._length = length
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._length}[whence]
        if base + offset < 0:
            raise ValueError("a place before the beginning")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]  # any buffer
        count = max(0, min(len(buffer), self._length - self._at))
        part = os.pread(self._descriptor, count, self._start + self._at)
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)
