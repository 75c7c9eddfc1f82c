"""How often and how long a store that does not answer is asked again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from .source import Unreachable

T = TypeVar("T")

TRIES = 5
"""In a row without a byte more."""
FIRST_PAUSE_S = 0.25


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """What `ask` says, asked again while nobody answers. Raises Unreachable when nobody has."""
    tries = 0
    while True:
        try:
            return await ask()
        except Unreachable:
            tries += 1
            if tries >= TRIES:
                raise
            await asyncio.sleep(FIRST_PAUSE_S * 2**tries)
