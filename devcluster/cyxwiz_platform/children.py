"""Child processes that end with their parent, however that ends, and say their last words when they fail."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

PR_SET_PDEATHSIG = 1
LAST_WORDS_BYTES = 2000

_libc = ctypes.CDLL(None, use_errno=True)


def _die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class PlatformProcess:
    """One long-running process of the platform, its output in a log file."""

    def __init__(self, name: str, command: list[str], log: Path, environ: Mapping[str, str] | None = None) -> None:
        """It runs. Call from the main thread: the kernel ends it when the *thread* that started it ends."""
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if environ is None else {**os.environ, **environ},
                # Ctrl-C reaches the parent alone, which then ends its children in order.
                start_new_session=True,
                preexec_fn=_die_with_parent,  # children are started from the main thread only
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def stop(self, grace_s: float = 10.0) -> int:
        """Its exit code, after SIGTERM and, when that was not heard, SIGKILL."""
        self.signal(signal.SIGTERM)
        try:
            return self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """Its exit code, after SIGKILL."""
        self.signal(signal.SIGKILL)
        return self._process.wait()

    def last_words(self) -> str:
        """The end of its log."""
        with self.log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_WORDS_BYTES))
            return file.read().decode(errors="replace")
