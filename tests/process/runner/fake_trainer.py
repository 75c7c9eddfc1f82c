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
    lines = runner.makefile("rb")
    runner.sendall(b'{"imported":true}\n')
    if not (line := lines.readline()):
        return 0
    prepare = json.loads(line)["prepare"]
    os.environ.update(prepare.get("environment", {}))
    ready = {"pid": os.getpid(), "torchVersion": "0.0", "models": ["fake"], "device": "cpu"}
    runner.sendall(json.dumps({"ready": ready}).encode() + b"\n")
    if prepare.get("rehearse"):
        runner.sendall(json.dumps({"rehearsed": len(prepare.get("shapes", []))}).encode() + b"\n")
    if not (line := lines.readline()):
        return 0
    folder = Path(json.loads(line)["start"]["folder"])
    order = json.loads((folder / "job.json").read_text())
    behaviour = order["behaviour"]
    note = {"prepare": prepare, "environment": dict(os.environ), "nice": os.nice(0)}
    note["status"] = Path("/proc/self/status").read_text()
    (folder / "facts.json").write_text(json.dumps(note))
    signal.signal(signal.SIGTERM, lambda *_: os._exit(20))
    if behaviour == "mute-once" and not (folder / "was-mute").exists():
        (folder / "was-mute").touch()
        time.sleep(60)
    print("printed before the start", flush=True)
    runner.sendall(b'{"started":true}\n')
    lines.close()
    runner.close()
    if "shape" in order:
        (folder / "shape.json").write_text(json.dumps(order["shape"]))
    match behaviour:
        case "spy":
            (folder / "spied.json").write_text(json.dumps(spy(folder, order)))
        case "crash":
            return 7
        case "work":
            compute()
        case "read":
            (folder / "read").write_text((Path(order["restoreFrom"]) / "state.json").read_text())
        case "train":
            train(folder)
        case "allocate":
            allocate(folder, order["bytes"])
        case "allocate-in-daemon":
            leave_daemon(folder, lambda: allocate(folder, order["bytes"]))
            compute()
        case "print":
            print_to_log(folder, order["lines"])
        case "trap":
            victim = folder.parent.parent / "victim"
            for name in ("trainer.log", "exit.json", *(f".exit.json.{pid}.tmp" for pid in (os.getppid(), 1))):
                (folder / name).symlink_to(victim)
            compute()
        case "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            leave_daemon(folder, compute)
            compute()
        case "leave-daemon":
            leave_daemon(folder, compute)
        case "deaf-without-environment":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            leave_daemon(folder, lambda: os.execve("/bin/sleep", ["sleep", "60"], {}))
            compute()
        case "leave-daemon-without-environment":
            leave_daemon(folder, lambda: os.execve("/bin/sleep", ["sleep", "60"], {}))
    return 0


def train(folder: Path) -> None:
    """A model, and an end once the test lets it."""
    (folder / "model").mkdir()
    (folder / "model" / "model.safetensors").write_bytes(b"weights")
    (folder / "model" / "SHA256SUMS").write_bytes(b"sums")
    while not (folder / "go").exists():
        time.sleep(0.01)


def spy(folder: Path, order: dict) -> dict[str, str]:
    """What came of everything a job might try on a neighbour, on its own order and on the machine."""
    neighbour, pid = Path(order["neighbour"]), order["pid"]
    shared = Path("/dev/shm") / f"cyxwiz-test-{os.getpid()}"
    shared.mkdir()
    (shared / "left").write_text("behind")
    return {
        "shared": str(shared),
        "list": attempt(lambda: list(neighbour.iterdir())),
        "read": attempt((neighbour / "trainer.log").read_text),
        "list all": attempt(lambda: list(neighbour.parent.iterdir())),
        "signal": attempt(lambda: os.kill(pid, 0)),
        "environment": attempt(Path(f"/proc/{pid}/environ").read_bytes),
        "deadline": attempt(lambda: (folder / "deadline").write_bytes(b"\x7f" * 8)),
        "no deadline": attempt((folder / "deadline").unlink),
        "other order": attempt((folder / "job.json").unlink),
        "root": attempt(lambda: os.setuid(0)),
        "groups": str(os.getgroups()),
    }


def attempt(deed) -> str:
    try:
        deed()
    except OSError as error:
        return type(error).__name__
    return "done"


def print_to_log(folder: Path, lines: list) -> None:
    """As the real one does: standard output is the log, opened to append."""
    log = os.open(folder / "trainer.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(log, 1)
    for line, times in lines:
        for _ in range(times):
            print(line, flush=True)
    (folder / "printed").touch()
    compute()


def allocate(folder: Path, size: int) -> None:
    memory = bytearray(size)  # zeros that are not there until they are touched
    memory[::4096] = b"x" * len(memory[::4096])
    (folder / "allocated").touch()
    compute()


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
