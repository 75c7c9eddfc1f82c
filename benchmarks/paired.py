"""What alternated measurements say: the mean of their ratios, and a bound on it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

# Of Student's t, one-sided 95 %, by degrees of freedom.
T_95 = {
    1: 6.314, 2: 2.920, 3: 2.353, 4: 2.132, 5: 2.015, 6: 1.943, 7: 1.895, 8: 1.860, 9: 1.833, 10: 1.812, 11: 1.796,
    12: 1.782, 13: 1.771, 14: 1.761, 15: 1.753,
}  # fmt: skip  # a table


def bound_95(values: Sequence[float]) -> float | None:
    """What the mean of what `values` were drawn from is above, with 95 % confidence; None of fewer than two values."""
    if len(values) - 1 not in T_95:
        return None
    return statistics.mean(values) - T_95[len(values) - 1] * statistics.stdev(values) / len(values) ** 0.5
