"""The clock of the fence: seconds since boot, suspend included, the same for every process of the machine."""

from __future__ import annotations

import time


def boottime() -> float:
    """Seconds since boot by CLOCK_BOOTTIME. A wall clock may jump; this one cannot be set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
