"""CUDA's Multi-Process Service: one server of the runner's own, through which jobs of different uids share GPUs.

Under it kernels of several processes run at the same time, and a client's memory limit binds any code it runs. The
control program comes with the driver. A fault of the server ends all its clients.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from .orphans import Living
from .process_tree import MARKER, Process, all_processes, has_marker, send_signal

CONTROL_PROGRAM = "nvidia-cuda-mps-control"
BEGINS_WITHIN_S = 10.0
_MIB = 2**20
_log = logging.getLogger(__name__)


class MpsFailed(Exception):
    """The server could not be started; says why."""


class Mps:
    """The server and its control daemon, found by their marker: the control program puts itself in the background."""

    def __init__(self, program: Sequence[str], folder: Path, instance: str, living: Living) -> None:
        self._program = list(program)
        self._folder = folder
        self._marker = f"{instance}/mps"
        self._living = living
        self._daemon: int | None = None
        self._has_served = False

    async def start(self) -> None:
        """Clients may connect. Raises MpsFailed."""
        if self._daemon is not None:
            return
        try:
            launcher = self._launch()
        except OSError as error:
            raise MpsFailed(f"{self._program[0]}: {error.strerror or error}") from error
        # Until it has been reaped the launcher stands for everything that came of it; then the daemon does.
        self._living[launcher.pid] = has_marker(self._marker)
        until = time.monotonic() + BEGINS_WITHIN_S
        while (code := launcher.poll()) is None and time.monotonic() < until:  # noqa: ASYNC110  # no event tells its end
            await asyncio.sleep(0.01)
        daemons = self._processes() if code == 0 else []
        del self._living[launcher.pid]
        if not daemons:
            launcher.kill()
            launcher.wait()
            await self._kill_all()
            raise MpsFailed(f"{self._program[0]} ended with {code}" if code is not None else "it did not start in time")
        self._daemon, self._has_served = daemons[0].pid, len(daemons) > 1
        self._living[self._daemon] = has_marker(self._marker)
        _log.info("mps started pid=%d", self._daemon)

    def _launch(self) -> subprocess.Popen[bytes]:
        """The control program, which ends when its daemon runs. Raises OSError."""
        for folder in (self._folder, *map(Path, self._folders().values())):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o755)  # clients of any uid connect in there; the server sets the rights of its pipes
        return subprocess.Popen(
            [*self._program, "--multiuser-server", "-d"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={
                MARKER: self._marker,
                "PATH": os.environ.get("PATH", os.defpath),
                "LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", ""),
                **self._folders(),
            },
            start_new_session=True,
            umask=0,
        )

    def environment(self, gpu_count: int, gpu_memory_bytes: int) -> Mapping[str, str]:
        """What makes a process a client that may hold so much of each of its GPUs, context included."""
        limit = f"{gpu_memory_bytes // _MIB}M"
        limits = ",".join(f"{index}={limit}" for index in range(gpu_count))
        pipes = self._folders()["CUDA_MPS_PIPE_DIRECTORY"]
        return {"CUDA_MPS_PIPE_DIRECTORY": pipes, "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": limits}

    def is_lost(self) -> bool:
        """Daemon or server have ended by themselves since the start: their clients cannot go on."""
        if self._daemon is None:
            return False
        processes = self._processes()
        daemon_lives = any(process.pid == self._daemon for process in processes)
        serves = len(processes) > 1  # the daemon starts the server for the first client
        was_serving, self._has_served = self._has_served, self._has_served or serves
        return not daemon_lives or (was_serving and not serves)

    async def stop(self) -> None:
        """Neither daemon nor server is left."""
        if self._daemon is None:
            return
        del self._living[self._daemon]  # its end is reaped as any orphan's
        self._daemon = None
        await self._kill_all()
        _log.info("mps stopped")

    async def _kill_all(self) -> None:
        while processes := self._processes():
            for process in processes:
                send_signal(process, signal.SIGKILL)
            await asyncio.sleep(0.01)

    def _folders(self) -> dict[str, str]:
        return {
            "CUDA_MPS_PIPE_DIRECTORY": str(self._folder / "pipe"),
            "CUDA_MPS_LOG_DIRECTORY": str(self._folder / "log"),
        }

    def _processes(self) -> list[Process]:
        """Daemon first, then what it started."""
        is_ours = has_marker(self._marker)
        found = [process for process in all_processes() if not process.is_dead and is_ours(process.pid)]
        return sorted(found, key=lambda process: (process.start_time, process.pid))
