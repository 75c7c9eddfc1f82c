"""A trainer before its job: everything that can be done ahead is done, then it waits on its runner's socket."""

from __future__ import annotations

import os
import socket

import torch
from torch import nn

from cyxwiz_crds.training_job import Hyperparameters
from cyxwiz_protocol import handshake
from cyxwiz_protocol.job_folder import JobFolder

from . import job, models
from .device import IMAGE_LAYOUT
from .optimizer import Optimizer


def serve(socket_fd: int) -> int:
    """Becomes ready, runs the one job it is told, and returns the exit code of the process.

    0 without a job when the runner closes the socket first.
    """
    with socket.socket(fileno=socket_fd) as runner:
        ready = warm_up()
        try:
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
    return job.run(folder, stop)


def warm_up() -> handshake.Ready:
    """One dummy step is done, so that libraries and kernels are loaded."""
    # One thread: the pool grows to the job's own number later and no worker spins while the trainer waits.
    torch.set_num_threads(1)
    gpu = torch.cuda.is_available()
    device = torch.device("cuda", 0) if gpu else torch.device("cpu")
    _dummy_step(device, torch.bfloat16 if gpu and torch.cuda.is_bf16_supported(including_emulation=False) else None)
    if gpu:
        torch.cuda.synchronize()  # sync: ready means that the kernels are loaded
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return handshake.Ready(
        pid=os.getpid(),
        torch_version=torch.__version__,
        models=models.names(),
        device=torch.cuda.get_device_name(device) if gpu else "cpu",
        free_memory=torch.cuda.mem_get_info(device)[0] if gpu else None,
    )


def _dummy_step(device: torch.device, dtype: torch.dtype | None) -> None:
    model = models.build(models.parse_options("cnn", {"width": 8}), (3, 32, 32), 10)
    model = model.to(device).to(memory_format=IMAGE_LAYOUT)  # pyright: ignore[reportCallIssue]  # not in its stubs
    optimizer = Optimizer(model, Hyperparameters())
    images = torch.zeros(32, 3, 32, 32, device=device).contiguous(memory_format=IMAGE_LAYOUT)
    labels = torch.zeros(32, dtype=torch.int64, device=device)
    with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
        loss = nn.functional.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.set_learning_rate(0.01)
    optimizer.step()


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
