"""A trainer before its job: everything that can be done ahead is done, then it waits on its runner's socket."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time

import numpy.random  # noqa: F401  # numpy loads it when it is first asked for, which would be in the job
import torch

from cyxwiz_protocol import handshake
from cyxwiz_protocol.job_folder import JobFolder

from . import job, models
from .rehearsal import rehearse, usual_shapes
from .software import source_digest

REHEARSE_WITHIN_S = {"cuda": 20.0, "cpu": 2.0}
"""After which no further shape is begun. On a CPU little is gained, and cores are taken from jobs."""


def serve(socket_fd: int) -> int:
    """Becomes ready, runs the one job it is told, and returns the exit code of the process.

    0 without a job when the runner closes the socket first.
    """
    with socket.socket(fileno=socket_fd) as runner:
        try:
            runner.sendall(handshake.IMPORTED_LINE)
            line = _read_line(runner)
            if line is None:
                return 0
            prepare = handshake.parse_prepare(line)
            if prepare is None:
                raise ValueError(f"no prepare line: {line[:200]!r}")
            become_ready(prepare, runner)
            line = _read_line(runner)
        except (BrokenPipeError, ConnectionResetError):
            return 0
        if line is None:
            return 0
        start = handshake.parse_start(line)
        if start is None:
            raise ValueError(f"no start line: {line[:200]!r}")
        folder = JobFolder(path=job.absolute(start.folder))
        stop = job.enter(folder)
        runner.sendall(handshake.STARTED_LINE)
    return job.run_ranks(folder, stop, prepare.ranks)


def become_ready(prepare: handshake.Prepare, runner: socket.socket) -> None:
    """The device is taken, the runner knows it, and nothing is left to rehearse or the runner has spoken."""
    os.environ.update(prepare.environment)  # before anything asks for the device
    if prepare.ranks > 1:
        # Nothing is done ahead: neither a GPU's context nor threads outlive the fork of the ranks.
        runner.sendall(handshake.encode_ready(_ready("left to its ranks")))
        return
    # One thread: the pool grows to the job's own number later and no worker spins while the trainer waits.
    torch.set_num_threads(1)
    gpu = torch.cuda.is_available()
    device = torch.device("cuda", 0) if gpu else torch.device("cpu")
    told = [shape for shape in prepare.shapes if shape.on_gpu == gpu]
    steps = rehearse(told, usual_shapes(on_gpu=gpu)) if prepare.rehearse else rehearse([], [])
    with contextlib.closing(steps):
        until = time.monotonic() + REHEARSE_WITHIN_S[device.type]
        known = next(steps, 0)
        source_digest()  # remembered: the job's first report has it
        _tidy(device)
        free = torch.cuda.mem_get_info(device)[0] if gpu else None
        ready = _ready(torch.cuda.get_device_name(device) if gpu else "cpu", free)
        runner.sendall(handshake.encode_ready(ready))
        if not prepare.rehearse:
            return
        while not _has_spoken(runner):
            step = next(steps, None) if time.monotonic() < until else None
            if step is None:
                runner.sendall(handshake.encode_rehearsed(known))
                return
            known = step
            _tidy(device)


def _ready(device: str, free_memory: int | None = None) -> handshake.Ready:
    return handshake.Ready(
        pid=os.getpid(),
        torch_version=torch.__version__,
        models=models.names(),
        device=device,
        free_memory=free_memory,
    )


def _tidy(device: torch.device) -> None:
    """As a job expects it, which may begin at once."""
    if device.type == "cuda":
        torch.cuda.synchronize()  # sync: ready means that the kernels are loaded
        torch.cuda.set_stream(torch.cuda.default_stream(device))
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _has_spoken(runner: socket.socket) -> bool:
    """A line of the runner waits, or it is gone."""
    poll = select.poll()
    poll.register(runner, select.POLLIN | select.POLLHUP)
    return bool(poll.poll(0))


def _read_line(runner: socket.socket) -> bytes | None:
    """The runner's line without its newline, or None when it closed the socket."""
    line = b""
    while not line.endswith(b"\n"):
        part = runner.recv(handshake.LONGEST_LINE_BYTES)
        if not part:
            return None
        line += part
        if len(line) > handshake.LONGEST_LINE_BYTES:
            raise ValueError("the start line does not end")
    return line[:-1]
