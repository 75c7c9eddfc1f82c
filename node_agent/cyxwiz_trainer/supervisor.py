"""The main process of a job of several ranks: forks them, repeats what they print, and ends all at the first failure.

It touches no GPU and computes nothing, so that a rank that hangs or is killed cannot take its judge with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cyxwiz_protocol.records import ExitCode

_LONGEST_LINE_BYTES = 8192
_DRAINED_WITHIN_S = 1.0
_WELL = (ExitCode.SUCCEEDED, ExitCode.STOPPED)
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Seat:
    """What one rank is born with."""

    rank: int
    size: int
    meeting: Path
    """A folder of this job alone, for the file store."""
    links: tuple[socket.socket, ...]
    """At the first rank one to each other, in their order; at the others one to the first."""
    board: mmap.mmap
    """8 bytes per rank, seen by all."""


@dataclass(frozen=True)
class End:
    """How the ranks ended: as one process would have."""

    code: int | None = None
    signal: int | None = None


def run_ranks(size: int, body: Callable[[Seat], int]) -> End:
    """`body` has run in `size` processes forked from this one, and none is left.

    This process must have started no threads that compute and must not have touched a GPU: neither outlives a fork.
    What ranks print comes out of this process's standard output, each line with its rank.
    """
    meeting = Path(tempfile.mkdtemp(prefix="ranks-"))
    try:
        ranks = _fork(size, meeting, body)
        with contextlib.ExitStack() as at_end:
            for rank in ranks:
                at_end.callback(rank.close)
            at_end.enter_context(_passing_on(ranks))
            first = _watch(ranks)
            for rank in ranks:
                rank.kill()
            _drain(ranks)
        return first
    finally:
        shutil.rmtree(meeting, ignore_errors=True)


def leave_as(end: End) -> int:
    """The exit code of this process; a signal that ended a rank ends this process instead."""
    if end.signal is not None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), end.signal)
        time.sleep(1)  # not reached, but by a signal whose default is to do nothing
    return 1 if end.code is None else end.code


class _Rank:
    """One forked process, its pidfd and what it prints."""

    def __init__(self, number: int, size: int, pid: int, output: int) -> None:
        self.number = number
        self.output = output
        self._name = f"rank {number} of {size}"
        self._pid = pid
        self.pidfd = os.pidfd_open(pid)
        self._rest = b""
        self.end: End | None = None

    def reap(self) -> None:
        """It has ended, and `end` says how."""
        _, status = os.waitpid(self._pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self.end = End(code=code) if code >= 0 else End(signal=-code)

    def terminate(self) -> None:
        if self.end is None:
            os.kill(self._pid, signal.SIGTERM)  # it has not been reaped: nobody else has its pid

    def kill(self) -> None:
        if self.end is None:
            os.kill(self._pid, signal.SIGKILL)  # as above
            self.reap()

    def repeat(self) -> bool:
        """What is in its pipe is in the log. False when nothing more will come. Waits where there is nothing yet."""
        output = os.read(self.output, 65_536)
        *lines, self._rest = (self._rest + output).split(b"\n")
        if not output or len(self._rest) > _LONGEST_LINE_BYTES:
            lines, self._rest = [*lines, self._rest], b""
        _print(b"".join(b"rank %d: %s\n" % (self.number, line) for line in lines if line))
        return bool(output)

    def tell_end(self) -> None:
        """The log says how it ended, and that the others were ended with it."""
        assert self.end is not None
        how = (
            f"was killed by {signal.Signals(self.end.signal).name}"
            if self.end.signal is not None
            else f"ended with exit code {self.end.code}"
        )
        _print(f"{self._name} {how}: all were ended\n".encode())

    def close(self) -> None:
        os.close(self.pidfd)
        os.close(self.output)


@contextlib.contextmanager
def _passing_on(ranks: list[_Rank]) -> Iterator[None]:
    """SIGTERM to this process alone is for its ranks; one that was sent to the whole session they hear twice."""

    def pass_on(_number: int, _frame: object) -> None:
        for rank in ranks:
            rank.terminate()

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _fork(size: int, meeting: Path, body: Callable[[Seat], int]) -> list[_Rank]:
    board = mmap.mmap(-1, 8 * size)
    pairs = [socket.socketpair() for _ in range(size - 1)]
    parent = os.getpid()
    ranks: list[_Rank] = []
    for number in range(size):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            for rank in ranks:
                rank.close()
            mine = tuple(first for first, _ in pairs) if number == 0 else (pairs[number - 1][1],)
            for end in {end for pair in pairs for end in pair}.difference(mine):
                end.close()  # a peer that is gone must be seen to be gone
            _be_rank(Seat(number, size, meeting, mine, board), body, writing, parent)
        os.close(writing)
        ranks.append(_Rank(number, size, pid, reading))
    for pair in pairs:
        for end in pair:
            end.close()
    return ranks


def _be_rank(seat: Seat, body: Callable[[Seat], int], output: int, parent: int) -> None:
    """Never returns: what the parent has on its stack is not this process's to finish."""
    code = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        if os.getppid() == parent:  # else it died before the first line
            code = body(seat)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _watch(ranks: list[_Rank]) -> End:
    """Returns when the first rank has ended, or any other badly."""
    poll = select.poll()
    by_pidfd = {rank.pidfd: rank for rank in ranks}
    by_output = {rank.output: rank for rank in ranks}
    for descriptor in (*by_pidfd, *by_output):
        poll.register(descriptor, select.POLLIN)
    while True:
        ready = [descriptor for descriptor, _ in poll.poll()]
        for descriptor in ready:
            if descriptor in by_output and not by_output[descriptor].repeat():
                poll.unregister(descriptor)
        ended = [by_pidfd[descriptor] for descriptor in ready if descriptor in by_pidfd]
        for rank in ended:
            poll.unregister(rank.pidfd)
            rank.reap()
        badly = [rank for rank in ended if rank.end is not None and rank.end.code not in _WELL]
        if badly:
            first = min(badly, key=lambda rank: rank.end is not None and rank.end.signal is None)
            _finish(ranks, first)
            assert first.end is not None
            return first.end
        if ranks[0].end is not None:
            return ranks[0].end


def _finish(ranks: list[_Rank], first: _Rank) -> None:
    """All are ended, and the log ends with the words of the one that failed first."""
    for rank in ranks:
        rank.kill()
    _drain([rank for rank in ranks if rank is not first])
    _drain([first])
    if first.end is not None and first.end.code != ExitCode.FAILED:  # its record says more
        first.tell_end()


def _drain(ranks: list[_Rank]) -> None:
    """What was printed before the end is in the log. Bounded: a process that a rank left behind may print on."""
    until = time.monotonic() + _DRAINED_WITHIN_S
    for rank in ranks:
        while select.select([rank.output], [], [], 0)[0] and rank.repeat() and time.monotonic() < until:
            pass


def _print(content: bytes) -> None:
    with contextlib.suppress(OSError):  # a full disk: what ranks print is not worth their end
        os.write(1, content)
