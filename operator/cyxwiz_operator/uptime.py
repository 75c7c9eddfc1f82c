"""How much of the past week a node was online, remembered in its ComputeNode as the spans before the present one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from cyxwiz_crds.compute_node import Span

from .clock import parse, seconds_since

WEEK_S = 7 * 24 * 3600.0
SPANS_KEPT = 16


def online_s(since: str | None, earlier: Sequence[Span], wall: datetime) -> float:
    """Seconds online within the last week, 0 to WEEK_S."""
    begin = wall - timedelta(seconds=WEEK_S)
    total_s = max(0.0, seconds_since(since, wall) or 0.0)
    for span in earlier:
        total_s += max(0.0, (parse(span.until) - max(parse(span.since), begin)).total_seconds())
    return min(total_s, WEEK_S)


def after_a_break(since: str | None, earlier: Sequence[Span], wall: datetime, until: str) -> list[Span]:
    """`earlier` and the span that has just ended; those over a week ago are forgotten, and the oldest beyond 16."""
    begin = wall - timedelta(seconds=WEEK_S)
    ended = [Span(since=since, until=until)] if since else []
    return [span for span in (*earlier, *ended) if parse(span.until) > begin][-SPANS_KEPT:]
