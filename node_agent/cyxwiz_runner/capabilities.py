"""What this process may do beyond its user's rights; a container's root usually may do less than root."""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path


class Capability(IntEnum):
    """The bits of capabilities(7) that the runner asks about."""

    CHOWN = 0
    DAC_OVERRIDE = 1
    KILL = 5
    SETGID = 6
    SETUID = 7
    SYS_NICE = 23


def missing(*wanted: Capability) -> list[Capability]:
    """Those of `wanted` that are not in effect."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
            return [capability for capability in wanted if not effective & 1 << capability]
    return list(wanted)
