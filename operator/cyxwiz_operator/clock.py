"""Time as an argument: a wall clock for what people read, a boot clock for what must not jump."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


@dataclass(frozen=True)
class Now:
    """One moment by both clocks."""

    wall: datetime
    """UTC. Goes into status; it may jump."""
    boot: float
    """Seconds since boot, suspend included. Only differences mean something."""

    @property
    def timestamp(self) -> str:
        """RFC 3339, whole seconds."""
        return timestamp(self.wall)

    @property
    def micro_time(self) -> str:
        """RFC 3339, microseconds."""
        return self.wall.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def now() -> Now:
    """The present."""
    return Now(datetime.now(UTC), time.clock_gettime(time.CLOCK_BOOTTIME))


def timestamp(moment: datetime) -> str:
    """RFC 3339, UTC, whole seconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def parse(text: str) -> datetime:
    """The moment an RFC 3339 text names. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def seconds_since(text: str | None, moment: datetime) -> float | None:
    """Seconds from `text` to `moment`; None when there is no text."""
    return None if text is None else (moment - parse(text)).total_seconds()


def after(moment: datetime, seconds: float) -> str:
    """The timestamp so many seconds later."""
    return timestamp(moment + timedelta(seconds=seconds))
