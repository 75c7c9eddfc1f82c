"""A real runner with fake trainers, and what a test asks of it."""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cyxwiz_protocol.clock import boottime
from cyxwiz_protocol.job_folder import JobFolder
from cyxwiz_protocol.runner_api import JobProcess, Snapshot, socket_path
from cyxwiz_runner.process_tree import all_processes, marker_of

FAKE_TRAINER = [sys.executable, "-S", str(Path(__file__).with_name("fake_trainer.py"))]
PATIENCE_S = 180.0


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """The first true value of `condition`."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError(f"{what}: not within {PATIENCE_S:.0f} s")


class RunnerClient:
    """One connection. Also sends what no agent would."""

    def __init__(self, state: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(str(socket_path(state)))
        self._lines = self.socket.makefile("rb")

    def send(self, line: bytes) -> None:
        self.socket.sendall(line + b"\n")

    def read(self) -> Any:
        """The next object; None when the runner has closed the connection."""
        line = self._lines.readline()
        return json.loads(line) if line else None

    def close(self) -> None:
        self._lines.close()
        self.socket.close()

    def ask(self, **request: object) -> Any:
        self.send(json.dumps(request).encode())
        return self.read()


class Runner:
    """A runner process on a state folder of its own."""

    FAKE_TRAINER = FAKE_TRAINER

    def __init__(self, state: Path) -> None:
        self.state = state
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str, trainer: list[str] = FAKE_TRAINER, warm: int = 0) -> None:
        """It serves."""
        command = [sys.executable, "-m", "cyxwiz_runner", "--state", str(self.state), "--warm", str(warm)]
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                [*command, "--trainer-command", json.dumps(trainer), *arguments], stdout=output
            )
        wait_for(lambda: self.answers(), "the runner answers")

    @property
    def output(self) -> Path:
        """What it writes to its standard output."""
        self.state.mkdir(parents=True, exist_ok=True)
        return self.state / "runner.output"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"the runner ended with {self._process.returncode}"
        try:
            return self.snapshot() is not None
        except (FileNotFoundError, ConnectionError):
            return False

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """The runner has ended; its exit status."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(PATIENCE_S)

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def wipe_out(self) -> None:
        """Nothing it started is left."""
        if self.is_running():
            self.end(signal.SIGKILL)
        for pid in self.leftovers():
            os.kill(pid, signal.SIGKILL)

    def client(self) -> RunnerClient:
        return RunnerClient(self.state)

    def ask(self, **request: object) -> Any:
        client = self.client()
        try:
            return client.ask(**request)
        finally:
            client.close()

    def snapshot(self) -> Snapshot:
        return Snapshot.model_validate(self.ask(verb="list"))

    def new_job(self) -> str:
        return f"job{next(self._numbers)}"

    def order(
        self,
        behaviour: str,
        *,
        attempt: int = 1,
        job: str | None = None,
        gpus: Sequence[str] = (),
        seconds: float = 60,
        memory_bytes: int = 2**30,
        gpu_memory_bytes: int | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """A request whose job.json is written, with what else the behaviour needs."""
        job = job or self.new_job()
        folder = JobFolder.of(self.state, f"{job}-{attempt}")
        folder.path.mkdir(parents=True)
        folder.order.write_text(json.dumps({"behaviour": behaviour, "attempt": attempt, **more}))
        return {
            "verb": "run",
            "assignmentId": folder.assignment_id,
            "jobUid": job,
            "attempt": attempt,
            "key": f"default/{job}",
            "gpus": list(gpus),
            "memoryBytes": memory_bytes,
            "gpuMemoryBytes": gpu_memory_bytes,
            "deadline": boottime() + seconds,
        }

    def run(self, behaviour: str, **order: Any) -> JobFolder:
        """The job was accepted."""
        request = self.order(behaviour, **order)
        assert self.ask(**request) == {"ok": True}
        return self.folder(request)

    def run_until_told(self, gpus: Sequence[str]) -> JobFolder:
        """A job that ended at once and has noted what its trainer was told."""
        folder = self.run("end", gpus=gpus)
        self.wait_for_state(folder, "Reaped")
        return folder

    def folder(self, request: dict[str, Any]) -> JobFolder:
        return JobFolder.of(self.state, request["assignmentId"])

    def job(self, folder: JobFolder) -> JobProcess | None:
        jobs = {job.assignment_id: job for job in self.snapshot().jobs}
        return jobs.get(folder.assignment_id)

    def wait_for_state(self, folder: JobFolder, state: str) -> JobProcess:
        def reached() -> JobProcess | None:
            job = self.job(folder)
            return job if job is not None and job.state == state else None

        return wait_for(reached, f"{folder.assignment_id} is {state}")

    def wait_for_warm(self, count: int) -> Snapshot:
        def reached() -> Snapshot | None:
            snapshot = self.snapshot()
            return snapshot if (snapshot.warm, snapshot.warming) == (count, 0) else None

        return wait_for(reached, f"{count} warm trainers")

    def daemon_of(self, folder: JobFolder) -> int:
        """Pid of the process that the job left in a session of its own."""
        path = folder.path / "daemon.pid"
        wait_for(path.exists, "the daemon's pid")
        return int(path.read_text())

    def leftovers(self) -> list[int]:
        """Living processes that a runner of this state folder started."""
        identity = self.state / "runner" / "identity"
        if not identity.exists():
            return []
        return [
            process.pid
            for process in all_processes()
            if not process.is_dead and (marker_of(process.pid) or "").startswith(f"{identity.read_text()}.")
        ]

    def children(self) -> list[int]:
        return [process.pid for process in all_processes() if process.parent == self.pid]

    def stop(self, folder: JobFolder, grace_s: float) -> Any:
        return self.ask(verb="stop", assignmentId=folder.assignment_id, graceSeconds=grace_s)

    def renew(self, folder: JobFolder, seconds: float) -> Any:
        return self.ask(verb="renew", deadlines={folder.assignment_id: boottime() + seconds})

    def forget(self, folder: JobFolder) -> Any:
        return self.ask(verb="forget", assignmentId=folder.assignment_id)


@pytest.fixture
def until() -> Callable[[Callable[[], Any], str], Any]:
    return wait_for


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    """Of this test alone, and not started. Whatever it started is gone afterwards."""
    runner = Runner(tmp_path / "state")
    yield runner
    runner.wipe_out()


@pytest.fixture(scope="session")
def _shared_runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    runner = Runner(tmp_path_factory.mktemp("shared") / "state")
    runner.start()
    yield runner
    runner.wipe_out()


@pytest.fixture
def serving(_shared_runner: Runner) -> Iterator[Runner]:
    """One that serves, without warm trainers and without jobs; shared, because a start takes most of a test's time."""
    yield _shared_runner
    for job in _shared_runner.snapshot().jobs:
        folder = JobFolder.of(_shared_runner.state, job.assignment_id)
        _shared_runner.stop(folder, 0)
        _shared_runner.wait_for_state(folder, "Reaped")
        _shared_runner.forget(folder)
