"""A fresh uid for each trainer: jobs can neither read, nor signal, nor trace each other.

A uid is a job's alone from its spawn until no process and no file of it is left; then it goes to the end of the row,
so that it is used again as late as possible.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections import deque
from pathlib import Path

from .capabilities import Capability, missing
from .process_tree import all_processes, uid_of
from .sweep import Steps, in_steps, remove_what_is_of

_NEEDED = (Capability.CHOWN, Capability.DAC_OVERRIDE, Capability.KILL, Capability.SETGID, Capability.SETUID)
_log = logging.getLogger(__name__)


class Uids:
    """The uids of one runner; each also names a group that nobody else is in."""

    def __init__(self, uids: range) -> None:
        self._range = uids
        self._free = deque(uids)

    def __str__(self) -> str:
        return f"{self._range[0]}-{self._range[-1]}"

    def take(self) -> int:
        """A uid without processes, its holder's alone. Raises OSError when there is none."""
        used = _uids_in_use()
        for _ in range(len(self._free)):
            uid = self._free.popleft()
            if uid not in used:
                return uid
            self._free.append(uid)  # a stranger's: nothing this runner started, so nothing it may end
        raise OSError(errno.EAGAIN, f"no uid of {self} is free")

    def return_unused(self, uid: int) -> None:
        """No process has had `uid` since it was taken."""
        self._free.append(uid)

    async def give_back(self, uid: int) -> None:
        """Nothing of `uid` is left in shared memory and temporary folders, and another trainer may have it.

        Its processes must be gone. A uid whose files cannot be removed is never used again.
        """
        try:
            await in_steps(remove_what_is_of(lambda owner: owner == uid))
        except OSError as error:
            _log.error("uid kept out of use uid=%d error=%s", uid, error)
            return
        self._free.append(uid)

    def sweep_all(self) -> Steps:
        """What earlier runners' trainers left in shared memory and temporary folders is removed. Raises OSError."""
        busy = _uids_in_use()
        return remove_what_is_of(lambda owner: owner in self._range and owner not in busy)


def _uids_in_use() -> set[int | None]:
    """A dead process that nobody has reaped can do nothing with its uid any more."""
    return {uid_of(process.pid) for process in all_processes() if not process.is_dead}


def why_not(state: Path, program: str | None = None) -> str | None:
    """Why no trainer of this runner can have a uid of its own; None when each can. `program` is what a trainer runs."""
    if os.geteuid() != 0:
        return "the runner is not root"
    if lacking := missing(*_NEEDED):
        return f"the runner lacks {', '.join(f'CAP_{capability.name}' for capability in lacking)}"
    found = shutil.which(program) if program else None  # where there is none, the first spawn says so
    for path in (state.resolve(), *([Path(found).absolute(), Path(found).resolve()] if found else [])):
        for folder in reversed(path.parents):
            if not folder.stat().st_mode & 0o001:
                return f"{folder} lets no other user through"
    return None
