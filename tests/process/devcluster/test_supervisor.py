"""However an owner or a supervisor ends, no process of a cluster is left. `sleep` stands for the components."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cyxwiz_devcluster import processes
from cyxwiz_devcluster.processes import Record, SupervisorHandle

SLEEP = ["sleep", "600"]
OWNER = """
import os, sys, time
from pathlib import Path
from cyxwiz_devcluster.processes import SupervisorHandle
folder, how = Path(sys.argv[1]), sys.argv[2]
supervisor = SupervisorHandle(folder / "processes.json", folder / "log")
for name in ("one", "two"):
    supervisor.start(name, ["sleep", "600"], folder / "log")
if how == "with-a-fork" and os.fork() == 0:
    os.close(1)
    os.setsid()
    (folder / "fork").write_text(str(os.getpid()))
    time.sleep(600)
if how == "detached":
    supervisor.detach()
else:
    time.sleep(600)
"""


def wait_until(condition: Callable[[], object], what: str, within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(0.02)


def nothing_runs(record: Record) -> bool:
    return not any(process.is_running() for process in record.everything())


def record_of(folder: Path, names: int = 2) -> Record:
    """The record once that many processes run."""

    def read() -> Record | None:
        record = processes.read_record(folder / "processes.json")
        return record if record and len(record.processes) == names else None

    wait_until(read, f"{names} processes recorded")
    record = read()
    assert record is not None
    return record


def start_owner(folder: Path, how: str = "attached") -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", OWNER, str(folder), how])


@pytest.fixture
def handle(tmp_path: Path) -> Iterator[SupervisorHandle]:
    handle = SupervisorHandle(tmp_path / "processes.json", tmp_path / "log")
    yield handle
    handle.release()
    handle.reap()
    assert handle.has_ended()


def test_all_ends_when_the_owner_is_killed(tmp_path: Path) -> None:
    with start_owner(tmp_path) as owner:
        record = record_of(tmp_path)
        owner.kill()
    wait_until(lambda: nothing_runs(record), "no process left")
    ended = processes.read_record(tmp_path / "processes.json")
    assert ended is not None
    assert ended.ended_because == "its owner ended"


def test_all_ends_when_the_owner_is_killed_while_a_fork_of_it_holds_the_pipe(tmp_path: Path) -> None:
    with start_owner(tmp_path, "with-a-fork") as owner:
        record = record_of(tmp_path)
        wait_until(lambda: (tmp_path / "fork").exists() and (tmp_path / "fork").read_text(), "the fork")
        fork = int((tmp_path / "fork").read_text())
        owner.kill()
    try:
        wait_until(lambda: nothing_runs(record), "no process left")
    finally:
        os.kill(fork, signal.SIGKILL)


def test_a_detached_supervisor_outlives_its_owner_and_ends_when_asked(tmp_path: Path) -> None:
    with start_owner(tmp_path, "detached") as owner:
        assert owner.wait(20) == 0
    record = record_of(tmp_path)
    assert all(process.is_running() for process in record.everything())
    processes.end_everything(record)
    assert nothing_runs(record)


def test_all_ends_when_the_supervisor_is_killed(handle: SupervisorHandle, tmp_path: Path) -> None:
    for name in ("one", "two"):
        handle.start(name, SLEEP, tmp_path / "log")
    record = record_of(tmp_path)
    record.supervisor.signal(signal.SIGKILL)
    wait_until(lambda: nothing_runs(record), "no process left")


def test_a_stopped_process_does_not_keep_the_others_from_ending(handle: SupervisorHandle, tmp_path: Path) -> None:
    for name in ("one", "two"):
        handle.start(name, SLEEP, tmp_path / "log")
    record = record_of(tmp_path)
    record.processes[0].signal(signal.SIGSTOP)
    record.supervisor.signal(signal.SIGSTOP)
    processes.end_everything(record, within_s=2)
    assert nothing_runs(record)


def test_all_ends_when_one_process_ends_and_the_record_says_which(handle: SupervisorHandle, tmp_path: Path) -> None:
    handle.start("one", SLEEP, tmp_path / "log")
    handle.start("two", ["sh", "-c", "exit 7"], tmp_path / "log")
    wait_until(handle.has_ended, "the supervisor ended")
    record = record_of(tmp_path)
    assert nothing_runs(record)
    assert record.ended_because == "two ended with status 7"


def test_a_binary_that_cannot_be_started_is_recorded_as_such(handle: SupervisorHandle, tmp_path: Path) -> None:
    handle.start("one", SLEEP, tmp_path / "log")
    handle.start("two", [str(tmp_path / "gone")], tmp_path / "log")
    wait_until(handle.has_ended, "the supervisor ended")
    record = record_of(tmp_path)
    assert nothing_runs(record)
    assert record.ended_because == "two could not be started"
    assert "No such file or directory" in (tmp_path / "log").read_text()
