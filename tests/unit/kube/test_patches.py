"""Merge patches: what is sent turns what is into what shall be, exactly."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cyxwiz_kube import merge_diff

# Kubernetes objects hold no nulls: null in a merge patch means "delete".
VALUES = st.recursive(
    st.integers() | st.text(max_size=3) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(max_size=2), VALUES, max_size=4)


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386, section 2, as written there."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


@given(OBJECTS, OBJECTS)
def test_the_patch_turns_one_object_into_the_other(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert merged(before, merge_diff(before, after)) == after


@given(OBJECTS)
def test_nothing_is_sent_when_nothing_changed(value: dict[str, Any]) -> None:
    assert merge_diff(value, value) == {}


def test_what_is_gone_is_nulled_and_what_stayed_is_left_out() -> None:
    before = {"a": 1, "b": {"c": 1, "d": 2}, "e": [1, 2]}
    assert merge_diff(before, {"b": {"c": 1, "d": 3}, "e": [2]}) == {"a": None, "b": {"d": 3}, "e": [2]}
