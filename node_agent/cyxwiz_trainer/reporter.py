"""Appends records to metrics.jsonl, each with one write, so that a reader never sees a mixed line."""

from __future__ import annotations

import os
from pathlib import Path

from cyxwiz_protocol.records import Record, encode_record


class Reporter:
    """The job's way to speak."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def write(self, record: Record) -> None:
        """`record` is the last line of the file. Raises OSError when it is not there whole: the disk is full."""
        line = encode_record(record)
        written = os.write(self._descriptor, line)
        if written < len(line):
            raise OSError(f"only {written} of {len(line)} bytes of a record could be written")


class Silent(Reporter):
    """Of a rank that has nothing to say, because the first says the same."""

    def __init__(self) -> None:
        pass

    def write(self, record: Record) -> None:
        """Nothing is written."""
