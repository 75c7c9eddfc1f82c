"""A file or folder that a job's data lies in, opened once: readers get what was checked, no name to look up again."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cyxwiz_crds import size_text
from cyxwiz_protocol.below import Outside, open_below
from cyxwiz_trainer.failures import UserError

from .request import Request


@dataclass(frozen=True)
class File:
    """An open file or folder. It stays open as long as the process lives: a job reads its data once."""

    name: str
    """For messages, and its suffix for how to read it."""
    descriptor: int

    @property
    def path(self) -> Path:
        """For libraries that open a file themselves: they get this very one, whatever its name means by now."""
        return Path(f"/proc/self/fd/{self.descriptor}")

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(os.fstat(self.descriptor).st_mode)

    @property
    def size(self) -> int:
        """Bytes."""
        return os.fstat(self.descriptor).st_size

    @property
    def suffix(self) -> str:
        return Path(self.name).suffix.lower()

    def open(self) -> BinaryIO:
        """From its beginning, each time anew."""
        return self.path.open("rb")

    def child(self, name: str) -> File | None:
        """The regular file or folder of that name in this folder; None for none. A link is none: it could lead out."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            descriptor = os.open(name, flags, dir_fd=self.descriptor)
        except OSError:
            return None
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            return File(name, descriptor)
        os.close(descriptor)
        return None

    def names(self) -> Iterator[str]:
        """What lies in this folder, links and hidden files left out, in order."""
        with os.scandir(self.path) as entries:
            found = [entry.name for entry in entries if not entry.is_symlink() and not entry.name.startswith(".")]
        yield from sorted(found)

    def close(self) -> None:
        os.close(self.descriptor)


def locate(request: Request) -> File:
    """What `request` names. Raises UserError when it is absent, or not where jobs may read."""
    location = request.location
    if location.scheme == "file":
        return _below(_data_root(request.root), location.path, "the data folder of this node")
    if location.scheme == "volume":
        root = request.volumes.get(location.authority)
        if root is None:
            raise UserError(f"this node has no volume {location.authority} for this job's namespace")
        return _below(root, location.path, f"the volume {location.authority}")
    fetched = request.inputs.get(request.uri)
    if fetched is None:
        raise UserError(f"{location} was not fetched: this trainer was started without a runner")
    return File(fetched.name, os.open(fetched.path, os.O_RDONLY | os.O_CLOEXEC))


def below(root: Path | None, relative: str) -> Path:
    """Where `relative` lies in the node's data folder, links followed. Raises UserError as `locate` does."""
    file = _below(_data_root(root), relative, "the data folder of this node")
    path = file.path.readlink()
    file.close()
    return path


def _data_root(root: Path | None) -> Path:
    if root is None:
        raise UserError("this node has no data folder (CYXWIZ_DATA_ROOT is not set): file:// data cannot be read here")
    return root


def _below(root: Path, relative: str, where: str) -> File:
    shown = repr(relative[:200])
    try:
        return File(relative.rpartition("/")[2], open_below(root, relative))
    except Outside as error:
        raise UserError(f"{shown} is not below {where}: a link leads out of it") from error
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise UserError(f"there is no file {shown} in {where}") from error
        raise UserError(f"{shown} in {where} cannot be read: {error.strerror or error}") from error


def check_ratio(file: str, unpacked: int, packed: int, most: int = 1000) -> None:
    """Raises UserError for what would unpack to more than `most` times its size: no data does, bombs do."""
    if unpacked > most * max(packed, 1024):
        raise UserError(f"{file} declares {size_text(unpacked)} in {size_text(packed)}: it is no data")
