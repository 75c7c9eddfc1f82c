"""What a trainer's process does to itself between fork and exec, and how all of a uid is killed at once."""

from __future__ import annotations

import ctypes
import os
import resource
import signal

OPEN_FILES = 65_536
"""Enough for a data loader over many shards; a container may allow millions, which only feeds leaks."""
PROCESSES_PER_UID = 4096
"""Threads count. Where trainers share a uid there is no such limit: one would use up the others' share."""
_OOM_SCORE_ADJ = b"900"
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 1, 38, 47, 4
_CAPABILITY_VERSION_3 = 0x20080522
_libc = ctypes.CDLL(None)  # loaded here: nothing may be loaded between fork and exec


class Confinement:
    """Limits, no privileges, another user where `uid` says so, and an end with the runner's own.

    No limit on file sizes: it would kill a job whose checkpoint is large, and says nothing about many files. What a
    job prints is bounded by `output.py`.
    """

    def __init__(self, uid: int | None) -> None:
        self._uid = uid
        self._parent = os.getpid()
        self._no_capabilities = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
        _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._open_files = OPEN_FILES if most_files == resource.RLIM_INFINITY else min(OPEN_FILES, most_files)

    def __call__(self) -> None:
        score = os.open("/proc/self/oom_score_adj", os.O_WRONLY)  # root's, once the uid has changed
        os.write(score, _OOM_SCORE_ADJ)  # memory runs out: a job dies, not the runner
        os.close(score)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (self._open_files, self._open_files))
        if self._uid is not None:
            resource.setrlimit(resource.RLIMIT_NPROC, (PROCESSES_PER_UID, PROCESSES_PER_UID))
            self._become(self._uid)
        _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # last: a change of uid clears it
        if os.getppid() != self._parent:  # it died before the line above
            os._exit(1)

    def _become(self, uid: int) -> None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
        os.setresuid(uid, uid, uid)
        if _libc.capset(*self._no_capabilities):  # the inheritable ones, which a change of uid leaves
            os._exit(1)


def kill_all_of(uid: int) -> None:
    """Every process of `uid` got SIGKILL in one system call, so that none forks faster than it is found."""
    child = os.fork()
    if child == 0:
        try:
            os.setresuid(uid, uid, uid)
            os.kill(-1, signal.SIGKILL)  # all that this user may signal, but for the caller
        finally:
            os._exit(0)
    os.waitpid(child, 0)
