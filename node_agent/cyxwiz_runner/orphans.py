"""What a job's processes leave behind comes to the runner, which reaps it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
from collections.abc import Sequence

from .process_tree import IsMarked, Process, all_processes

Living = dict[int, IsMarked]
"""Main process to what marks the others, of every trainer that has not been reaped."""

_PR_SET_CHILD_SUBREAPER = 36
_TOGETHER_S = 0.05
"""A burst of ended orphans is one search."""


def nobodys(processes: Sequence[Process], living: Living) -> list[Process]:
    """Orphans that no living trainer's mark shows: no deadline binds them, so they end with the next job."""
    return [
        process
        for process in processes
        if process.parent == os.getpid()
        and process.pid not in living
        and not any(is_marked(process.pid) for is_marked in living.values())
    ]


def adopt_orphans(living: Living) -> None:
    """Orphaned descendants become children of this process, and are reaped when they end. Needs a running loop."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "cannot become a subreaper")
    loop = asyncio.get_running_loop()
    search: asyncio.TimerHandle | None = None

    def reap() -> None:
        nonlocal search
        search = None
        for process in all_processes():
            # Never waitpid(-1): a trainer's main process stays unreaped until its whole tree is gone.
            if process.parent == os.getpid() and process.state == "Z" and process.pid not in living:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(process.pid, os.WNOHANG)

    def on_child() -> None:
        nonlocal search
        search = search or loop.call_later(_TOGETHER_S, reap)

    loop.add_signal_handler(signal.SIGCHLD, on_child)
