"""Gives way while a trainer warms up, so that running jobs do not pay for the next one's imports."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from .capabilities import Capability, missing

WARMING_NICE = 5


def may_restore() -> bool:
    """Whether this process may raise a priority it has lowered; a container's root usually may not."""
    return not missing(Capability.SYS_NICE)


def set_nice(pid: int, nice: int) -> None:
    """Every thread of the process has that priority, in its own session and against others'."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208  # Linux keeps the priority per thread
            os.setpriority(os.PRIO_PROCESS, int(thread), nice)
    # Where sessions are scheduled as groups, the priority inside a session says nothing about other sessions.
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(nice))
