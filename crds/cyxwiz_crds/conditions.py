"""Conditions as Kubernetes means them: upserted by type, transition time kept while the status stays the same."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from .base import Count, Model, Sentence, Timestamp, Word


class Condition(Model):
    """One observed fact, with the time at which it last changed."""

    type: Word
    """What the condition is about, in CamelCase."""
    status: Annotated[str, Field(max_length=8, pattern="^(True|False|Unknown)$")]
    """True, False or Unknown."""
    reason: Annotated[str, Field(max_length=64)] = ""
    """Why, in one CamelCase word, for programs."""
    message: Sentence = ""
    """Why, in a sentence with numbers, for people."""
    last_transition_time: Timestamp | None = None
    """When the status last changed from one value to another."""
    observed_generation: Count | None = None
    """The metadata.generation this was said of."""


Conditions = Annotated[
    list[Condition],
    Field(
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    ),
]
"""A resource's conditions, at most one of each type."""


def upsert(existing: Iterable[Condition], changes: Iterable[Condition], now: str) -> tuple[Condition, ...]:
    """`existing` with each change in the place of its type; a status that stays keeps its transition time."""
    result = {condition.type: condition for condition in existing}
    for change in changes:
        before = result.get(change.type)
        since = before.last_transition_time if before and before.status == change.status else now
        result[change.type] = change.model_copy(update={"last_transition_time": since})
    return tuple(result.values())
