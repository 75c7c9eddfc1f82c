"""What a machine needs to run a kubelet here, and what of it is missing."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from pathlib import Path

PACKAGES = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "nft": "nftables",
    "conntrack": "conntrack",
    "socat": "socat",
    "ip": "iproute2",
    "iptables": "iptables",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "cc": "gcc",
}
CNI_PLUGINS = Path("/usr/lib/cni")
CNI_PACKAGE = "containernetworking-plugins"
CAP_SYS_ADMIN = 21


def packages() -> list[str]:
    """Debian's packages that it needs."""
    return sorted({*PACKAGES.values(), CNI_PACKAGE})


def why_not() -> str | None:
    """Why no kubelet can run here, as a sentence; None when one can."""
    if sys.platform != "linux":
        return "it needs Linux"
    if os.geteuid() != 0 or not _has_capability(CAP_SYS_ADMIN):
        return "it needs root with CAP_SYS_ADMIN: it makes namespaces and mounts"
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    missing = {package for program, package in PACKAGES.items() if shutil.which(program, path=path) is None}
    if not (CNI_PLUGINS / "bridge").exists():
        missing.add(CNI_PACKAGE)
    if missing:
        return f"it needs Debian's packages {' '.join(sorted(missing))}: apt-get install them"
    if not any(Path("/sys/fs/cgroup").iterdir()):
        return "it needs cgroups, and /sys/fs/cgroup is empty"
    return None


def hold_machine() -> int | None:
    """A descriptor of the lock on this machine's cgroups; None when another kubelet of ours has it."""
    descriptor = os.open("/run/cyxwiz-machine.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _has_capability(bit: int) -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> bit & 1)
    return False
