"""Keeps the folder that jobs share what they compiled in within bounds: what was used longest ago goes first."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

CACHE, RECORD = ".cache", ".json"
MOST_BYTES = 2 * 2**30
"""Of all caches together. One of a ResNet-18 has some megabytes."""
MOST_RECORDS = 1000
"""What compiling has brought is remembered longer than what was compiled: it takes some bytes."""


def used(cache: Path) -> None:
    """The cache counts as new, where it is this process's to say."""
    with contextlib.suppress(OSError):
        os.utime(cache)


def prune(folder: Path, most_bytes: int = MOST_BYTES, most_records: int = MOST_RECORDS) -> None:
    """The newest caches and records that fit within the bounds are left. Another process may do the same meanwhile."""
    left = most_bytes
    for path, size in _newest_first(folder, CACHE):
        left -= size
        if left < 0:
            _remove(path)
    for path, _ in _newest_first(folder, RECORD)[most_records:]:
        _remove(path)


def _newest_first(folder: Path, suffix: str) -> list[tuple[Path, int]]:
    """(path, size) of each such file."""
    found: list[tuple[int, Path, int]] = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(suffix) and entry.is_file(follow_symlinks=False):
                status = entry.stat(follow_symlinks=False)
                found.append((status.st_mtime_ns, Path(entry.path), status.st_size))
    return [(path, size) for _, path, size in sorted(found, reverse=True)]


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # gone already, or another uid's
        path.unlink()
