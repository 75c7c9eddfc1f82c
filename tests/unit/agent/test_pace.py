"""How the interval between two reports follows what reports take."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyxwiz_agent.pace import LONGEST_S, REMEMBERED, SHORTEST_S, Pace

OLD_S = 3600.0
BUSY = [0.005] * 15 + [0.045] * 5
latencies = st.lists(st.floats(0, 100), max_size=2 * REMEMBERED)
ages = st.floats(0, 1e6)


def after(latencies_s: Iterable[float]) -> Pace:
    pace = Pace()
    for latency_s in latencies_s:
        pace.measured(latency_s)
    return pace


@pytest.mark.parametrize(
    ("latencies_s", "interval_s"),
    [
        ([], 2.0),
        ([0.005] * 20, 2.0),  # an idle server nearby
        ([0.05] * 20, 10.0),  # the same far away: 200 times
        ([0.05] + [0.06] * 5, 18.0),  # far away, and a fifth of it again is waiting: 800 times that beside
        (BUSY, 33.0),  # nearby, but busy
        ([0.005] * 15 + [0.5] * 5, 60.0),
        ([0.005] * 15 + [0.5] * 2, 2.0),  # two of the last five are chance
    ],
)
def test_to_an_old_job_waiting_counts_four_times_as_much_as_distance(
    latencies_s: list[float], interval_s: float
) -> None:
    assert after(latencies_s).interval_s(OLD_S) == pytest.approx(interval_s)


@pytest.mark.parametrize(("age_s", "interval_s"), [(0, 9.0), (45, 9.0), (100, 20.0), (165, 33.0), (OLD_S, 33.0)])
def test_on_a_busy_server_a_job_is_told_of_more_rarely_as_it_grows_old(age_s: float, interval_s: float) -> None:
    assert after(BUSY).interval_s(age_s) == pytest.approx(interval_s)


def test_a_busy_server_that_is_idle_again_is_told_of_again_after_three_reports() -> None:
    busy = [0.005] * 15 + [0.5] * 50
    assert after([*busy, 0.005, 0.005]).interval_s(OLD_S) == LONGEST_S
    assert after([*busy, 0.005, 0.005, 0.005]).interval_s(OLD_S) == SHORTEST_S


def test_a_way_that_has_become_longer_is_distance_after_a_hundred_reports() -> None:
    assert after([0.005] + [0.02] * REMEMBERED).interval_s(OLD_S) == pytest.approx(4.0)


@given(latencies, ages)
def test_it_stays_within_its_bounds(latencies_s: list[float], age_s: float) -> None:
    assert SHORTEST_S <= after(latencies_s).interval_s(age_s) <= LONGEST_S


@given(latencies, st.floats(0, 100), ages, st.floats(0, 1e6))
def test_neither_slower_reports_nor_age_make_it_shorter(
    latencies_s: list[float], slower_by_s: float, age_s: float, older_by_s: float
) -> None:
    before = after(latencies_s).interval_s(age_s)
    assert after(latency_s + slower_by_s for latency_s in latencies_s).interval_s(age_s) >= before - 1e-9
    assert after(latencies_s).interval_s(age_s + older_by_s) >= before
