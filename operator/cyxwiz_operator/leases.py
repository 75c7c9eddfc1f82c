"""Which nodes are alive, judged by what the operator itself saw their Leases do.

The rules are the operator's side of docs/design/fence.md: a node is lost only E = 40 s after the last change *observed
here*, by a clock that cannot be set, and only once nobody holds its Lease. Wall clocks may keep a node from being used
for a while; they never declare it lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from cyxwiz_crds.compute_node import Lease

from .clock import Now, seconds_since
from .settings import LEASE_EXPIRY_S, MASS_LOSS_CALM_S, MASS_LOSS_NODES, MASS_LOSS_SHARE
from .views import Liveness

# Two renewals missed. Leases of one outage run out over the 10 s between renewals: who waits for the third to expire
# has fenced the first two.
SUSPICIOUS_S = 20.0


@dataclass(frozen=True)
class _Record:
    lease: Lease | None
    """None: it was deleted."""
    changed_at: float
    """Boot time of the last change seen; of the first sight before that."""
    renewed: bool
    """A change was seen, not only a first sight."""

    @property
    def holder(self) -> str | None:
        return self.lease.holder if self.lease else None


class LeaseBook:
    """What was seen of each Lease, and since when nothing."""

    def __init__(self, now: Now) -> None:
        self._records: dict[str, _Record] = {}
        # What a pass asks of thousands of nodes, most of which have just renewed: the answer in one look.
        self._online_until: dict[str, float] = {}
        self._timers_from = now.boot

    def observe(self, lease: Lease, now: Now) -> None:
        """A version of a Lease has arrived."""
        record = self._records.get(lease.name)
        if record is None:
            self._put(lease.name, _Record(lease, now.boot, renewed=False))
        elif record.lease is None or record.lease.resource_version != lease.resource_version:
            # Losing its holder is no sign of life.
            alive = bool(lease.holder)
            changed_at = now.boot if alive else record.changed_at
            self._put(lease.name, _Record(lease, changed_at, renewed=record.renewed or alive))

    def forget(self, name: str) -> None:
        """The Lease has been deleted; whoever held it may compute until its time is up."""
        if name in self._records:
            self._put(name, replace(self._records[name], lease=None))

    def restart_timers(self, now: Now) -> None:
        """The operator itself was blind: nobody's silence until now counts."""
        self._timers_from = now.boot

    def lease_of(self, name: str) -> Lease | None:
        """The Lease as last seen."""
        record = self._records.get(name)
        return record.lease if record else None

    def liveness(self, name: str, now: Now) -> Liveness:
        """What may be believed of the node now."""
        if now.boot < self._online_until.get(name, 0.0):
            return Liveness.ONLINE
        record = self._records.get(name)
        run_out = self.silent_s(name, now) >= LEASE_EXPIRY_S
        if not self._records:
            # Not one Lease where they should be: more likely a wrong --namespace than the loss of every node.
            return Liveness.UNSURE
        if record is None or record.lease is None or not record.lease.holder:
            return Liveness.FENCED if run_out else Liveness.UNSURE
        age_s = seconds_since(record.lease.renew_time, now.wall)
        if age_s is not None and abs(age_s) < LEASE_EXPIRY_S and not run_out:
            return Liveness.ONLINE
        return Liveness.EXPIRED if run_out else Liveness.UNSURE

    def _put(self, name: str, record: _Record) -> None:
        self._records[name] = record
        seen_alive = record.renewed and record.holder
        self._online_until[name] = record.changed_at + LEASE_EXPIRY_S if seen_alive else 0.0

    def silent_s(self, name: str, now: Now) -> float:
        """Seconds without a change that the operator could have seen."""
        record = self._records.get(name)
        last = self._timers_from if record is None else max(record.changed_at, self._timers_from)
        return now.boot - last


class LossGate:
    """Holds back every fencing when so many nodes fall silent together that the API must be at fault."""

    def __init__(self) -> None:
        self._held_at: float | None = None
        self._failed_at = float("-inf")

    def request_failed(self, now: Now) -> None:
        """One of the operator's own requests found no server."""
        self._failed_at = now.boot

    @property
    def is_shut(self) -> bool:
        return self._held_at is not None

    def judge(self, book: LeaseBook, names: Iterable[str], now: Now) -> None:
        """Shut when three nodes and 55 % of those alive before fell silent within one E; open after five calm minutes.

        What has been silent for two E died by itself or was there when the gate was shut.
        """
        silent_s = [book.silent_s(name, now) for name in names if book.liveness(name, now) is not Liveness.FENCED]
        of_late = [each for each in silent_s if each < 2 * LEASE_EXPIRY_S]
        together = sum(each >= SUSPICIOUS_S for each in of_late)
        if together >= MASS_LOSS_NODES and together >= MASS_LOSS_SHARE * len(of_late):
            self._held_at = now.boot if self._held_at is None else self._held_at
        elif self._held_at is not None and now.boot - max(self._held_at, self._failed_at) >= MASS_LOSS_CALM_S:
            self._held_at = None
