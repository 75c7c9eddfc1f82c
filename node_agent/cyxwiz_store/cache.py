"""The node's cache of files from the network: bounded, complete files only, told apart by their servers' versions.

    <cache>/<key>/data        the file, read-only; a job that uses it has a hard link to it
    <cache>/<key>/entry.json  its version, size and SHA-256; its time of change is the last use
    <cache>/<key>/part        a file that is not complete yet, and part.json, what it will be
    <cache>/<key>/lock        held while it is fetched, and until the caller has its link

Whatever is in there was fetched with the access of a store, so the store is part of the key: another's jobs ask the
server themselves before they get it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from cyxwiz_crds import Model, size_text

from .patience import FIRST_PAUSE_S, TRIES, patiently
from .source import Changed, Facts, Source, Unreachable, Unreadable

GROWTH_BYTES = 64 * 2**20
"""By so much a file of unknown size is given room at a time."""


class Entry(Model):
    """A complete file, or what a part will be."""

    version: str | None
    size: int
    sha256: str = ""


@dataclass(frozen=True)
class Cached:
    """A file that stays where it is until its lock is closed."""

    path: Path
    entry: Entry
    hit: bool
    """It was there already."""
    lock: int


class Cache:
    """One folder, shared by all fetching processes of a node."""

    def __init__(self, folder: Path, limit_bytes: int, largest_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._limit = limit_bytes
        self._largest = largest_bytes

    async def fetch(self, key: str, name: str, source: Source) -> Cached:
        """The file of `source`, complete and as its server has it now. Raises Unreadable, Unreachable.

        `name` is for messages.
        """
        slot = Slot(self._folder / hashlib.sha256(key.encode()).hexdigest()[:40])
        lock = await asyncio.to_thread(slot.lock)
        try:
            facts = await patiently(source.facts)
            entry = await asyncio.to_thread(slot.complete, facts)
            hit = entry is not None
            if entry is None:
                entry = await self._download(slot, name, source, facts)
            os.utime(slot.entry)
            fcntl.flock(lock, fcntl.LOCK_SH)  # others may use it too, none may remove it
        except BaseException:
            os.close(lock)
            raise
        return Cached(slot.data, entry, hit, lock)

    async def _download(self, slot: Slot, name: str, source: Source, facts: Facts) -> Entry:
        tries = 0
        while True:
            before = slot.begin(facts)
            try:
                await self._append(slot, name, source, facts)
                return await asyncio.to_thread(slot.finish, facts)
            except Changed:
                slot.drop_part()
                facts = await patiently(source.facts)
                tries += 1
                if tries >= TRIES:
                    raise Unreachable(f"{name} changed {TRIES} times while it was read") from None
            except Unreachable:
                tries = 1 if slot.part_size() > before else tries + 1
                if tries >= TRIES:
                    raise
                await asyncio.sleep(FIRST_PAUSE_S * 2**tries)

    async def _append(self, slot: Slot, name: str, source: Source, facts: Facts) -> None:
        """The part is complete. What is there already is kept."""
        done = slot.part_size()
        most = min(self._largest, self._largest if facts.size is None else facts.size)
        self._check_size(name, facts.size or 0)
        room = facts.size if facts.size is not None else done + GROWTH_BYTES
        self._make_room(slot, name, room)
        if facts.size is not None and done == facts.size:
            return
        with slot.part.open("ab") as part:
            async with contextlib.aclosing(source.read(done, facts)) as chunks:
                async for chunk in chunks:
                    done += len(chunk)
                    if done > most:
                        self._check_size(name, done)
                        raise Unreadable(f"{name}: the server sends more than the {facts.size} bytes it announced")
                    if done > room:
                        room = done + GROWTH_BYTES
                        self._make_room(slot, name, room)
                    part.write(chunk)
        if facts.size is not None and done < facts.size:
            raise Unreachable(f"{name} ended after {done} of {facts.size} bytes")

    def _check_size(self, name: str, size: int) -> None:
        if size > self._largest:
            raise Unreadable(f"{name} is larger than {size_text(self._largest)}, the most this node fetches")

    def _make_room(self, slot: Slot, name: str, size: int) -> None:
        """The cache will be within its bound when `slot` has `size` bytes; what was used longest ago goes first."""
        with _locked(self._folder / "lock"):
            slot.reserve(size)
            slots = [Slot(path) for path in self._folder.iterdir() if path.is_dir()]
            used = sum(other.size() for other in slots)
            for other in sorted(slots, key=Slot.last_used):
                if used <= self._limit:
                    return
                if other.path != slot.path and (freed := other.remove()):
                    used -= freed
            if used > self._limit:
                slot.drop_part()
                raise Unreachable(
                    f"{name} needs {size_text(size)}, and the node's cache of {size_text(self._limit)} is full of "
                    "files that jobs are using"
                )


class Slot:
    """The place of one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data, self.part = path / "data", path / "part"
        self.entry, self._part_entry = path / "entry.json", path / "part.json"

    def lock(self) -> int:
        """A descriptor that holds the slot alone, once whoever holds it lets go."""
        while True:
            self.path.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # removed in between
                lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(lock, fcntl.LOCK_EX)
                if os.fstat(lock).st_nlink:
                    return lock
                os.close(lock)

    def complete(self, facts: Facts) -> Entry | None:
        """The file if it is there, the server's present version, and still the bytes that were fetched."""
        entry = _read(self.entry)
        if entry is None or entry.version is None or entry.version != facts.version:
            return None
        try:
            return entry if sha256(self.data) == entry.sha256 else None
        except FileNotFoundError:
            return None

    def begin(self, facts: Facts) -> int:
        """Bytes of this version that an earlier try left. Whatever else lay there is gone."""
        entry = _read(self._part_entry)
        if entry is None or entry.version is None or entry.version != facts.version:
            self.drop_part()
        self._write(self._part_entry, Entry(version=facts.version, size=facts.size or 0))
        return self.part_size()

    def reserve(self, size: int) -> None:
        """The part counts as `size` bytes from now on."""
        entry = _read(self._part_entry)
        self._write(self._part_entry, Entry(version=entry.version if entry else None, size=size))

    def finish(self, facts: Facts) -> Entry:
        """The part is the file."""
        with self.part.open("ab") as file:
            os.fsync(file.fileno())
        entry = Entry(version=facts.version, size=self.part_size(), sha256=sha256(self.part))
        self.part.chmod(0o444)
        self.part.replace(self.data)
        self._write(self.entry, entry)
        self.drop_part()
        return entry

    def drop_part(self) -> None:
        self.part.unlink(missing_ok=True)
        self._part_entry.unlink(missing_ok=True)

    def part_size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def size(self) -> int:
        """Bytes it has, or is about to have, on disk."""
        data = self.data.stat().st_size if self.data.exists() else 0
        entry = _read(self._part_entry)
        return data + max(self.part_size(), entry.size if entry else 0)

    def last_used(self) -> float:
        for path in (self.entry, self.part):
            with contextlib.suppress(FileNotFoundError):
                return path.stat().st_mtime
        return 0.0

    def remove(self) -> int:
        """Bytes that became free; 0 when the file is in use."""
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self.data.exists() and self.data.stat().st_nlink > 1:
                    return 0
                size = self.size()
                shutil.rmtree(self.path)
                return size
            finally:
                os.close(lock)
        return 0

    def _write(self, path: Path, entry: Entry) -> None:
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(entry.wire()))
        temporary.replace(path)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path) -> Entry | None:
    try:
        return Entry.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
