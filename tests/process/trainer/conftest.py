"""Real trainer processes on job folders below pytest's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from cyxwiz_crds import TrainingJobSpec
from cyxwiz_protocol.job_folder import JobFolder, Tail, write_json
from cyxwiz_protocol.order import JobOrder
from cyxwiz_protocol.records import Record, parse_record

# Importing torch on a busy machine takes most of it.
PATIENCE_S = 90.0
T = TypeVar("T", bound=Record)


@dataclass
class Job:
    """A job folder and the process that works on it."""

    folder: JobFolder
    process: subprocess.Popen[bytes]

    def records(self) -> list[Record]:
        """Every record so far. Fails on a line that an agent would drop."""
        records = [parse_record(line) for line in Tail(self.folder.metrics).lines()]
        assert None not in records, self.folder.metrics.read_text()
        return [record for record in records if record is not None]

    def of(self, kind: type[T]) -> list[T]:
        """The records of one kind."""
        return [record for record in self.records() if isinstance(record, kind)]

    def log(self) -> str:
        return self.folder.log.read_text() if self.folder.log.exists() else ""

    def wait(self) -> int:
        """The exit code."""
        return self.process.wait(PATIENCE_S)

    def stop(self) -> int:
        """SIGTERM, then the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def until(self, condition: Callable[[Job], bool]) -> None:
        """`condition` is true of the job."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition(self):
            assert self.process.poll() is None, f"it left with {self.process.returncode}: {self.log()}"
            assert time.monotonic() < deadline, f"it never came true: {self.log()}"
            time.sleep(0.02)


class Trainers:
    """Starts trainers, and ends those that a test left behind."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._processes: list[subprocess.Popen[bytes]] = []

    def folder(
        self,
        name: str,
        *,
        model: str = "cnn",
        uri: str = "builtin://digits",
        epochs: int = 5,
        batch_size: int = 32,
        restore_from: Path | None = None,
        hyperparameters: dict[str, object] | None = None,
        options: dict[str, int | str] | None = None,
        ranks: int = 1,
        output: dict[str, object] | None = None,
    ) -> JobFolder:
        """A job folder with its order."""
        spec = {
            "model": {"name": model, "options": options or ({"width": 8} if model == "cnn" else {})},
            "dataset": {"uri": uri},
            "epochs": epochs,
            "batchSize": batch_size,
            "hyperparameters": hyperparameters or {},
            "output": output or {},
            "resources": {"gpus": 0, "cpus": 1},
        }
        return self.folder_of(name, spec, ranks, restore_from)

    def folder_of(self, name: str, spec: dict[str, Any], ranks: int = 1, restore_from: Path | None = None) -> JobFolder:
        """A job folder with an order of this spec."""
        folder = JobFolder(self.root / name)
        folder.path.mkdir()
        order = JobOrder(
            assignment_id=name,
            namespace="team",
            name=name,
            attempt=1,
            spec=TrainingJobSpec.model_validate(spec),
            ranks=ranks,
            restore_from=None if restore_from is None else str(restore_from),
        )
        write_json(folder.order, order.wire())
        return folder

    def run(self, folder: JobFolder) -> Job:
        """The trainer of `folder`, just started."""
        return self.watch(folder, self.spawn("--folder", str(folder.path)))

    def watch(self, folder: JobFolder, process: subprocess.Popen[bytes]) -> Job:
        """`process` as the one that works on `folder`."""
        return Job(folder, process)

    def spawn(self, *arguments: str, pass_fds: tuple[int, ...] = (), **variables: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "CYXWIZ_DATA_ROOT": str(self.root)} | variables
        process = subprocess.Popen(
            [sys.executable, "-m", "cyxwiz_trainer", *arguments],
            env=environment,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        self._processes.append(process)
        return process

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def trainers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainers]:
    """One for a module, so that tests may look at the same finished job."""
    trainers = Trainers(tmp_path_factory.mktemp("jobs"))
    yield trainers
    trainers.end()
