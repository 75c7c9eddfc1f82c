"""Which nodes a job is kept away from."""

from __future__ import annotations

import pytest

from cyxwiz_operator.lifecycle import backing_off_nodes

from .builders import START, ago, later, make_job


def refusals(*records: tuple[str, str, float]) -> dict[str, object]:
    """(node, outcome, seconds ago), oldest first."""
    return {
        "history": [
            {"attempt": number, "node": node, "outcome": outcome, "endedAt": ago(seconds)}
            for number, (node, outcome, seconds) in enumerate(records, 1)
        ]
    }


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([], set()),
        ([("node-a", "Rejected", 29)], {"node-a"}),
        ([("node-a", "Rejected", 30)], set()),
        ([("node-a", "Rejected", 100), ("node-a", "Rejected", 59)], {"node-a"}),
        ([("node-a", "Rejected", 100), ("node-a", "Rejected", 60)], set()),
        ([("node-a", "Rejected", 100), ("node-b", "Crashed", 50), ("node-a", "Rejected", 59)], {"node-a"}),
        ([("node-a", "Rejected", 100), ("node-a", "Crashed", 50), ("node-a", "Rejected", 31)], set()),
        ([("node-a", "Rejected", 5), ("node-b", "NeverClaimed", 4)], {"node-a", "node-b"}),
        ([("node-a", "Crashed", 1)], set()),
        ([("node-a", "Suspended", 1)], set()),
    ],
)
def test_a_node_is_left_out_after_it_refused(records: list[tuple[str, str, float]], expected: set[str]) -> None:
    assert backing_off_nodes(make_job(status=refusals(*records)), START) == expected


def test_a_node_is_never_left_out_for_more_than_a_quarter_of_an_hour() -> None:
    job = make_job(status=refusals(*[("node-a", "Rejected", 1)] * 10))
    assert backing_off_nodes(job, later(898).wall) == {"node-a"}
    assert backing_off_nodes(job, later(900).wall) == set()
