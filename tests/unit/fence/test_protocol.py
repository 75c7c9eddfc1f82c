"""The lease protocol, explored: never two trainers of a job at once, and every rule is needed for that."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from tests.unit.fence.model import D, Rules, trace_to_overlap

SWITCHES = [field.name for field in fields(Rules) if isinstance(field.default, bool)]


def test_no_two_trainers_of_a_job_ever_compute_at_once() -> None:
    assert trace_to_overlap(Rules()) is None


@pytest.mark.parametrize("rule", SWITCHES)
def test_without_any_one_rule_two_trainers_compute(rule: str) -> None:
    trace = trace_to_overlap(replace(Rules(), **{rule: False}))
    assert trace is not None
    print("\n".join(trace))


def test_without_enough_silence_before_a_node_is_given_up_two_trainers_compute() -> None:
    assert trace_to_overlap(replace(Rules(), silence_before_loss=D - 1)) is not None
