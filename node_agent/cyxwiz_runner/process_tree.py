"""Finds every process of a job, wherever it hid, and signals it without ever hitting a stranger.

A job's processes are those of its main process's session, all its descendants, and whatever has its uid or, where
uids are not separate, carries its marker in its environment: a daemon that forked twice into a new session has lost the
first two but not the third.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

MARKER = "CYXWIZ_TRAINER"
"""Environment variable of every process of a trainer: <runner instance>/<spawn id>."""

_PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """One line of /proc/<pid>/stat; named for good by pid and start time."""

    pid: int
    state: str
    """R, S, D, T (stopped), t (traced), Z (zombie), X (dead)."""
    parent: int
    session: int
    start_time: int
    """Clock ticks since boot."""

    @property
    def is_dead(self) -> bool:
        """Only its entry is left, for its parent to read."""
        return self.state in "ZX"


def parse_stat(text: str) -> Process:
    """The process of a line of /proc/<pid>/stat. Its name may hold spaces and brackets, so the last one counts."""
    pid, _, rest = text.partition(" (")
    fields = rest[rest.rindex(")") + 2 :].split()  # from field 3 of proc(5) on
    return Process(int(pid), fields[0], int(fields[1]), int(fields[3]), int(fields[19]))


def find_process(pid: int) -> Process | None:
    """The process of that pid now, zombies included."""
    try:
        return parse_stat((_PROC / str(pid) / "stat").read_text(errors="replace"))
    except (FileNotFoundError, ProcessLookupError):
        return None


def all_processes() -> Iterator[Process]:
    """Every process of this pid namespace. One that ends meanwhile may be missing."""
    for name in os.listdir(_PROC):  # noqa: PTH208  # half the price of Path.iterdir, and this runs at every job's end
        if name.isdigit() and (process := find_process(int(name))):
            yield process


def marker_of(pid: int) -> str | None:
    """What the process was marked with when it was started; None for a stranger, a zombie and another user's."""
    try:
        environment = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return None
    prefix = f"{MARKER}=".encode()
    for entry in environment.split(b"\0"):
        if entry.startswith(prefix):
            return entry[len(prefix) :].decode(errors="replace")
    return None


def uid_of(pid: int) -> int | None:
    """The real user of the process; None when it is gone. The owner of /proc/<pid> would be what it chose to show."""
    try:
        status = (_PROC / str(pid) / "status").read_bytes()
    except OSError:
        return None
    _, _, rest = status.partition(b"\nUid:")
    return int(rest.split(maxsplit=1)[0]) if rest else None


IsMarked = Callable[[int], bool]
"""Whether the process of that pid bears what only a trainer's processes bear."""


def has_marker(marker: str) -> IsMarked:
    return lambda pid: marker_of(pid) == marker


def has_uid(uid: int) -> IsMarked:
    """Where each trainer has a uid of its own, a process can neither wipe nor change it."""
    return lambda pid: uid_of(pid) == uid


def select_tree(root: Process, processes: Iterable[Process], is_marked: IsMarked) -> list[Process]:
    """Of `processes`, those of the trainer whose main process is `root`, itself included while it is there.

    `root` must not have been reaped: until then nobody else can be given its pid or its session.
    """
    younger = [process for process in processes if process.start_time >= root.start_time]
    chosen = {
        process.pid: process
        for process in younger
        if root.pid in (process.pid, process.session) or is_marked(process.pid)
    }
    grown = True
    while grown:
        children = [process for process in younger if process.pid not in chosen and process.parent in chosen]
        chosen.update((process.pid, process) for process in children)
        grown = bool(children)
    return list(chosen.values())


def send_signal(process: Process, number: signal.Signals) -> None:
    """The process got the signal, unless it has ended: a pid that means another process by now is left alone."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(process.pid)
        try:
            now = find_process(process.pid)  # after pidfd_open: from here on the pid cannot change hands unseen
            if now is not None and now.start_time == process.start_time:
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)


def is_stopped(process: Process) -> bool:
    """No thread of it can compute. Threads in a system call stop when it returns, so each one is asked."""
    if process.is_dead:
        return True
    try:
        threads = [
            parse_stat(stat.read_text(errors="replace")) for stat in (_PROC / str(process.pid) / "task").glob("*/stat")
        ]
    except (FileNotFoundError, ProcessLookupError):
        return False  # one ended just now: look again
    return all(thread.state in "TtZX" for thread in threads)
