"""Owns the processes of one cluster: when it ends, however it ends, they end.

Run as a script with one thread and only the standard library, so that it starts in milliseconds:
`python -I -S supervisor.py RECORD OWNER_PID`. Requests come as JSON lines on stdin:

    {"name": "etcd", "command": ["/path/etcd", "--flag"], "log": "/path/etcd.log"}   start a process
    {"detach": true}                                                                 outlive the owner from now on

RECORD is a JSON file, replaced whole at each change: this process and every child with pid and start time, and
the exit status of those that ended. Everything ends, by SIGKILL since nothing here is worth keeping, when

- the owner ends: its end of stdin closes, or its pidfd says so (a fork of the owner may hold the pipe open);
- this process gets SIGTERM;
- a child ends, because a control plane that lacks a part only looks alive;
- this process is killed: each child has PR_SET_PDEATHSIG. That signal fires when the *thread* that forked ends,
  so this process has a main thread only.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when it is gone or only waits to be reaped.

    With the pid it names one process for good: a later one with the same pid has another start time.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the command's name may hold spaces and brackets
    return None if fields[0] in "ZX" else int(fields[19])


class Supervisor:
    def __init__(self, record: Path) -> None:
        self.record = record
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.entries: dict[str, dict[str, object]] = {}
        self.ended_because: str | None = None
        self.write()

    def start(self, name: str, command: list[str], log: str) -> None:
        """The child runs, in its own process group, and is recorded; or its failure to start is."""
        supervisor = os.getpid()

        def die_with_supervisor() -> None:
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != supervisor:  # it died between fork and prctl
                os._exit(1)

        with Path(log).open("ab") as output:
            try:
                child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    process_group=0,
                    preexec_fn=die_with_supervisor,  # safe here: one thread only
                )
            except OSError as error:
                output.write(f"cannot start {command[0]}: {error.strerror}\n".encode())
                self.entries[name] = {"pid": 0, "start_time": 0, "exit_status": 126, "log": log}
                self.ended_because = f"{name} could not be started"
                return
        self.children[name] = child
        self.entries[name] = {
            "pid": child.pid,
            "start_time": start_time(child.pid) or 0,
            "exit_status": None,
            "log": log,
        }
        self.write()

    def reap(self) -> None:
        for name, child in self.children.items():
            if self.entries[name]["exit_status"] is None and (status := child.poll()) is not None:
                self.entries[name]["exit_status"] = status
                self.ended_because = self.ended_because or f"{name} ended with status {status}"

    def end(self) -> None:
        """No child is left, and the record says why."""
        for child in self.children.values():
            child.kill()
        for name, child in self.children.items():
            self.entries[name]["exit_status"] = child.wait()
        with contextlib.suppress(OSError):  # the folder may be gone already
            self.write()

    def write(self) -> None:
        value = {
            "supervisor": {"pid": os.getpid(), "start_time": start_time(os.getpid())},
            "processes": self.entries,
            "ended_because": self.ended_because,
        }
        temporary = self.record.with_suffix(".new")
        temporary.write_text(json.dumps(value))
        temporary.replace(self.record)


def supervise(supervisor: Supervisor, owner: int | None, wakeup: int, stopped: list[int]) -> None:
    """Serves requests until there is a reason to end, which it leaves in `supervisor.ended_because`."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(wakeup, select.POLLIN)
    if owner is not None:
        poll.register(owner, select.POLLIN)
    unread, attached = b"", True
    while supervisor.ended_because is None:
        ready = {descriptor for descriptor, _ in poll.poll()}
        if wakeup in ready:
            os.read(wakeup, 512)
            supervisor.reap()
        if stopped:
            supervisor.ended_because = supervisor.ended_because or "it was stopped"
        elif 0 in ready and attached:  # before a look at the owner, whose last word may have been "detach"
            chunk = os.read(0, 65536)
            *lines, unread = (unread + chunk).split(b"\n")
            for request in map(json.loads, lines):
                if "detach" in request:
                    attached = False
                    poll.unregister(0)
                    if owner is not None:
                        poll.unregister(owner)
                else:
                    supervisor.start(**request)
            if not chunk:
                supervisor.ended_because = "its owner ended"
        elif owner in ready and attached:
            supervisor.ended_because = "its owner ended"


def main(record: str, owner_pid: int) -> None:
    stopped: list[int] = []
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # the owner's blocked signals came along
    wakeup, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    for ignored in (signal.SIGINT, signal.SIGHUP):  # meant for whoever sits at the terminal, and reach us through it
        signal.signal(ignored, signal.SIG_IGN)
    try:
        owner = os.pidfd_open(owner_pid) if os.getppid() == owner_pid else None
    except OSError:
        owner = None  # a kernel without pidfd, or the owner is gone: the pipe tells
    supervisor = Supervisor(Path(record))
    try:
        supervise(supervisor, owner, wakeup, stopped)
    finally:
        supervisor.end()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
