"""Places kept for jobs that wait: what others may still have of such a node.

A job that needs more than is free keeps the node on which it can start first, by the ETAs of the jobs that run there
(EASY backfill: Lifka, JSSPP 1995). A later job may pass it on that node only if it has ended by then, or if what it
takes is left over even then. Where an ETA is unknown only the latter counts.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cyxwiz_operator.node_table import NodeTable
from cyxwiz_operator.views import Demand

from .room import Room
from .tenants import UNKNOWN_S, Tenant


@dataclass
class Hold:
    """One node, kept for one job."""

    row: int
    key: str
    """The job, as namespace/name."""
    starts_in_s: float
    """UNKNOWN_S when some job in its way does not say when it ends."""
    measured: bool
    """The time rests on what jobs report, not on deadlines."""
    left_over: Room
    """What is free beside the job once it has started."""
    leaving: int = 0
    """Jobs that were told to leave."""

    def lets_pass(self, job: Demand, longest_run_s: float, free: Sequence[int]) -> bool:
        """The job, which fits now on some of the devices in `free`, would not delay the one this is kept for."""
        if self.outlasts(longest_run_s):
            return True
        return self.left_over.fits(job) and len(self.spare(job, free)) >= job.gpus

    def spare(self, job: Demand, free: Sequence[int]) -> list[int]:
        """Those of `free` that are left over even then: what is free now may be what the place is made of."""
        left = set(self.left_over.devices_for(job)) if job.gpus else ()
        return [device for device in free if device in left]

    def outlasts(self, longest_run_s: float) -> bool:
        """A job that takes this long at most is gone before the place is needed."""
        return self.starts_in_s < UNKNOWN_S and longest_run_s <= self.starts_in_s


def hold_when_they_left(key: str, job: Demand, nodes: NodeTable, row: int, leaving: Iterable[Tenant]) -> Hold | None:
    """The node once all of `leaving` have gone; None when that is not enough."""
    room = Room.of(nodes, row)
    starts_in_s = 0.0
    for tenant in leaving:
        room.give_back(tenant.demand, tenant.devices)
        starts_in_s = max(starts_in_s, tenant.leaves_in_s)
    if not room.fits(job):
        return None
    room.take(job, room.devices_for(job)[: job.gpus])
    return Hold(row, key, starts_in_s, measured=True, left_over=room)


def earliest_hold(
    key: str, job: Demand, nodes: NodeTable, rows: Sequence[int], tenants: Mapping[int, list[Tenant]]
) -> Hold | None:
    """The node of `rows` on which the job can start first; None when none would ever have room.

    Where no ETA leads to a place, the first node that would be large enough were it empty is drained for it.
    """
    rooms: dict[int, Room] = {}
    ends = [(each.leaves_in_s, number, each) for row in rows for number, each in enumerate(tenants.get(row, ()))]
    ends.sort(key=lambda end: (end[0], nodes.names[end[2].row], end[1]))
    measured: dict[int, bool] = {}
    for leaves_in_s, _, tenant in ends:
        row = tenant.row
        room = rooms[row] = rooms.get(row) or Room.of(nodes, row)
        room.give_back(tenant.demand, tenant.devices)
        measured[row] = measured.get(row, True) and tenant.measured
        if room.fits(job):
            room.take(job, room.devices_for(job)[: job.gpus])
            return Hold(row, key, leaves_in_s, measured[row], room)
    return None


@dataclass(frozen=True)
class Estimate:
    """When a waiting job is expected to start."""

    in_s: float
    confidence: str


@dataclass(frozen=True)
class Candidate:
    """A waiting job without a hold, for `estimates`."""

    uid: str
    demand: Demand
    longest_run_s: float
    rows: frozenset[int]
    """Nodes that are merely full."""


HIGH, MEDIUM, LOW = "High", "Medium", "Low"


def estimate_of(hold: Hold) -> Estimate | None:
    """For the job that the place is kept for."""
    if hold.starts_in_s == UNKNOWN_S:
        return None
    return Estimate(hold.starts_in_s, HIGH if hold.measured else LOW)


def estimates(
    waiting: Sequence[Candidate], nodes: NodeTable, tenants: Mapping[int, list[Tenant]], holds: Mapping[int, Hold]
) -> dict[str, Estimate]:
    """uid to estimate: a look ahead in which jobs leave by their ETAs and each place goes to the first that fits.

    Medium: it rests on reports of running jobs alone. Low: on a deadline somewhere. A job that it never reaches has
    none: some job before it does not say when it ends.
    """
    found: dict[str, Estimate] = {}
    rooms: dict[int, Room] = {}
    sure: dict[int, bool] = {}
    left = list(waiting)
    order = 0
    ends: list[tuple[float, int, int, Demand, tuple[int, ...], bool]] = []
    for row in {row for each in waiting for row in each.rows}:
        for tenant in tenants.get(row, ()):
            if tenant.leaves_in_s < UNKNOWN_S:
                order += 1
                ends.append((tenant.leaves_in_s, order, row, tenant.demand, tenant.devices, tenant.measured))
    heapq.heapify(ends)
    while ends and left:
        at_s, _, row, demand, devices, measured = heapq.heappop(ends)
        hold = holds.get(row)
        if row not in rooms:
            rooms[row] = Room.of(nodes, row)
        room = rooms[row]
        room.give_back(demand, devices)
        sure[row] = sure.get(row, True) and measured
        if hold is not None:
            if at_s < hold.starts_in_s:
                continue  # others may not have it before the job it is kept for
            rooms[row], holds = hold.left_over.copy(), {key: each for key, each in holds.items() if key != row}
            room = rooms[row]
        failed: set[Demand] = set()
        for each in list(left):
            if row not in each.rows or each.demand in failed:
                continue
            if not room.fits(each.demand):
                failed.add(each.demand)
                continue
            taken = tuple(room.devices_for(each.demand)[: each.demand.gpus])
            room.take(each.demand, taken)
            left.remove(each)
            found[each.uid] = Estimate(at_s, MEDIUM if sure[row] else LOW)
            if each.longest_run_s < UNKNOWN_S:
                order += 1
                heapq.heappush(ends, (at_s + each.longest_run_s, order, row, each.demand, taken, False))
    return found
