"""The fence: rules of the TrainingJob schema by which the API server itself refuses stale writers.

Each rule is a CEL transition rule; `self` and `oldSelf` are what stands at its place in the schema, now and before. A
refused write is 422 with the rule's message. What each rule is for is told in docs/design/fence.md, transition by
transition.

CEL traps: a read of a missing field fails the whole write with "no such key", so every read is guarded by `has()`,
but of what has a default and so is always there: the status, its phase, spec.cancel. For the same reason a status that
is removed is a new job's, which the rules refuse as any other that forgets. A rule with `oldSelf` is skipped when there
is no old value.

Rules are evaluated on every write of an object, and each step from an object to its field copies the table of all its
fields (`Structural.Properties` of apiextensions 1.36). So rules are few, stand as deep in the schema as they can, and
ask first what mostly decides. That the specification stays is therefore no rule here but a policy of the chart, which
writes of a status are spared: as a rule for each field it was a quarter of what they cost the API server.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .reasons import ENDED_STATES, FINAL_PHASES


class Rule(NamedTuple):
    """One CEL rule, where it stands, and the sentence a refused writer reads."""

    at: tuple[str, ...]
    message: str
    rule: str
    words: str = ""
    """A CEL expression for the sentence, where one rule refuses for several reasons."""


def put_up_fence(schema: dict[str, Any]) -> None:
    """The schema of a TrainingJob refuses stale writers."""
    for rule in FENCE:
        place = schema
        for name in rule.at:
            place = place["properties"][name]
        words = {"messageExpression": rule.words} if rule.words else {}
        place.setdefault("x-kubernetes-validations", []).append({"rule": rule.rule, "message": rule.message, **words})


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
_NOT_CURRENT = "this report is not from the current assignment"

FENCE: tuple[Rule, ...] = (
    Rule(_ATTEMPT, _NO_ATTEMPT_LOST, "self >= oldSelf"),
    Rule(_STATUS, _NO_ATTEMPT_LOST, "!has(oldSelf.attempt) || has(self.attempt)"),
    Rule(
        _STATUS,
        "a new assignment needs a larger attempt",
        f"!has(self.assignment) || {_SAME_ASSIGNMENT} || {_ATTEMPT_GREW}",
    ),
    Rule(
        _STATUS,
        _NOT_CURRENT,
        "!has(self.execution) || (has(self.assignment) && self.execution.assignmentID == self.assignment.id)",
        words=f"has(self.assignment) ? '{_NOT_CURRENT}' : 'execution needs an assignment'",
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
        f"!(oldSelf.phase in {_one_of(FINAL_PHASES)})"
        " || (self.phase == oldSelf.phase"
        " && has(self.attempt) == has(oldSelf.attempt)"
        " && (!has(self.attempt) || self.attempt == oldSelf.attempt)"
        " && has(self.assignment) == has(oldSelf.assignment))",
    ),
    Rule(
        _ROOT,
        "a cancelled job is not bound again",
        "!self.spec.cancel || !has(self.status.assignment)"
        " || (has(oldSelf.status.assignment)"
        " && oldSelf.status.assignment.id == self.status.assignment.id"
        " && oldSelf.status.assignment.node == self.status.assignment.node)",
    ),
)
