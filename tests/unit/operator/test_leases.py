"""When a node may be used, and when it may be given up."""

from __future__ import annotations

from cyxwiz_operator.leases import LeaseBook, LossGate
from cyxwiz_operator.views import Liveness

from .builders import NOW, later, make_lease

LONG_AGO = later(-3600)


def test_a_node_seen_renewed_is_online_whatever_its_clock_says() -> None:
    book = LeaseBook(NOW)
    book.observe(make_lease(version=1, renewed=LONG_AGO), NOW)
    assert book.liveness("node-a", NOW) is Liveness.UNSURE
    book.observe(make_lease(version=2, renewed=LONG_AGO), later(1))
    assert book.liveness("node-a", later(40)) is Liveness.ONLINE


def test_after_a_restart_a_recent_lease_is_believed_and_an_old_one_is_not() -> None:
    book = LeaseBook(NOW)
    book.observe(make_lease("fresh"), NOW)
    book.observe(make_lease("stale", renewed=LONG_AGO), NOW)
    assert book.liveness("fresh", NOW) is Liveness.ONLINE
    assert book.liveness("stale", NOW) is Liveness.UNSURE
    assert book.liveness("stale", later(39)) is Liveness.UNSURE
    assert book.liveness("stale", later(40)) is Liveness.EXPIRED


def test_a_node_expires_forty_seconds_after_the_last_change_we_saw() -> None:
    book = LeaseBook(NOW)
    book.observe(make_lease(version=1), NOW)
    book.observe(make_lease(version=2, renewed=later(10)), later(10))
    assert book.liveness("node-a", later(49.9)) is Liveness.ONLINE
    assert book.liveness("node-a", later(50)) is Liveness.EXPIRED


def test_seeing_the_same_version_again_is_no_sign_of_life() -> None:
    book = LeaseBook(NOW)
    book.observe(make_lease(version=1), NOW)
    book.observe(make_lease(version=1), later(39))
    assert book.liveness("node-a", later(40)) is Liveness.EXPIRED


def test_a_node_without_a_holder_is_fenced_only_once_its_time_is_up() -> None:
    book = LeaseBook(NOW)
    book.observe(make_lease(version=1), NOW)
    book.observe(make_lease(version=2, holder=None), later(5))
    assert book.liveness("node-a", later(39)) is Liveness.UNSURE
    assert book.liveness("node-a", later(40)) is Liveness.FENCED
    book.observe(make_lease(version=3, holder="another", renewed=later(41)), later(41))
    assert book.liveness("node-a", later(41)) is Liveness.ONLINE


def test_a_deleted_lease_frees_its_jobs_only_once_its_time_is_up() -> None:
    book = LeaseBook(NOW)
    book.observe(make_lease(), NOW)
    book.forget("node-a")
    assert book.liveness("node-a", later(39)) is Liveness.UNSURE
    assert book.liveness("node-a", later(40)) is Liveness.FENCED


def test_where_no_lease_at_all_is_found_no_node_is_given_up() -> None:
    assert LeaseBook(NOW).liveness("node-a", later(1000)) is Liveness.UNSURE


def test_a_node_that_never_had_a_lease() -> None:
    book = LeaseBook(NOW)
    book.observe(make_lease("node-b"), NOW)
    assert book.liveness("node-a", later(39)) is Liveness.UNSURE
    assert book.liveness("node-a", later(40)) is Liveness.FENCED


def test_our_own_outage_restarts_all_timers() -> None:
    book = LeaseBook(NOW)
    book.observe(make_lease(), NOW)
    book.restart_timers(later(39))
    assert book.liveness("node-a", later(78)) is Liveness.UNSURE
    assert book.liveness("node-a", later(79)) is Liveness.EXPIRED


def fleet(count: int) -> tuple[LeaseBook, list[str]]:
    names = [f"node-{number}" for number in range(count)]
    book = LeaseBook(NOW)
    for name in names:
        book.observe(make_lease(name), NOW)
    return book, names


def test_the_loss_of_most_nodes_together_is_not_believed_for_five_minutes() -> None:
    book, names = fleet(5)
    gate = LossGate()
    for name in names[:2]:
        book.observe(make_lease(name, version=2), later(35))
    gate.judge(book, names, later(40))
    assert gate.is_shut
    gate.judge(book, names, later(339))
    assert gate.is_shut
    gate.judge(book, names, later(340))
    assert not gate.is_shut


def test_our_own_failures_keep_the_gate_shut() -> None:
    book, names = fleet(3)
    gate = LossGate()
    gate.judge(book, names, later(40))
    gate.request_failed(later(100))
    gate.judge(book, names, later(399))
    assert gate.is_shut
    gate.judge(book, names, later(400))
    assert not gate.is_shut


def test_the_loss_of_two_nodes_or_of_few_among_many_is_believed() -> None:
    for count, alive in ((2, 0), (10, 7)):
        book, names = fleet(count)
        gate = LossGate()
        for name in names[:alive]:
            book.observe(make_lease(name, version=2), later(39))
        gate.judge(book, names, later(40))
        assert not gate.is_shut
