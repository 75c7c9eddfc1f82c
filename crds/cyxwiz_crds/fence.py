"""The fence: rules of the TrainingJob schema by which the API server itself refuses stale writers.

Each rule is a CEL transition rule; `self` and `oldSelf` are what stands at its place in the schema, now and before. A
refused write is 422 with the rule's message. What each rule is for is told in docs/design/fence.md, transition by
transition.

CEL traps: a read of a missing field fails the whole write with "no such key", so every read is guarded by `has()`;
a rule with `oldSelf` is skipped when there is no old value. There always is an old status, since it has a default.
Rules stand as deep in the schema as they can: each step from an object to its field costs (see `immutable`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .reasons import ENDED_STATES, FINAL_PHASES


class Rule(NamedTuple):
    """One CEL rule, where it stands, and the sentence a refused writer reads."""

    at: tuple[str, ...]
    message: str
    rule: str


def put_up_fence(schema: dict[str, Any]) -> None:
    """The schema of a TrainingJob refuses stale writers."""
    for rule in FENCE:
        place = schema
        for name in rule.at:
            place = place["properties"][name]
        place.setdefault("x-kubernetes-validations", []).append({"rule": rule.rule, "message": rule.message})


def _one_of(values: frozenset[str]) -> str:
    return "[" + ", ".join(f"'{value}'" for value in sorted(values)) + "]"


_ROOT = ()
_STATUS = ("status",)
_ATTEMPT = ("status", "attempt")
_EXECUTION = ("status", "execution")

_SAME_ASSIGNMENT = (
    "(has(oldSelf.assignment) && oldSelf.assignment.id == self.assignment.id"
    " && oldSelf.assignment.node == self.assignment.node)"
)
_ATTEMPT_GREW = "(has(self.attempt) && (!has(oldSelf.attempt) || self.attempt > oldSelf.attempt))"
_OF_ANOTHER_ASSIGNMENT = "self.assignmentID != oldSelf.assignmentID"
_NO_ATTEMPT_LOST = "attempt never decreases"

FENCE: tuple[Rule, ...] = (
    Rule(_ROOT, "status cannot be removed", "!has(oldSelf.status) || has(self.status)"),
    Rule(_ATTEMPT, _NO_ATTEMPT_LOST, "self >= oldSelf"),
    Rule(_STATUS, _NO_ATTEMPT_LOST, "!has(oldSelf.attempt) || has(self.attempt)"),
    Rule(
        _STATUS,
        "a new assignment needs a larger attempt",
        f"!has(self.assignment) || {_SAME_ASSIGNMENT} || {_ATTEMPT_GREW}",
    ),
    Rule(_STATUS, "execution needs an assignment", "!has(self.execution) || has(self.assignment)"),
    Rule(
        _STATUS,
        "this report is not from the current assignment",
        "!has(self.execution) || !has(self.assignment) || self.execution.assignmentID == self.assignment.id",
    ),
    Rule(
        _EXECUTION,
        "this report is older than the one recorded",
        f"{_OF_ANOTHER_ASSIGNMENT} || self.sequence >= oldSelf.sequence",
    ),
    Rule(
        _EXECUTION,
        "the execution has ended",
        f"{_OF_ANOTHER_ASSIGNMENT} || !(oldSelf.state in {_one_of(ENDED_STATES)}) || self.state == oldSelf.state",
    ),
    Rule(
        _STATUS,
        "a final phase is final",
        f"!has(oldSelf.phase) || !(oldSelf.phase in {_one_of(FINAL_PHASES)})"
        " || (has(self.phase) && self.phase == oldSelf.phase"
        " && has(self.attempt) == has(oldSelf.attempt)"
        " && (!has(self.attempt) || self.attempt == oldSelf.attempt)"
        " && has(self.assignment) == has(oldSelf.assignment))",
    ),
    Rule(
        _ROOT,
        "a cancelled job is not bound again",
        "!has(self.spec.cancel) || !self.spec.cancel || !has(self.status) || !has(self.status.assignment)"
        " || (has(oldSelf.status) && has(oldSelf.status.assignment)"
        " && oldSelf.status.assignment.id == self.status.assignment.id"
        " && oldSelf.status.assignment.node == self.status.assignment.node)",
    ),
)
