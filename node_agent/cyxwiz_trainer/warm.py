"""A trainer before its job: everything that can be done ahead is done, then it waits on its runner's socket."""

from __future__ import annotations

import os
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
            ready = make_ready(prepare) if prepare.ranks == 1 else stay_off_the_device(prepare)
            runner.sendall(handshake.encode_ready(ready))
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


def make_ready(prepare: handshake.Prepare) -> handshake.Ready:
    """The device is this process's, and what it was told to rehearse is."""
    os.environ.update(prepare.environment)  # before anything asks for the device
    # One thread: the pool grows to the job's own number later and no worker spins while the trainer waits.
    torch.set_num_threads(1)
    gpu = torch.cuda.is_available()
    device = torch.device("cuda", 0) if gpu else torch.device("cpu")
    rehearsed = _rehearse(prepare, device) if prepare.rehearse else 0
    source_digest()  # remembered: the job's first report has it
    return handshake.Ready(
        pid=os.getpid(),
        torch_version=torch.__version__,
        models=models.names(),
        device=torch.cuda.get_device_name(device) if gpu else "cpu",
        free_memory=torch.cuda.mem_get_info(device)[0] if gpu else None,
        rehearsed=rehearsed,
    )


def stay_off_the_device(prepare: handshake.Prepare) -> handshake.Ready:
    """Nothing is done ahead: neither a GPU's context nor threads outlive the fork of the ranks."""
    os.environ.update(prepare.environment)
    return handshake.Ready(
        pid=os.getpid(), torch_version=torch.__version__, models=models.names(), device="left to its ranks"
    )


def _rehearse(prepare: handshake.Prepare, device: torch.device) -> int:
    """What jobs here have trained comes first, then what any job may need. Returns how many of the former."""
    gpu = device.type == "cuda"
    until = time.monotonic() + REHEARSE_WITHIN_S[device.type]
    told = [shape for shape in prepare.shapes if shape.on_gpu == gpu]
    known = rehearse(told, until - time.monotonic())
    families = {(shape.spec.model.name, shape.spec.precision) for shape in told[:known]}
    others = [
        shape for shape in usual_shapes(on_gpu=gpu) if (shape.spec.model.name, shape.spec.precision) not in families
    ]
    rehearse(others, until - time.monotonic())
    if gpu:
        torch.cuda.synchronize()  # sync: ready means that the kernels are loaded
        torch.cuda.set_stream(torch.cuda.default_stream(device))
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return known


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
