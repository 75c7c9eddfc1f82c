"""What the operator has written and the watch has not shown back yet.

The watch lags our own writes by one event; without this book a job is bound twice. Every write carries the resource
version it was decided on, so the object's next version in the watch is that write (or, after a conflict, whatever came
before it): an entry ends when the watch shows any other version, with an attempt that is not older.

It starts empty: the first list is consistent, so at the start everything written has been seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .views import JobView


@dataclass(frozen=True)
class _Entry:
    decided_on: str
    """Resource version of the view the write was decided on."""
    view: JobView
    """What is taken for true meanwhile."""
    until: float | None
    """Boot time at which the job is looked at again in any case; None waits for the watch alone."""


class Ledger:
    """At most one entry per job. A job with an entry is counted as its entry says, and not written."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def assume(self, before: JobView, after: JobView) -> None:
        """`after` has been written over `before`."""
        self._entries[before.uid] = _Entry(_version(before), after, until=None)

    def set_aside(self, job: JobView, until: float) -> None:
        """A write was refused: wait for a newer version of the job, but no longer than `until` (boot time)."""
        self._entries[job.uid] = _Entry(_version(job), job, until)

    def settle(self, seen: Mapping[str, JobView], boot: float) -> None:
        """Entries that `seen` (by uid) has caught up with, whose job is gone or whose time is up are forgotten."""
        for uid, entry in list(self._entries.items()):
            job = seen.get(uid)
            if job is None or _shows(job, entry) or (entry.until is not None and boot >= entry.until):
                del self._entries[uid]

    def view_of(self, job: JobView) -> JobView:
        """What is taken for true of the job."""
        entry = self._entries.get(job.uid)
        return job if entry is None else entry.view

    def holds(self, job: JobView) -> bool:
        """True while the job must not be written."""
        return job.uid in self._entries

    def awaits(self, job: JobView) -> bool:
        """True while a write of ours has not been seen back."""
        entry = self._entries.get(job.uid)
        return entry is not None and entry.until is None

    def __len__(self) -> int:
        return len(self._entries)


def _shows(job: JobView, entry: _Entry) -> bool:
    return _version(job) != entry.decided_on and job.attempt >= entry.view.attempt


def _version(job: JobView) -> str:
    return job.job.metadata.resource_version
