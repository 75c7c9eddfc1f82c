"""Reads how much memory the container, the machine and a tree of processes use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from .memory_policy import Bound
from .process_tree import Process

_CGROUPS = Path("/sys/fs/cgroup")
_PROC = Path("/proc")
_UNLIMITED = 2**60
"""cgroup v1 has no word for it: a number of pages that no machine has."""


def read_bounds(cgroups: Path = _CGROUPS, proc: Path = _PROC) -> list[Bound]:
    """The container's bound where it has one, and the machine's. What a kernel does not tell is left out."""
    return [bound for bound in (_of_container(cgroups, proc), _of_machine(proc)) if bound is not None]


def memory_of(processes: Iterable[Process], proc: Path = _PROC) -> int:
    """Bytes that would be free if the processes of one job ended.

    Their own pages summed; of shared memory the largest share of one process, because workers map the same; nothing of
    files, which every trainer maps and the kernel may drop.
    """
    own = shared = 0
    for process in processes:
        fields = dict(_kilobytes(proc / str(process.pid) / "status"))
        own += fields.get("RssAnon", 0)
        shared = max(shared, fields.get("RssShmem", 0))
    return own + shared


def _of_container(cgroups: Path, proc: Path) -> Bound | None:
    """By cgroup v2, or by v1 where the memory controller is there."""
    for line in _lines(proc / "self" / "cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            folder = _existing(cgroups / "memory", path)
            return _bound(folder, "memory.usage_in_bytes", "memory.limit_in_bytes", "total_inactive_file")
    for line in _lines(proc / "self" / "cgroup"):
        if line.startswith("0::"):
            return _bound(_existing(cgroups, line[3:]), "memory.current", "memory.max", "inactive_file")
    return None


def _existing(root: Path, path: str) -> Path:
    """The group's folder; its own root where the container sees only itself."""
    folder = root / path.strip().lstrip("/")
    return folder if folder.is_dir() else root


def _bound(folder: Path, current: str, limit: str, droppable: str) -> Bound | None:
    """File pages that nobody has used lately count as free: the kernel takes them first."""
    try:
        limit_bytes = int((folder / limit).read_text())
        used = int((folder / current).read_text())
    except (OSError, ValueError):  # "max", or the root of a machine
        return None
    if limit_bytes >= _UNLIMITED:
        return None
    for line in _lines(folder / "memory.stat"):
        name, _, value = line.partition(" ")
        if name == droppable:
            used -= int(value)
    return Bound("the container", max(used, 0), limit_bytes)


def _of_machine(proc: Path) -> Bound | None:
    fields = dict(_kilobytes(proc / "meminfo"))
    if "MemTotal" not in fields or "MemAvailable" not in fields:
        return None
    return Bound("the machine", fields["MemTotal"] - fields["MemAvailable"], fields["MemTotal"])


def _kilobytes(path: Path) -> Iterator[tuple[str, int]]:
    for line in _lines(path):
        name, _, value = line.partition(":")
        if value.endswith(" kB"):
            yield name, int(value[:-3]) * 1024


def _lines(path: Path) -> list[str]:
    """Those of a file that may be gone, such as a process that has ended."""
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
