"""The folder of one attempt: the protocol from trainer to agent, and the user's record.

    <state>/jobs/<assignment id>/
        job.json        the order, written by the agent before the runner hears of it
        control.json    spec.control as it is now, where that has changed since; written by the agent
        counters.json   what its GPUs' energy counters stood at when it began; written by the agent
        deadline        8 bytes, little-endian double: boot time after which nothing may compute; written by the runner
        metrics.jsonl   one record a line, appended by the trainer
        trainer.log     what the job's processes print
        shape.json      what its steps were like, for the rehearsals of later trainers
        exit.json       how its processes ended; only the runner writes it, last
        inputs/         links to what was fetched for it, and index.json; written by the runner
        checkpoints/    step-<n>/ each with state.safetensors and state.json
        model/          model.safetensors, config.json
        initial.safetensors  the weights to start from, where the agent has brought them

Whole files are written to a temporary name and renamed, so that a reader never sees half of one.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ASSIGNMENT_ID = re.compile(r"^[0-9a-zA-Z][0-9a-zA-Z-]{0,63}$")
_DEADLINE = struct.Struct("<d")


@dataclass(frozen=True)
class JobFolder:
    """Where everything of one attempt lies."""

    path: Path

    @classmethod
    def of(cls, state: Path, assignment_id: str) -> JobFolder:
        """The folder of `assignment_id` below `state`. Raises ValueError for an id that is no plain name."""
        if not _ASSIGNMENT_ID.match(assignment_id):
            raise ValueError(f"{assignment_id!r} is no assignment id")
        return cls(state / "jobs" / assignment_id)

    @property
    def assignment_id(self) -> str:
        return self.path.name

    @property
    def order(self) -> Path:
        return self.path / "job.json"

    @property
    def control(self) -> Path:
        return self.path / "control.json"

    @property
    def counters(self) -> Path:
        return self.path / "counters.json"

    @property
    def deadline(self) -> Path:
        return self.path / "deadline"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "trainer.log"

    @property
    def shape(self) -> Path:
        return self.path / "shape.json"

    @property
    def exit(self) -> Path:
        return self.path / "exit.json"

    @property
    def inputs(self) -> Path:
        return self.path / "inputs"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def initial(self) -> Path:
        return self.path / "initial.safetensors"


def write_whole(path: Path, content: bytes, *, for_all: bool = False) -> None:
    """`path` holds `content`, or what it held before: never a part. Whoever gets to it may read it, with `for_all`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    # Never through a link that a job has put there.
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666), "wb") as file:
        if for_all:
            os.fchmod(file.fileno(), 0o644)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, value: object, *, for_all: bool = False) -> None:
    """`path` holds `value` as JSON, whole."""
    write_whole(path, json.dumps(value, allow_nan=False).encode() + b"\n", for_all=for_all)


def write_deadline(folder: JobFolder, boot_time: float) -> None:
    """The trainer's own deadline, in place: 8 aligned bytes are read and written at once."""
    descriptor = os.open(folder.deadline, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        os.pwrite(descriptor, _DEADLINE.pack(boot_time), 0)
    finally:
        os.close(descriptor)


class DeadlineReader:
    """The trainer's view of its deadline: one memory read, no system call."""

    def __init__(self, folder: JobFolder) -> None:
        with folder.deadline.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), _DEADLINE.size, prot=mmap.PROT_READ)

    def __call__(self) -> float:
        """Boot time in seconds after which this process may not compute."""
        return _DEADLINE.unpack_from(self._map)[0]


def open_regular(path: Path) -> int:
    """A descriptor of a regular file; a job can put a link or a pipe where its log was. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is not a regular file")
    return descriptor


def open_inside(folder: Path, relative: str) -> int:
    """A descriptor of the regular file `relative` below `folder`, none of whose parts is a link. Raises OSError.

    Below `folder` everything is a job's to write: it may put a link in place of any part.
    """
    parts = relative.split("/")
    if not all(parts) or "." in parts or ".." in parts or "\0" in relative:
        raise OSError(f"{relative[:200]!r} is no path below a folder")
    *folders, name = parts
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in folders:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            os.close(at)
            at = below
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
    finally:
        os.close(at)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(descriptor)
        raise OSError(f"{relative[:200]!r} is no regular file of its own")
    return descriptor


class Tail:
    """Reads the whole lines that were appended to a file since the last call. The file is a job's to write."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path = path
        self._offset = offset

    def lines(self) -> Iterator[bytes]:
        """Each new complete line without its newline. A line still being written waits for the next call."""
        try:
            with os.fdopen(open_regular(self._path), "rb") as file:
                file.seek(self._offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        return
                    self._offset += len(line)
                    yield line[:-1]
        except OSError:
            return
