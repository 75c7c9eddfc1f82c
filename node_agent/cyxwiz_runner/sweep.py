"""Removes what jobs leave on disk and in shared memory, a step at a time.

A job may leave a million files; deadlines of other jobs must not wait for them. So everything here is an iterator that
does one entry a step. What is swept has no living process that could change it meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path

SHARED_FOLDERS = (Path("/dev/shm"), Path("/dev/mqueue"), Path("/tmp"), Path("/var/tmp"))  # noqa: S108  # swept, not used
"""Where every user of a usual machine may leave something."""
Steps = Iterator[None]
_STEPS_AT_ONCE = 100
_IPC_RMID = 0
_libc = ctypes.CDLL(None, use_errno=True)


async def in_steps(steps: Steps) -> None:
    """All steps are done; others had their turn in between."""
    for number, _ in enumerate(steps, 1):
        if number % _STEPS_AT_ONCE == 0:
            await asyncio.sleep(0)


def remove_tree(top: Path) -> Steps:
    """`top` and everything below it is gone; links are removed, never followed. Raises OSError."""
    folders = [str(top)]
    for folder in folders:  # grows on the way
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    os.unlink(entry.path)  # noqa: PTH108  # one call an entry: there may be a million
                yield
    for folder in reversed(folders):
        os.rmdir(folder)  # noqa: PTH106  # as above
        yield


def remove_what_is_of(is_of: Callable[[int], bool]) -> Steps:
    """Nothing in the shared folders and in System V's shared memory has an owner that `is_of`. Raises OSError."""
    for shared in SHARED_FOLDERS:
        if not shared.is_dir():
            continue
        for path in shared.iterdir():
            with contextlib.suppress(FileNotFoundError):  # its owner, who is none of ours, was faster
                if not is_of(path.lstat().st_uid):
                    continue
                if path.is_dir() and not path.is_symlink():
                    yield from remove_tree(path)
                else:
                    path.unlink()
            yield
    for kind, remove in _IPC.items():
        yield from _remove_ipc(Path("/proc/sysvipc") / kind, remove, is_of)


_IPC: dict[str, Callable[[int], int]] = {
    "shm": lambda key: _libc.shmctl(key, _IPC_RMID, None),
    "msg": lambda key: _libc.msgctl(key, _IPC_RMID, None),
    "sem": lambda key: _libc.semctl(key, 0, _IPC_RMID),
}


def _remove_ipc(table: Path, remove: Callable[[int], int], is_of: Callable[[int], bool]) -> Steps:
    """System V objects outlive their processes and lie in no folder; their table tells id and owner."""
    try:
        heading, *lines = table.read_text().splitlines()
    except OSError:  # a kernel without them
        return
    uid, key = heading.split().index("uid"), 1
    for fields in map(str.split, lines):
        if is_of(int(fields[uid])):
            remove(int(fields[key]))
        yield
