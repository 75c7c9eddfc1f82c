"""One trainer from its spawn to its reaping: the handshake, its signals, its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from cyxwiz_protocol.handshake import (
    IMPORTED_LINE,
    LONGEST_LINE_BYTES,
    STARTED_LINE,
    Prepare,
    Ready,
    Start,
    encode_prepare,
    encode_start,
    parse_ready,
    parse_rehearsed,
)
from cyxwiz_protocol.job_folder import JobFolder

from .confinement import kill_all_of
from .memory import memory_of
from .orphans import Living, nobodys
from .process_tree import Process, all_processes, has_marker, has_uid, is_stopped, select_tree, send_signal
from .quarters import Quarters

IMPORTED_WITHIN_S = 300.0
"""For importing torch from a cold disk on a busy machine."""
READY_WITHIN_S = 120.0
"""For the device and a first step on a busy one."""
REHEARSED_WITHIN_S = 300.0
STARTED_WITHIN_S = 2.0
REHEARSING_STARTED_WITHIN_S = 20.0
"""The step that it rehearses comes first."""
_LAST_WORDS_BYTES = 300


@dataclass(frozen=True)
class SpawnPlan:
    """What is fixed for a trainer's life: it takes only jobs that need nothing else."""

    gpus: tuple[str, ...] = ()
    """UUIDs of the devices it sees; empty means the CPU."""
    cpus: int = 1
    nice: int = 0


class StartFailed(Exception):
    """A trainer did not become ready, or did not answer; says why. It still has to be ended."""


class Trainer:
    """The processes that came of one spawn.

    Its main process is reaped last: while its entry is there, nobody else can be given its pid or its session.
    """

    def __init__(
        self,
        plan: SpawnPlan,
        popen: subprocess.Popen[bytes],
        root: Process,
        marker: str,
        quarters: Quarters,
        connection: socket.socket,
        living: Living,
    ) -> None:
        self.plan = plan
        self.root = root
        self.marker = marker
        self.imported = False
        self.ready: Ready | None = None
        self.exited = asyncio.Event()
        self._popen = popen
        self._exit_callbacks: list[Callable[[], None]] = []
        self._quarters = quarters
        self._clearing: asyncio.Future[None] | None = None
        self._connection = connection
        self._connection.setblocking(False)
        self._received = b""
        self._rehearsal: asyncio.Task[int] | None = None
        self._living = living
        self._is_marked = has_marker(marker) if self.uid is None else has_uid(self.uid)
        self._living[popen.pid] = self._is_marked
        self._pidfd = os.pidfd_open(popen.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_exit)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def uid(self) -> int | None:
        """Its own; None where trainers have the runner's."""
        return self._quarters.uid

    @property
    def exit_code(self) -> int | None:
        """None until reaped, and when a signal ended it."""
        code = self._popen.returncode
        return code if code is not None and code >= 0 else None

    @property
    def signal(self) -> int | None:
        """The signal that ended it, once reaped."""
        code = self._popen.returncode
        return -code if code is not None and code < 0 else None

    # The handshake.

    async def become_imported(self) -> None:
        """The trainer waits to be told to prepare, and holds no device. Raises StartFailed."""
        if await self._read_line(IMPORTED_WITHIN_S, "it had imported what it needs") != IMPORTED_LINE:
            raise StartFailed("it said something else than that it has imported what it needs")
        self.imported = True

    async def become_ready(self, prepare: Prepare) -> Ready:
        """The trainer waits for a job. Raises StartFailed."""
        if not self.imported:
            await self.become_imported()
        await self._send(encode_prepare(prepare), "it heard what to prepare")
        ready = parse_ready(await self._read_line(READY_WITHIN_S, "it became ready"))
        if ready is None:
            raise StartFailed("it said something else than that it is ready")
        self.ready = ready
        return ready

    async def rehearsed(self) -> int | None:
        """How many shapes it has rehearsed, once it is at the end; None when a job began before, or it failed."""
        self._rehearsal = asyncio.ensure_future(self._rehearsed())
        await asyncio.wait([self._rehearsal])
        failed = self._rehearsal.cancelled() or self._rehearsal.exception() is not None
        return None if failed else self._rehearsal.result()

    async def _rehearsed(self) -> int:
        count = parse_rehearsed(await self._read_line(REHEARSED_WITHIN_S, "it had rehearsed"))
        if count is None:
            raise StartFailed("it said something else than that it has rehearsed")
        return count

    async def start(self, folder: JobFolder) -> None:
        """The job of that folder has begun; from here on there are only files and signals.

        Raises StartFailed, and OSError when the folder cannot be made its own.
        """
        await self._quarters.take_in(folder)
        rehearses = self._rehearsal is not None and self._rehearsal.cancel()
        await self._send(encode_start(Start(folder=str(folder.path))), "it heard of its job")
        within_s = REHEARSING_STARTED_WITHIN_S if rehearses else STARTED_WITHIN_S
        line = await self._read_line(within_s, "it began")
        if rehearses and parse_rehearsed(line) is not None:
            line = await self._read_line(within_s, "it began")
        if line != STARTED_LINE:
            raise StartFailed("it said something else than that it began")
        self._connection.close()

    async def _send(self, line: bytes, what: str) -> None:
        try:
            await asyncio.get_running_loop().sock_sendall(self._connection, line)
        except OSError as error:
            raise StartFailed(f"it was gone before {what}{self.last_words()}") from error

    async def _read_line(self, within_s: float, what: str) -> bytes:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(within_s):
                while b"\n" not in self._received:
                    part = await loop.sock_recv(self._connection, 65_536)
                    self._received += part
                    if not part or len(self._received) > LONGEST_LINE_BYTES:
                        raise StartFailed(f"it ended before {what}{self.last_words()}")
        except TimeoutError as error:
            raise StartFailed(f"{within_s:.0f} s passed before {what}{self.last_words()}") from error
        except OSError as error:
            raise StartFailed(f"it ended before {what}{self.last_words()}") from error
        line, _, self._received = self._received.partition(b"\n")
        return line + b"\n"

    # Its processes.

    def on_exit(self, callback: Callable[[], None]) -> None:
        """`callback` is called once, when the main process has exited."""
        if self.exited.is_set():
            callback()
        else:
            self._exit_callbacks.append(callback)

    def tree(self) -> list[Process]:
        """Its processes that are left, the unreaped main process included."""
        return select_tree(self.root, list(all_processes()), self._is_marked)

    def memory_bytes(self, processes: list[Process]) -> int:
        """What those of `processes` use that are its own. Only orphans are asked for their mark: this runs often."""
        orphans = {process.pid for process in processes if process.parent == os.getpid()}
        tree = select_tree(self.root, processes, lambda pid: pid in orphans and self._is_marked(pid))
        return memory_of(tree)

    def terminate(self) -> None:
        """SIGTERM to the session of the main process."""
        for process in self.tree():
            if process.session == self.root.session:
                send_signal(process, signal.SIGTERM)

    def freeze(self) -> bool:
        """SIGSTOP to whatever moves; True when nothing did."""
        moving = [process for process in self.tree() if not is_stopped(process)]
        for process in moving:
            send_signal(process, signal.SIGSTOP)
        return not moving

    def thaw(self) -> None:
        for process in self.tree():
            send_signal(process, signal.SIGCONT)

    def kill(self) -> bool:
        """SIGKILL to whatever is left; True when nothing was, and then the main process is reaped."""
        if self._popen.returncode is not None:
            return True
        processes = list(all_processes())
        tree = select_tree(self.root, processes, self._is_marked)
        left = [process for process in tree if process.pid != self.pid] + nobodys(processes, self._living)
        for process in left:
            send_signal(process, signal.SIGKILL)
        if left and self.uid is not None:
            kill_all_of(self.uid)
        if not self.exited.is_set():
            self._popen.kill()
        elif not left:
            self._reap()
            return True
        return False

    async def end(self) -> None:
        """Nothing of it is left, and what it had is another's."""
        while not self.kill():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.exited.wait(), 0.02)
            await asyncio.sleep(0.005)  # for what is left besides the main process
        await self.clear()

    async def clear(self) -> None:
        """What it had for itself may be another's. It must have been reaped; a second call waits for the first."""
        if self._clearing is None:
            self._clearing = asyncio.ensure_future(self._quarters.clear())
        await asyncio.shield(self._clearing)

    def last_words(self) -> str:
        """(its last line of output), or nothing."""
        try:
            lines = self._quarters.output.read_bytes().strip().splitlines()
        except OSError:
            return ""
        return f" ({lines[-1][:_LAST_WORDS_BYTES].decode(errors='replace')})" if lines else ""

    def _on_exit(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.exited.set()
        for callback in self._exit_callbacks:
            callback()

    def _reap(self) -> None:
        self._popen.wait()
        self._connection.close()
        del self._living[self.pid]
