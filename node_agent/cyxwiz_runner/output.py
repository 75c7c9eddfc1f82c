"""What jobs print: on the runner's own output with a prefix, and in a log file that does not grow without end.

A trainer writes its log by descriptors opened with O_APPEND. The file is therefore shortened in place: its next write
lands at the new end. RLIMIT_FSIZE would kill the job, and a pipe through the runner would stop jobs while it restarts.
"""

from __future__ import annotations

import os
import re
import select
from pathlib import Path

from cyxwiz_crds import size_text

from .job_files import open_regular

LOOK_EVERY_S = 0.5
LINES_AT_ONCE = 50
"""Per job and look; the newest, because a job's last words tell most."""
LINE_BYTES = 2000
_READ_AT_ONCE_BYTES = 65_536
LOG_BYTES = 16 * 2**20
KEPT_BYTES = 2**20
"""The newest of a log that grew over LOG_BYTES."""
_LINE_END = re.compile(rb"[\r\n]+")  # a progress bar ends its lines with a carriage return
_UNPRINTABLE = re.compile(r"[^\t -~\u00a0-\U0010ffff]")  # no escape sequence of a job may rewrite the terminal


class Echo:
    """Turns a job's raw output into bounded lines with a prefix. Pure."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._rest = b""

    def lines(self, output: bytes, skipped_bytes: int = 0, *, final: bool = False) -> list[bytes]:
        """The lines that `output` completes, after `skipped_bytes` that nobody read."""
        if skipped_bytes:
            self._rest = b""
        *complete, rest = _LINE_END.split(self._rest + output)
        self._rest = rest[: LINE_BYTES + 1]
        if final and rest:
            complete.append(rest)
        complete = [line for line in complete if line]
        shown = complete[-LINES_AT_ONCE:]
        left_out = [f"({size_text(skipped_bytes)} left out)"] if skipped_bytes else []
        left_out += [f"({len(complete) - len(shown)} lines left out)"] if len(complete) > len(shown) else []
        return [f"{self._prefix} | {text}\n".encode() for text in (*left_out, *map(_text, shown))]


def _text(line: bytes) -> str:
    cut = " ..." if len(line) > LINE_BYTES else ""
    return _UNPRINTABLE.sub("?", line[:LINE_BYTES].decode(errors="replace")) + cut


class Follower:
    """Follows one job's log."""

    def __init__(self, log: Path, prefix: str, descriptor: int = 1) -> None:
        self._log = log
        self._echo = Echo(prefix)
        self._offset = 0
        self._out = descriptor

    def look(self, *, final: bool = False) -> None:
        """What the job has printed since the last look is out, and its log within its bounds.

        A log that cannot be read, is no file any more or has shrunk is the job's own doing: it begins anew.
        """
        try:
            descriptor = open_regular(self._log, os.O_RDWR | os.O_APPEND)
        except OSError:
            return
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            size = os.fstat(descriptor).st_size
            if size < self._offset:
                self._offset = 0
            start = max(self._offset, size - _READ_AT_ONCE_BYTES)
            output = os.pread(descriptor, size - start, start)
            write_if_ready(self._echo.lines(output, start - self._offset, final=final), self._out)
            self._offset = start + len(output)
            if size > LOG_BYTES:
                kept = os.pread(descriptor, KEPT_BYTES, size - KEPT_BYTES)
                file.truncate(0)  # what is written between these two lines is lost
                file.write(b"cyxwiz-runner: the log grew over %s, its beginning was removed\n" % _LIMIT_WORDS + kept)
                self._offset = os.fstat(descriptor).st_size


_LIMIT_WORDS = size_text(LOG_BYTES).encode()


def write_if_ready(lines: list[bytes], descriptor: int) -> None:
    """The lines are written, or the rest is dropped once nobody reads: deadlines must not wait for a reader.

    A pipe that polls as ready takes PIPE_BUF bytes at least, and a line is shorter.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    for line in lines:
        events = poll.poll(0)
        if not events or not events[0][1] & select.POLLOUT:
            return
        try:
            os.write(descriptor, line[: select.PIPE_BUF])
        except OSError:  # the reader has gone
            return
