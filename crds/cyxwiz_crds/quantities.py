"""Sizes as people write them: `512Mi`, `8Gi`, `4GB`. One function reads them, one writes them."""

from __future__ import annotations

import re

_UNITS = {
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}

SIZE_PATTERN = r"^([1-9][0-9]{0,7}([.][0-9]{1,3})?[MG]i?|[1-9][0-9]?([.][0-9]{1,3})?Ti?)B?$"
"""What the API server accepts: from 1M to 99Ti, a trailing B allowed ("4GB" is read as 4G)."""

_SIZE = re.compile(r"^(?P<number>[0-9]+(\.[0-9]+)?)(?P<unit>[MGT]i?)B?$")


def size_bytes(text: str) -> int:
    """Bytes of a size such as `8Gi`. Raises ValueError with the forms that are accepted."""
    match = _SIZE.match(text)
    if match is None:
        raise ValueError(f"{text!r} is no size: write a number with M, G, T, Mi, Gi or Ti, such as 512Mi or 8Gi")
    return int(float(match["number"]) * _UNITS[match["unit"]])


def size_text(size: int) -> str:
    """The shortest honest form with at most one decimal: 43.1Gi, 512Mi."""
    for unit in ("Ti", "Gi", "Mi"):
        if size >= _UNITS[unit]:
            return f"{size / _UNITS[unit]:.1f}".removesuffix(".0") + unit
    return f"{size}B"
