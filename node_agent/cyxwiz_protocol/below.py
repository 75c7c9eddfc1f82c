"""Files below a folder that is open to jobs: what is opened lies there, whatever is renamed meanwhile."""

from __future__ import annotations

import os
import stat
from pathlib import Path


class Outside(OSError):
    """A link leads out of the folder."""


def open_below(root: Path, relative: str) -> int:
    """A descriptor of the regular file or folder `relative` below `root`. Links are followed where they stay below.

    What was opened is asked where it lies, so a link that is changed between a check and the opening gains nothing.
    Raises Outside, and OSError for what is absent or neither file nor folder. `relative` must be a Location's path.
    """
    descriptor = os.open(root / relative, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _check(descriptor, root.resolve())
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _check(descriptor: int, root: Path) -> None:
    if not Path(f"/proc/self/fd/{descriptor}").readlink().is_relative_to(root):
        raise Outside("it is not below the folder")
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError("it is neither a file nor a folder")
