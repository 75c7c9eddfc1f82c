"""A warm trainer and its runner: a few lines on a socket, then files and the deadline."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cyxwiz_protocol import handshake
from cyxwiz_protocol.clock import boottime
from cyxwiz_protocol.job_folder import write_deadline
from cyxwiz_protocol.records import ExitCode, ModelRecord, StartedRecord
from cyxwiz_protocol.shape import parse_shape
from cyxwiz_trainer.rehearsal import usual_shapes

PATIENCE_S = 90.0


def test_a_warm_trainer_rehearses_is_told_a_folder_and_trains_while_its_deadline_allows(trainers: Any) -> None:
    folder = trainers.folder("warm", epochs=1)
    write_deadline(folder, boottime() - 1)
    runner, theirs = socket.socketpair()
    runner.settimeout(PATIENCE_S)
    process = trainers.spawn("--socket-fd", str(theirs.fileno()), pass_fds=(theirs.fileno(),))
    theirs.close()
    with runner, runner.makefile("rb") as lines:
        assert lines.readline() == handshake.IMPORTED_LINE
        shapes = usual_shapes(on_gpu=False)
        runner.sendall(handshake.encode_prepare(handshake.Prepare(rehearse=True, shapes=shapes)))
        ready = handshake.parse_ready(lines.readline())
        assert ready is not None
        assert (ready.pid, ready.device) == (process.pid, "cpu")
        assert handshake.parse_rehearsed(lines.readline()) == 1
        assert {"cnn", "mlp", "resnet18", "vit", "gpt"} <= set(ready.models)
        runner.sendall(handshake.encode_start(handshake.Start(folder=str(folder.path))))
        assert lines.readline() == handshake.STARTED_LINE
        assert lines.readline() == b"", "from then on it talks through files only"

    _wait_until(folder.metrics.exists)
    # Not one step while the deadline has passed: it is asleep, which its processor time shows.
    _wait_until_asleep(process.pid)
    assert not folder.metrics.read_bytes()
    write_deadline(folder, boottime() + 600)
    assert process.wait(PATIENCE_S) == ExitCode.SUCCEEDED, folder.log.read_text()
    kinds = [type(record) for record in trainers.watch(folder, process).records()]
    assert kinds[0] is StartedRecord
    assert kinds[-1] is ModelRecord
    shape = parse_shape(folder.shape.read_bytes())
    assert shape is not None
    assert (shape.spec.model.name, shape.input_shape) == ("cnn", [1, 8, 8])


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def _wait_until_asleep(pid: int) -> None:
    """The process has used almost no processor time for half a second."""

    def is_asleep() -> bool:
        before = _processor_ticks(pid)
        time.sleep(0.5)
        return _processor_ticks(pid) - before <= 2

    _wait_until(is_asleep)


def _processor_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_a_warm_trainer_leaves_when_its_runner_does(trainers: Any) -> None:
    runner, theirs = socket.socketpair()
    process = trainers.spawn("--socket-fd", str(theirs.fileno()), pass_fds=(theirs.fileno(),))
    theirs.close()
    runner.close()
    assert process.wait(PATIENCE_S) == ExitCode.SUCCEEDED
