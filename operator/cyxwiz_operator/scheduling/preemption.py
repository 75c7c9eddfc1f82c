"""Who must leave for a job of higher priority: the jobs of one node whose leaving loses least work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from cyxwiz_operator.clock import Now
from cyxwiz_operator.node_table import NodeTable
from cyxwiz_operator.views import Demand

from .room import Room
from .tenants import Tenant

RESTART_COST_S = 10.0
"""Device seconds that any preemption costs, so that of two ways the one with fewer victims wins."""


class Victims(NamedTuple):
    """The jobs of one node that are to leave."""

    row: int
    tenants: tuple[Tenant, ...]


def choose_victims(
    job: Demand,
    priority: int,
    nodes: NodeTable,
    rows: Sequence[int],
    tenants: Mapping[int, list[Tenant]],
    min_runtime_s: float,
    now: Now,
) -> Victims | None:
    """On the node of `rows` where it costs least work, as few as make room; None where it takes more than may leave.

    May leave: jobs of lower priority that have been training for `min_runtime_s`.
    """
    best: tuple[tuple[float, int, str], Victims] | None = None
    for row in rows:
        here = tenants.get(row, ())
        may_leave = [
            each
            for each in here
            if each.may_be_told and each.priority < priority and each.runs_for_s(now) >= min_runtime_s
        ]
        if not may_leave:
            continue
        chosen = _fewest(job, nodes, row, may_leave, [each for each in here if each.ordered])
        if chosen:
            rank = (sum(map(_cost, chosen)), max(each.priority for each in chosen), nodes.names[row])
            if best is None or rank < best[0]:
                best = (rank, Victims(row, chosen))
    return best[1] if best else None


def _fewest(
    job: Demand, nodes: NodeTable, row: int, may_leave: list[Tenant], leaving: Iterable[Tenant]
) -> tuple[Tenant, ...]:
    """Cheapest first until the job fits; then whoever is not needed stays, the dearest first. Empty: never enough."""
    room = Room.of(nodes, row)
    for tenant in leaving:
        room.give_back(tenant.demand, tenant.devices)
    chosen: list[Tenant] = []
    for tenant in sorted(may_leave, key=lambda each: (_cost(each), each.priority, each.job.key)):
        if room.fits(job):
            break
        room.give_back(tenant.demand, tenant.devices)
        chosen.append(tenant)
    if not room.fits(job):
        return ()
    for tenant in sorted(chosen, key=_cost, reverse=True):
        room.take(tenant.demand, tenant.devices)
        if room.fits(job):
            chosen.remove(tenant)
        else:
            room.give_back(tenant.demand, tenant.devices)
    return tuple(chosen)


def _cost(tenant: Tenant) -> float:
    return tenant.lost_work() + RESTART_COST_S * max(tenant.demand.gpus, 1)
