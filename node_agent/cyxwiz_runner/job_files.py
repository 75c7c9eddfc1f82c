"""A job's folder in the hands of its uid and back, and files in it opened without trust.

While a job runs, its folder is the runner's with the job's group and the sticky bit: the job adds files and changes its
own, but cannot replace job.json or the deadline. What it makes is readable in there for the agent, which owns the
folder and needs no capability for it; nobody else gets through the folder.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cyxwiz_protocol.job_folder import JobFolder
from cyxwiz_protocol.order import JobOrder

from .sweep import Steps

_RUNNERS, _READ_BY_GROUP, _JOBS = 0o700, 0o750, 0o1770


def restored_from(folder: JobFolder) -> JobFolder | None:
    """The folder of the attempt whose checkpoint the job goes on from; None where its order names none here."""
    try:
        restore_from = JobOrder.model_validate_json(folder.order.read_bytes()).restore_from
        if restore_from is None:
            return None
        jobs = folder.path.parent.resolve()
        return JobFolder.of(jobs.parent, Path(restore_from).resolve().relative_to(jobs).parts[0])
    except (ValueError, IndexError):  # the trainer will say what is wrong with its order
        return None


def is_lent(folder: JobFolder) -> bool:
    """A trainer works in the folder or reads it, or did when its runner was killed."""
    return folder.path.stat().st_gid != os.getegid()


def close(folder: JobFolder) -> None:
    """Nobody but the runner and the agent gets through the folder."""
    folder.path.chmod(_RUNNERS)
    os.chown(folder.path, os.geteuid(), os.getegid())


def let_read(folder: JobFolder, uid: int) -> None:
    """The trainer of `uid` may read what lies in an earlier attempt's folder, until that is closed."""
    os.chown(folder.path, -1, uid)
    folder.path.chmod(_READ_BY_GROUP)


def hand_over(folder: JobFolder, uid: int) -> Steps:
    """The trainer of `uid` may work in the folder, and owns what an earlier trainer of the attempt made there."""
    kept = {folder.order, folder.control, folder.deadline, folder.exit, folder.inputs}
    for path in folder.path.iterdir():
        if path not in kept:
            yield from _give(path, uid, uid)
    folder.order.chmod(0o644)
    folder.deadline.chmod(0o644)
    os.chown(folder.path, -1, uid)
    folder.path.chmod(_JOBS)


def hand_back(folder: JobFolder) -> Steps:
    """Everything in the folder is the runner's, so that the uid can be another job's. No process of it may be left."""
    folder.path.chmod(_RUNNERS)
    for trap in folder.path.glob(f".{folder.exit.name}.*"):  # where exit.json will be written, maybe a link
        trap.unlink()
    for path in folder.path.iterdir():
        yield from _give(path, os.geteuid(), os.getegid())
    close(folder)  # last: a runner that is killed before leaves it lent


def open_regular(path: Path, flags: int) -> int:
    """A descriptor of the regular file at `path`, which a job may have replaced by anything. Raises OSError."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(descriptor)
        raise OSError(f"{path.name} is no regular file of its own")
    return descriptor


def open_to_append(path: Path) -> int:
    """As `open_regular`, made where there is none."""
    return open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def _give(path: Path, uid: int, gid: int) -> Steps:
    """`path` and everything below it has that owner; links themselves, not what they point to."""
    os.chown(path, uid, gid, follow_symlinks=False)
    folders = [str(path)] if path.is_dir() and not path.is_symlink() else []
    for folder in folders:  # grows on the way
        with os.scandir(folder) as entries:
            for entry in entries:
                os.chown(entry.path, uid, gid, follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                yield
