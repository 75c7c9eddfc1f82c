"""The fence: rules at the root of the TrainingJob schema by which the API server itself refuses stale writers.

Each rule is a CEL transition rule; `self` and `oldSelf` are the whole object. A refused write is 422 with the
rule's message. What each rule is for is told in docs/design/fence.md, transition by transition.

CEL traps: a read of a missing field fails the whole write with "no such key", so every read is guarded by `has()`;
a rule with `oldSelf` is skipped when there is no old object.
"""

from __future__ import annotations

from typing import NamedTuple

from .reasons import ENDED_STATES, FINAL_PHASES


class Rule(NamedTuple):
    """One CEL rule and the sentence a refused writer reads."""

    message: str
    rule: str


def _one_of(values: frozenset[str]) -> str:
    return "[" + ", ".join(f"'{value}'" for value in sorted(values)) + "]"


_SAME_ASSIGNMENT = (
    "(has(oldSelf.status) && has(oldSelf.status.assignment)"
    " && oldSelf.status.assignment.id == self.status.assignment.id"
    " && oldSelf.status.assignment.node == self.status.assignment.node)"
)
_ATTEMPT_GREW = (
    "(has(self.status.attempt) && (!has(oldSelf.status) || !has(oldSelf.status.attempt)"
    " || self.status.attempt > oldSelf.status.attempt))"
)
_BOTH_EXECUTIONS_OF_ONE_ASSIGNMENT = (
    "has(oldSelf.status) && has(oldSelf.status.execution) && has(self.status) && has(self.status.execution)"
    " && self.status.execution.assignmentID == oldSelf.status.execution.assignmentID"
)
_WAS_FINAL = f"has(oldSelf.status) && has(oldSelf.status.phase) && oldSelf.status.phase in {_one_of(FINAL_PHASES)}"

FENCE: tuple[Rule, ...] = (
    Rule("status cannot be removed", "!has(oldSelf.status) || has(self.status)"),
    Rule(
        "attempt never decreases",
        "!has(oldSelf.status) || !has(oldSelf.status.attempt)"
        " || (has(self.status) && has(self.status.attempt) && self.status.attempt >= oldSelf.status.attempt)",
    ),
    Rule(
        "a new assignment needs a larger attempt",
        f"!has(self.status) || !has(self.status.assignment) || {_SAME_ASSIGNMENT} || {_ATTEMPT_GREW}",
    ),
    Rule(
        "execution needs an assignment",
        "!has(self.status) || !has(self.status.execution) || has(self.status.assignment)",
    ),
    Rule(
        "this report is not from the current assignment",
        "!has(self.status) || !has(self.status.execution) || !has(self.status.assignment)"
        " || self.status.execution.assignmentID == self.status.assignment.id",
    ),
    Rule(
        "this report is older than the one recorded",
        f"!({_BOTH_EXECUTIONS_OF_ONE_ASSIGNMENT})"
        " || self.status.execution.sequence >= oldSelf.status.execution.sequence",
    ),
    Rule(
        "the execution has ended",
        f"!({_BOTH_EXECUTIONS_OF_ONE_ASSIGNMENT})"
        f" || !(oldSelf.status.execution.state in {_one_of(ENDED_STATES)})"
        " || self.status.execution.state == oldSelf.status.execution.state",
    ),
    Rule(
        "a final phase is final",
        f"!({_WAS_FINAL}) || (has(self.status) && has(self.status.phase)"
        " && self.status.phase == oldSelf.status.phase"
        " && has(self.status.attempt) == has(oldSelf.status.attempt)"
        " && (!has(self.status.attempt) || self.status.attempt == oldSelf.status.attempt)"
        " && has(self.status.assignment) == has(oldSelf.status.assignment))",
    ),
    Rule(
        "a cancelled job is not bound again",
        "!has(self.spec.cancel) || !self.spec.cancel || !has(self.status) || !has(self.status.assignment)"
        f" || {_SAME_ASSIGNMENT}",
    ),
)
