"""The caller's side of `supervisor.py`: starts one, reads its record, and ends what a record names."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from .errors import DevclusterError
from .supervisor import start_time

END_WITHIN_S = 10.0


@dataclass(frozen=True)
class Process:
    """A process named for good by its pid and start time."""

    name: str
    pid: int
    started: int
    exit_status: int | None = None
    log: Path | None = None

    def is_running(self) -> bool:
        return self.pid > 0 and start_time(self.pid) == self.started

    def signal(self, number: signal.Signals) -> None:
        """The process gets the signal, unless its pid means another one by now."""
        try:
            descriptor = os.pidfd_open(self.pid)  # from here on the pid cannot be given to another process unseen
        except OSError:
            return
        try:
            if self.is_running():
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class Record:
    """What a supervisor wrote down: itself, its children, and why it ended if it did."""

    supervisor: Process
    processes: tuple[Process, ...]
    ended_because: str | None

    def everything(self) -> tuple[Process, ...]:
        return (self.supervisor, *self.processes)

    def first_ended(self) -> Process | None:
        """The child that ended by itself, which is why the others were ended."""
        told = (self.ended_because or "").split(" ")[0]
        return next((process for process in self.processes if process.name == told), None)


def read_record(path: Path) -> Record | None:
    """The record, or None where no supervisor has written one."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    own = value["supervisor"]
    return Record(
        Process("supervisor", own["pid"], own["start_time"]),
        tuple(
            Process(name, entry["pid"], entry["start_time"], entry["exit_status"], Path(entry["log"]))
            for name, entry in value["processes"].items()
        ),
        value["ended_because"],
    )


def end_everything(record: Record, within_s: float = END_WITHIN_S) -> None:
    """None of the recorded processes runs any more.

    The supervisor is asked first, because it also reaps: the init of many a container leaves orphans as zombies.
    """
    record.supervisor.signal(signal.SIGTERM)
    if not _wait_until_ended(record, within_s / 2):
        return
    for process in record.everything():
        process.signal(signal.SIGKILL)
    if running := _wait_until_ended(record, within_s / 2):
        names = ", ".join(f"{process.name} ({process.pid})" for process in running)
        raise DevclusterError(f"These processes did not end within {within_s:.0f} s: {names}.")


def _wait_until_ended(record: Record, within_s: float) -> list[Process]:
    """The processes that still run at the deadline, none as soon as all have ended."""
    deadline = time.monotonic() + within_s
    while running := [process for process in record.everything() if process.is_running()]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)
    return running


class SupervisorHandle:
    """A running supervisor, which ends with this process or with `release`, whichever comes first."""

    _live: ClassVar[set["SupervisorHandle"]] = set()  # a caller who drops the handle does not end the cluster

    def __init__(self, record: Path, log: Path, behind: Sequence[str] = ()) -> None:
        """`behind` is the command line, if any, that ends by executing the supervisor's."""
        script = Path(__file__).with_name("supervisor.py")
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                [*behind, sys.executable, "-I", "-S", script, record, str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                cwd="/",  # it must not keep a folder or a mount busy
                start_new_session=True,
            )
        self._live.add(self)

    def start(self, name: str, command: list[str], log: Path) -> None:
        self._ask({"name": name, "command": command, "log": str(log)})

    def detach(self) -> None:
        """The supervisor outlives this process from now on."""
        self._ask({"detach": True})

    def release(self) -> None:
        """The supervisor sees its owner end, unless it was detached, and is reaped in either case once it ends."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def reap(self, within_s: float = END_WITHIN_S) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(within_s)
            self._live.discard(self)

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> None:
        """It was killed, which its children survive in no case, and reaped."""
        self._process.kill()
        self.release()
        self._process.wait()
        self._live.discard(self)

    @property
    def pid(self) -> int:
        """Of the supervisor, or of the command in front of it."""
        return self._process.pid

    def _ask(self, request: dict[str, object]) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended: its record says why
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
