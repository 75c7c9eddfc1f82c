"""Speaks the handshake like a trainer and then behaves as job.json says, so that tests need no torch."""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path


def main() -> int:
    if "--broken" in sys.argv:
        print("no such library", file=sys.stderr)
        return 3
    runner = socket.socket(fileno=int(sys.argv[sys.argv.index("--socket-fd") + 1]))
    ready = {"pid": os.getpid(), "torchVersion": "0.0", "models": ["fake"], "device": "cpu"}
    runner.sendall(json.dumps({"ready": ready}).encode() + b"\n")
    lines = runner.makefile("rb")
    if not (line := lines.readline()):
        return 0
    folder = Path(json.loads(line)["start"]["folder"])
    behaviour = json.loads((folder / "job.json").read_text())["behaviour"]
    note = {"environment": dict(os.environ), "nice": os.nice(0), "status": Path("/proc/self/status").read_text()}
    (folder / "facts.json").write_text(json.dumps(note))
    signal.signal(signal.SIGTERM, lambda *_: os._exit(20))
    if behaviour == "mute-once" and not (folder / "was-mute").exists():
        (folder / "was-mute").touch()
        time.sleep(60)
    print("printed before the start", flush=True)
    runner.sendall(b'{"started":true}\n')
    lines.close()
    runner.close()
    match behaviour:
        case "crash":
            return 7
        case "work":
            compute()
        case "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            leave_daemon(folder, compute)
            compute()
        case "leave-daemon":
            leave_daemon(folder, compute)
        case "leave-daemon-without-environment":
            leave_daemon(folder, lambda: os.execve("/bin/sleep", ["sleep", "60"], {}))
    return 0


def compute() -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        sum(range(1000))


def leave_daemon(folder: Path, then) -> None:
    """A process of the usual daemon kind runs: orphaned, in a session of its own."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            temporary = folder / "daemon.tmp"
            temporary.write_text(str(os.getpid()))
            temporary.rename(folder / "daemon.pid")
            then()
        os._exit(0)
    os.wait()
    while not (folder / "daemon.pid").exists():
        time.sleep(0.005)


if __name__ == "__main__":
    sys.exit(main())
