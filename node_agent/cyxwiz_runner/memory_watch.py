"""Ends the worst offender when memory runs out."""

from __future__ import annotations

import asyncio
import logging

from .jobs import Jobs
from .memory import read_bounds
from .memory_policy import Bound, look_again_after, worst_offender

_log = logging.getLogger(__name__)


async def watch_memory(jobs: Jobs, lent_bytes: int | None) -> None:
    """For ever. `lent_bytes` is what this node lends to jobs; None where only container and machine bound them."""
    while True:
        bounds = read_bounds()
        if lent_bytes is not None or any(bound.is_near for bound in bounds):
            uses = jobs.memory()
            if lent_bytes is not None:
                bounds.append(Bound("what the node lends", sum(use.used_bytes for use in uses), lent_bytes))
            offender = worst_offender(bounds, uses)
            if offender is not None:
                reached = next(bound for bound in bounds if bound.is_reached)
                _log.warning(
                    "memory runs out of=%r used=%d limit=%d ending=%s",
                    *(reached.what, reached.used_bytes, reached.limit_bytes, offender),
                )
                jobs.end_for_memory(offender)
        await asyncio.sleep(look_again_after(bounds))
