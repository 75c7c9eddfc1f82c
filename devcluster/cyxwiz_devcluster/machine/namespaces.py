"""Namespaces of one machine: its own mounts, network and processes, joined to the outside by one pair of interfaces.

The supervisor is the first process of the process namespace. When it ends, however it ends, the kernel ends every
process in there, containers included, and with them the mounts and the network go: nothing has to be cleaned up but
folders.

A further node has mounts and a network of its own within, and a cable to the first node. They are those of a process
that does nothing, which the supervisor keeps like any other.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from cyxwiz_devcluster.errors import DevclusterError

from .place import NodePlace

# Mounts that the kubelet makes must reach containers, hence shared; none of them leaves the namespace.
ENTER = (
    "unshare",
    "--mount",
    "--net",
    "--ipc",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "--propagation=private",
    "sh",
    "-c",
    'mount --make-rshared / && exec "$@"',
    "sh",
)
"""In front of a command, which becomes process 1 of the namespaces."""
BEGINS_WITHIN_S = 20.0


INTERFACE = "cyxwiz0"
"""Outside. There is one machine at a time, so whatever has the name was left by one that was killed."""
HOLD = (
    "unshare",
    "--mount",
    "--net",
    "--propagation=private",
    "sh",
    "-c",
    "mount --make-rshared / && exec sleep infinity",
)
"""Holds the namespaces of a further node; it is `sleep` once they are made."""


def leave() -> None:
    """The pair of interfaces is gone; the kernel may take minutes over the network it led to."""
    subprocess.run(["ip", "link", "delete", INTERFACE], capture_output=True, check=False)


class Namespaces:
    """Those that a process started behind `ENTER` lives in."""

    def __init__(self, unshare_pid: int) -> None:
        """Waits until the command behind it runs. Raises DevclusterError when it does not."""
        deadline = time.monotonic() + BEGINS_WITHIN_S
        while (first := _only_child(unshare_pid)) is None or not _is_inside(first):
            if time.monotonic() > deadline or not Path(f"/proc/{unshare_pid}").exists():
                raise DevclusterError("The namespaces of the machine could not be made: is this process confined?")
            time.sleep(0.02)
        self._first = first

    def command(self, *command: str) -> list[str]:
        """The command line that runs `command` in there."""
        return ["nsenter", f"--target={self._first}", "--mount", "--net", "--ipc", "--pid", "--", *command]

    def run(self, *command: str, within_s: float = 60, input: bytes | None = None) -> str:
        """What `command` printed in there. Raises DevclusterError with what it said when it failed."""
        try:
            answer = subprocess.run(
                self.command(*command), input=input, capture_output=True, check=False, timeout=within_s
            )
        except subprocess.TimeoutExpired as error:
            raise DevclusterError(f"{' '.join(command)} did not end within {within_s:.0f} s") from error
        if answer.returncode != 0:
            said = (answer.stderr or answer.stdout).decode(errors="replace").strip()
            raise DevclusterError(f"{' '.join(command)} failed: {said[-2000:]}")
        return answer.stdout.decode(errors="replace")

    def join(self, place: NodePlace) -> None:
        """The machine answers at the address of its first node, and has a default route."""
        leave()
        _ip("link", "add", INTERFACE, "type", "veth", "peer", "name", "eth0", "netns", str(self._first))
        _ip("address", "add", f"{place.gateway}/30", "dev", INTERFACE)
        _ip("link", "set", INTERFACE, "up")
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "address", "add", f"{place.address}/30", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")
        self.run("ip", "route", "add", "default", "via", place.gateway)
        self.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")

    def branch(self, place: NodePlace, pid: int) -> Branch:
        """The namespaces that process `pid`, started as `HOLD`, has made, with a cable to the first node's.

        Raises DevclusterError when they could not be made.
        """
        deadline = time.monotonic() + BEGINS_WITHIN_S
        while self.run("cat", f"/proc/{pid}/comm").strip() != "sleep":
            if time.monotonic() > deadline:
                raise DevclusterError(f"The namespaces of {place.name} could not be made: is this process confined?")
            time.sleep(0.02)
        branch = Branch(self, pid)
        self.run("ip", "link", "add", place.name, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        self.run("ip", "address", "add", f"{place.gateway}/30", "dev", place.name)
        branch.run("ip", "link", "set", "lo", "up")
        branch.run("ip", "address", "add", f"{place.address}/30", "dev", "eth0")
        branch.run("ip", "link", "set", "eth0", "up")
        branch.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        self.connect(place)
        branch.run("ip", "route", "add", "default", "via", place.gateway)
        return branch

    def connect(self, place: NodePlace) -> None:
        """The cable of a further node is plugged in; the route to its pods went with it when it was not."""
        self.run("ip", "link", "set", place.name, "up")
        self.run("ip", "route", "replace", place.pod_cidr, "via", place.address)

    def disconnect(self, place: NodePlace) -> None:
        """Nothing reaches the node, and it reaches nothing, not even a refusal."""
        self.run("ip", "link", "set", place.name, "down")


class Branch:
    """Mounts and network of a further node."""

    def __init__(self, machine: Namespaces, pid: int) -> None:
        self._machine = machine
        self.entry = ("nsenter", f"--target={pid}", "--mount", "--net", "--")
        """In front of a command line of a process of the machine, which runs in there then."""

    def run(self, *command: str, within_s: float = 60) -> str:
        """What `command` printed in there. Raises DevclusterError with what it said when it failed."""
        return self._machine.run(*self.entry, *command, within_s=within_s)


def _only_child(pid: int) -> int | None:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return None
    return int(children[0]) if children else None


def _is_inside(pid: int) -> bool:
    """Whether the process has left this one's network and is the supervisor itself, no shell that becomes it."""
    try:
        process = Path(f"/proc/{pid}")
        left = (process / "ns/net").readlink() != Path("/proc/self/ns/net").readlink()
        return left and "python" in (process / "exe").readlink().name
    except OSError:
        return False


def _ip(*arguments: str) -> None:
    answer = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise DevclusterError(f"ip {' '.join(arguments)} failed: {answer.stderr.strip()}")
