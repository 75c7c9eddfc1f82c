"""RFC 7386 merge patches from what is to what shall be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast


def merge_diff(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The merge patch that turns `before` into `after`: only what differs, null for what is gone, lists whole.

    A field that is simply left out of a merge patch keeps its old value; that is how stale numbers survive.
    """
    patch: dict[str, Any] = dict.fromkeys(before.keys() - after.keys())
    for key, value in after.items():
        old = before.get(key)
        if old == value:
            continue
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            patch[key] = merge_diff(cast("Mapping[str, Any]", old), cast("Mapping[str, Any]", value))
        else:
            patch[key] = value
    return patch
