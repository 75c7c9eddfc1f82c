"""Which nodes are kept, and for whom, while a pass goes through the queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from cyxwiz_operator.clock import Now
from cyxwiz_operator.node_table import NodeTable
from cyxwiz_operator.views import Demand, JobView

from .holding import Hold, earliest_hold, hold_when_they_left
from .preemption import choose_victims
from .tenants import UNKNOWN_S, YIELD_GRACE_S, Tenant

LOOKED_AT = 16
"""So many of the first that wait may keep a place or take one; for the others it is too early."""
_MUCH_SOONER = 0.5
_NEVER = "Never"


@dataclass(frozen=True)
class PreemptionRules:
    """What the administrator allows."""

    enabled: bool = True
    min_runtime_s: float = 60.0


DEFAULT_RULES = PreemptionRules()


@dataclass(frozen=True)
class Eviction:
    """A job that is to leave, and for whom."""

    victim: JobView
    by: JobView


@dataclass
class Reservations:
    """Nodes kept so far in this pass, and who is to leave."""

    tenants: Mapping[int, list[Tenant]]
    rules: PreemptionRules
    now: Now
    by_row: dict[int, Hold] = field(default_factory=dict)
    evictions: list[Eviction] = field(default_factory=list)
    looked_at: int = 0
    _head_holds: bool = False
    _in_vain: set[tuple[Demand, int]] = field(default_factory=set)

    @cached_property
    def _leaving(self) -> dict[int, list[Tenant]]:
        """Row to the jobs there that were told to leave."""
        ordered = {row: [each for each in here if each.ordered] for row, here in self.tenants.items()}
        return {row: leaving for row, leaving in ordered.items() if leaving}

    def forbids(self, row: int, job: Demand, free: Sequence[int], longest_run_s: float) -> bool:
        """The node is kept, and the job would be in the way on whichever of the devices in `free`."""
        hold = self.by_row.get(row)
        return hold is not None and not hold.lets_pass(job, longest_run_s, free)

    def devices(self, row: int, job: Demand, free: Sequence[int], longest_run_s: float) -> Sequence[int]:
        """Those of `free` that the job may have without being in the way, in the same order; they count as taken."""
        hold = self.by_row.get(row)
        if hold is None or hold.outlasts(longest_run_s):
            return free[: job.gpus]
        chosen = hold.spare(job, free)[: job.gpus]
        hold.left_over.take(job, chosen)
        return chosen

    def keep(self, job: JobView, demand: Demand, full: Sequence[int], nodes: NodeTable) -> Hold | None:
        """A node of `full`, which have no room now, is kept for the job; None when it is not its turn, or none helps.

        First one that others are leaving already, then one that jobs of lower priority can be told to leave, and for
        the first of the queue the one where it can start soonest.
        """
        if not full or self.looked_at >= LOOKED_AT:
            return None
        self.looked_at += 1
        rows = [row for row in full if row not in self.by_row]
        hold = self._being_left(job, demand, rows, nodes) or self._preempt(job, demand, rows, nodes)
        if hold is None and not self._head_holds:
            hold = self._soonest(job, demand, rows, nodes)
            self._head_holds = hold is not None
        if hold is not None:
            self.by_row[hold.row] = hold
        return hold

    def _being_left(self, job: JobView, demand: Demand, rows: Sequence[int], nodes: NodeTable) -> Hold | None:
        held = held_node(job)
        for row in sorted(self._leaving.keys() & rows, key=lambda row: (nodes.names[row] != held, row)):
            leaving = self._leaving[row]
            hold = hold_when_they_left(job.key, demand, nodes, row, leaving)
            if hold is not None:
                hold.leaving = len(leaving)
                return hold
        return None

    def _preempt(self, job: JobView, demand: Demand, rows: Sequence[int], nodes: NodeTable) -> Hold | None:
        spec = job.job.spec
        if not self.rules.enabled or spec.preemption_policy == _NEVER or (demand, spec.priority) in self._in_vain:
            return None
        min_runtime_s = self.rules.min_runtime_s
        victims = choose_victims(demand, spec.priority, nodes, rows, self.tenants, min_runtime_s, self.now)
        if victims is None:
            self._in_vain.add((demand, spec.priority))
            return None
        self.evictions += [Eviction(tenant.job, job) for tenant in victims.tenants]
        leaving = [tenant for tenant in self.tenants[victims.row] if tenant.ordered] + list(victims.tenants)
        hold = hold_when_they_left(job.key, demand, nodes, victims.row, leaving)
        if hold is not None:
            hold.leaving, hold.starts_in_s = len(leaving), YIELD_GRACE_S
        return hold

    def _soonest(self, job: JobView, demand: Demand, rows: Sequence[int], nodes: NodeTable) -> Hold | None:
        """Kept where it was, unless another node is free much sooner: else no node would ever be drained."""
        best = earliest_hold(job.key, demand, nodes, rows, self.tenants)
        held = held_node(job)
        same = [row for row in rows if nodes.names[row] == held]
        kept = earliest_hold(job.key, demand, nodes, same, self.tenants) if same else None
        if best is None or kept is None:
            return best
        much_sooner = best.starts_in_s < UNKNOWN_S and best.starts_in_s < kept.starts_in_s * _MUCH_SOONER
        return best if much_sooner else kept


def held_node(job: JobView) -> str | None:
    """The node that the job's status says is kept for it."""
    return job.status.scheduling.holds if job.status.scheduling else None
