"""The life of an attempt, row by row, and every order that is lost, doubled or out of place."""

from dataclasses import replace
from typing import get_args

import pytest

from cyxwiz_protocol.runner_api import JobState, RunRequest
from cyxwiz_runner.attempts import (
    FROZEN_AT_MOST_S,
    STOPPED_WITHIN_S,
    TRANSITIONS,
    Attempt,
    Seen,
    advance,
    look_again_after,
    refusal,
    renewed,
    stopped,
)

NOW = 1000.0


def make_request(attempt=1, job_uid="a", deadline=NOW + 25):
    return RunRequest(
        assignment_id=f"{job_uid}-{attempt}",
        job_uid=job_uid,
        attempt=attempt,
        key=f"default/{job_uid}",
        memory_bytes=1,
        deadline=deadline,
    )


def make_attempt(state: JobState = "Running", deadline=NOW + 25, **facts):
    return Attempt(make_request(), deadline, state=state, **facts)


ORDERED = {"cause": "Stopped", "kill_at": NOW + 10}
LATE = {"deadline": NOW}
NO_MEMORY = {"cause": "OutOfHostMemory", "kill_at": NOW}
NO_SHARE = {"cause": "SharingLost", "kill_at": NOW}

STORES = Seen(exited=True, tree_gone=True, to_store=True)

TABLE = [
    # before                                      seen                                 after     cause          killing
    (make_attempt("Waiting"), Seen(lower_gone=False), "Waiting", None, False),
    (make_attempt("Waiting"), Seen(), "Starting", None, False),
    (make_attempt("Waiting", **ORDERED), Seen(), "Reaped", "Stopped", False),
    (make_attempt("Waiting", **LATE), Seen(), "Reaped", "Fenced", False),
    (make_attempt("Starting"), Seen(), "Starting", None, False),
    (make_attempt("Starting"), Seen(started=True), "Running", None, False),
    (make_attempt("Starting"), Seen(start_failed=True), "Ending", "StartFailed", True),
    (make_attempt("Starting"), Seen(exited=True), "Starting", None, False),  # the next trainer may answer
    (make_attempt("Starting", **ORDERED), Seen(started=True), "Ending", "Stopped", True),
    (make_attempt("Starting", **LATE), Seen(started=True), "Ending", "Fenced", True),
    (make_attempt("Starting"), Seen(started=True, exited=True), "Ending", "Exited", True),
    (make_attempt("Running"), Seen(), "Running", None, False),
    (make_attempt("Running"), Seen(exited=True), "Ending", "Exited", True),
    (make_attempt("Running"), Seen(exited=True, tree_gone=True), "Reaped", "Exited", True),
    (make_attempt("Running", **ORDERED), Seen(), "Ending", "Stopped", False),
    (make_attempt("Running", **LATE), Seen(), "Frozen", None, False),
    (make_attempt("Starting", **NO_MEMORY), Seen(started=True), "Ending", "OutOfHostMemory", True),
    (make_attempt("Running", **NO_MEMORY), Seen(), "Ending", "OutOfHostMemory", True),
    (make_attempt("Running", **NO_MEMORY), Seen(exited=True), "Ending", "OutOfHostMemory", True),
    (make_attempt("Frozen", **NO_MEMORY), Seen(all_stopped=True), "Ending", "OutOfHostMemory", True),
    (make_attempt("Running", **NO_SHARE), Seen(), "Ending", "SharingLost", True),
    (make_attempt("Ending", **NO_SHARE), Seen(exited=True, tree_gone=True), "Reaped", "SharingLost", False),
    (make_attempt("Running", **LATE), Seen(exited=True), "Ending", "Exited", True),
    (make_attempt("Running", **ORDERED, **LATE), Seen(), "Ending", "Stopped", True),
    (make_attempt("Frozen", **LATE, frozen_at=NOW), Seen(), "Frozen", None, False),
    (make_attempt("Frozen", **LATE, frozen_at=NOW - STOPPED_WITHIN_S), Seen(), "Ending", "Fenced", True),
    (make_attempt("Frozen", **LATE, frozen_at=NOW - STOPPED_WITHIN_S), Seen(all_stopped=True), "Frozen", None, False),
    (
        make_attempt("Frozen", **LATE, frozen_at=NOW - FROZEN_AT_MOST_S),
        Seen(all_stopped=True),
        "Ending",
        "Fenced",
        True,
    ),
    (make_attempt("Frozen", **LATE, frozen_at=NOW - 5, **ORDERED), Seen(all_stopped=True), "Ending", "Stopped", True),
    (make_attempt("Frozen", frozen_at=NOW - 5), Seen(all_stopped=True), "Running", None, False),
    (make_attempt("Frozen", **LATE, frozen_at=NOW - 5), Seen(exited=True), "Ending", "Exited", True),
    (make_attempt("Ending", **ORDERED), Seen(), "Ending", "Stopped", False),
    (make_attempt("Ending", cause="Stopped", kill_at=NOW), Seen(), "Ending", "Stopped", True),
    (make_attempt("Ending", **ORDERED), Seen(exited=True), "Ending", "Stopped", True),
    (make_attempt("Ending", **ORDERED, **LATE), Seen(), "Ending", "Stopped", True),
    (make_attempt("Ending", cause="Fenced", killing=True), Seen(exited=True), "Ending", "Fenced", True),
    (make_attempt("Ending", cause="Fenced", killing=True), Seen(exited=True, tree_gone=True), "Reaped", "Fenced", True),
    (make_attempt("Reaped", cause="Exited"), Seen(), "Reaped", "Exited", False),
    # A model that is to be put elsewhere: after the last process, within deadline and grace.
    (make_attempt("Running"), STORES, "Storing", "Exited", False),
    (make_attempt("Ending", **ORDERED), STORES, "Storing", "Stopped", False),
    (make_attempt("Ending", cause="Exited", **LATE), STORES, "Reaped", "Exited", False),
    (make_attempt("Ending", cause="Exited"), replace(STORES, tree_gone=False), "Ending", "Exited", True),
    (make_attempt("Storing", cause="Exited"), STORES, "Storing", "Exited", False),
    (make_attempt("Storing", cause="Exited"), replace(STORES, stored=True), "Reaped", "Exited", False),
    (make_attempt("Storing", **ORDERED), STORES, "Storing", "Stopped", False),
    (make_attempt("Storing", cause="Exited", kill_at=NOW), STORES, "Reaped", "Exited", False),
    (make_attempt("Storing", cause="Exited", **LATE), STORES, "Reaped", "Exited", False),
]


@pytest.mark.parametrize(("before", "seen", "state", "cause", "killing"), TABLE)
def test_an_attempt_becomes_what_the_table_says(before, seen, state, cause, killing):
    after = advance(before, seen, NOW)
    assert (after.state, after.cause, after.killing) == (state, cause, killing)


@pytest.mark.parametrize("number", range(len(TRANSITIONS)))
def test_every_transition_is_taken_by_a_row_of_the_table(number):
    assert any(number in transitions_of(before, seen) for before, seen, *_ in TABLE)


def transitions_of(attempt, seen):
    """Which transitions an attempt goes through, one after the other."""
    taken = []
    while True:
        fits = [
            (number, change)
            for number, (state, when, change) in enumerate(TRANSITIONS)
            if attempt.state == state and when(attempt, seen, NOW)
        ]
        if not fits:
            return taken
        number, change = fits[0]
        taken.append(number)
        attempt = change(attempt, NOW)


@pytest.mark.parametrize(("before", "seen"), [row[:2] for row in TABLE])
def test_looking_twice_changes_nothing(before, seen):
    once = advance(before, seen, NOW)
    assert advance(once, seen, NOW) == once


@pytest.mark.parametrize("state", get_args(JobState))
def test_a_stop_heard_twice_is_a_stop_heard_once(state):
    once = stopped(make_attempt(state), 10, NOW)
    assert stopped(once, 10, NOW) == once
    assert stopped(once, 10, NOW + 5) == once


def test_only_a_shorter_grace_changes_a_stop():
    attempt = stopped(make_attempt(), 10, NOW)
    assert stopped(attempt, 30, NOW).kill_at == NOW + 10
    assert stopped(attempt, 1, NOW).kill_at == NOW + 1
    assert stopped(attempt, -5, NOW).kill_at == NOW


def test_a_stop_does_not_rewrite_why_an_attempt_ends():
    assert stopped(make_attempt("Ending", cause="Fenced", killing=True), 10, NOW).cause == "Fenced"
    ended = make_attempt("Reaped", cause="Exited")
    assert stopped(ended, 10, NOW) == ended


def test_a_stop_that_overtakes_the_start_is_not_lost():
    attempt = stopped(make_attempt("Waiting"), 10, NOW)
    assert advance(attempt, Seen(lower_gone=False), NOW).state == "Reaped"


def test_renewals_that_arrive_late_or_twice_never_shorten_a_deadline():
    attempt = renewed(make_attempt(deadline=NOW + 25), NOW + 35)
    assert renewed(attempt, NOW + 35) == attempt
    assert renewed(attempt, NOW + 30) == attempt


def test_a_lost_renewal_freezes_and_a_late_one_thaws():
    attempt = advance(make_attempt(deadline=NOW), Seen(), NOW)
    assert attempt.state == "Frozen"
    attempt = advance(renewed(attempt, NOW + 26), Seen(all_stopped=True), NOW + 1)
    assert (attempt.state, attempt.frozen_at) == ("Running", None)


def test_a_second_freeze_counts_its_own_time():
    attempt = make_attempt("Frozen", deadline=NOW + 1, frozen_at=NOW - FROZEN_AT_MOST_S + 1)
    attempt = advance(attempt, Seen(all_stopped=True), NOW)
    assert advance(attempt, Seen(), NOW + 1).frozen_at == NOW + 1


def test_a_known_attempt_refuses_lower_ones_even_after_its_end():
    known = [Attempt(make_request(attempt=2), NOW + 25, state="Reaped", cause="Exited")]
    refused = refusal(make_request(attempt=1), known, NOW)
    assert refused is not None
    assert refused.reason == "LowerAttempt"
    assert refusal(make_request(attempt=3), known, NOW) is None
    assert refusal(make_request(attempt=1, job_uid="b"), known, NOW) is None


def test_a_start_whose_deadline_has_passed_is_refused():
    refused = refusal(make_request(deadline=NOW - 2), [], NOW)
    assert refused is not None
    assert (refused.reason, refused.message) == ("DeadlinePassed", "its deadline passed 2.0 s ago")


def test_the_next_look_is_at_the_next_moment_and_never_more_than_a_second_away():
    attempt = make_attempt(deadline=NOW + 25)
    assert look_again_after(attempt, NOW) == 1.0
    assert look_again_after(replace(attempt, kill_at=NOW + 0.25), NOW) == 0.25
    assert look_again_after(attempt, NOW + 24.5) == 0.5
    assert look_again_after(attempt, NOW + 26) == 1.0
