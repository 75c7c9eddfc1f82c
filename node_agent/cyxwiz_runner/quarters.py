"""What one trainer has for itself: a home, a uid where they are separate, and in time the folder of its job."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from pathlib import Path

from cyxwiz_protocol.job_folder import JobFolder

from .job_files import close, hand_back, hand_over, let_read, open_to_append, restored_from
from .sweep import in_steps, remove_tree
from .uids import Uids

_UMASK, _UMASK_WITH_UID = 0o077, 0o022
_EARLY_OUTPUT_BYTES = 1_048_576
_log = logging.getLogger(__name__)


class Quarters:
    """From a trainer's spawn until nothing of it is left."""

    def __init__(self, home: Path, uids: Uids | None) -> None:
        """Raises OSError when there is no uid or no folder."""
        self.home = home
        self.uid = uids.take() if uids else None
        self._uids = uids
        self._folder: JobFolder | None = None
        self._lent: JobFolder | None = None
        home.mkdir(mode=0o700)
        if self.uid is not None:
            os.chown(home, self.uid, self.uid)

    @property
    def umask(self) -> int:
        """With a uid of its own the job's folder protects what it makes, else the files protect themselves."""
        return _UMASK if self.uid is None else _UMASK_WITH_UID

    @property
    def output(self) -> Path:
        """What it prints before it has a job."""
        return self.home / "output"

    async def take_in(self, folder: JobFolder) -> None:
        """The trainer may work in the folder of its job. Raises OSError."""
        self._folder = folder
        if self.uid is None:
            return
        await in_steps(hand_over(folder, self.uid))
        self._lent = restored_from(folder)
        if self._lent is not None:
            with contextlib.suppress(FileNotFoundError):  # removed since: the trainer starts anew and says so
                let_read(self._lent, self.uid)

    def abandon(self) -> None:
        """There will be no trainer."""
        shutil.rmtree(self.home, ignore_errors=True)
        if self._uids is not None and self.uid is not None:
            self._uids.return_unused(self.uid)

    async def clear(self) -> None:
        """Nothing of the trainer is left but its job's folder, which is the runner's again. It must have no process."""
        try:
            if self._folder is not None:
                _append(self.output, self._folder.log)
                if self.uid is not None:
                    await in_steps(hand_back(self._folder))
            if self._lent is not None:
                close(self._lent)
        except FileNotFoundError:  # the job's folder was removed: it needs no record
            pass
        except OSError as error:  # a record for people, on a full disk perhaps; the end of a job does not hang on it
            _log.error("job folder not taken back folder=%s error=%s", self._folder, error)
        try:
            await in_steps(remove_tree(self.home))
        except OSError as error:
            _log.error("home not removed home=%s error=%s", self.home, error)
            return  # and its uid is never used again
        if self._uids is not None and self.uid is not None:
            await self._uids.give_back(self.uid)


def _append(source: Path, target: Path) -> None:
    with source.open("rb") as file:
        output = file.read(_EARLY_OUTPUT_BYTES)
    if output:
        descriptor = open_to_append(target)
        try:
            os.write(descriptor, output)
        finally:
            os.close(descriptor)
