"""How fast nodes train the same workload on the same kind of GPU: what one node is compared with."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from cyxwiz_crds.compute_node import Outcome

NODES_COMPARED = 3
"""A median over fewer nodes says as little of the fleet as of the node."""

Speeds = Mapping[tuple[str, str], float]
"""(workload, device) to samples per second."""


def speeds_of(outcomes: Sequence[Outcome]) -> Speeds:
    """The node's own median. Jobs that shared their devices do not count: their neighbours slowed them."""
    seen: dict[tuple[str, str], list[float]] = defaultdict(list)
    for outcome in outcomes:
        measured = outcome.measured
        if measured is not None and not measured.shared and (rate := number(measured.samples_per_second)):
            seen[measured.workload, measured.device].append(rate)
    return {key: statistics.median(rates) for key, rates in seen.items()}


def typical_speeds(nodes: Iterable[Speeds]) -> Speeds:
    """The fleet's median over nodes, for what at least NODES_COMPARED of them have trained."""
    seen: dict[tuple[str, str], list[float]] = defaultdict(list)
    for speeds in nodes:
        for key, rate in speeds.items():
            seen[key].append(rate)
    return {key: statistics.median(rates) for key, rates in seen.items() if len(rates) >= NODES_COMPARED}


def number(text: str | None) -> float | None:
    """The number, where it is one above zero: what a job's own code may have written is not trusted further."""
    try:
        value = float(text or 0)
    except ValueError:
        return None
    return value if value > 0 and math.isfinite(value) else None
