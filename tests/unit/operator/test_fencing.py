"""A lost node's job is let go only while nobody holds the Lease, by a read that is newer than the job."""

from __future__ import annotations

from typing import Any, cast

from cyxwiz_crds.compute_node import Lease
from cyxwiz_operator.cluster import Cluster
from cyxwiz_operator.fencing import Fencing
from cyxwiz_operator.leases import LeaseBook
from cyxwiz_operator.metrics import Metrics
from cyxwiz_operator.views import Liveness

from .builders import NOW, later, make_lease


class OneLease:
    """A cluster that holds a single Lease."""

    def __init__(self, lease: Lease | None) -> None:
        self.lease = lease

    async def read_lease(self, name: str) -> Lease | None:
        return self.lease


def book_of(*seen: Lease) -> LeaseBook:
    book = LeaseBook(NOW)
    for lease in seen:
        book.observe(lease, NOW)
    return book


def fencing(lease: Lease | None, book: LeaseBook) -> Fencing:
    return Fencing(cast("Cluster", cast("Any", OneLease(lease))), book, Metrics())


def released(version: int) -> Lease:
    return make_lease(version=version).model_copy(update={"holder": None})


async def test_a_node_whose_lease_is_free_loses_its_job() -> None:
    book = book_of(released(2))
    assert book.liveness("node-a", later(41)) is Liveness.FENCED
    assert await fencing(released(2), book).may_let_go("node-a", later(41))


async def test_a_node_that_came_back_unseen_keeps_its_job() -> None:
    book = book_of(released(2))
    assert not await fencing(make_lease(version=3), book).may_let_go("node-a", later(41))
    assert book.liveness("node-a", later(41)) is not Liveness.FENCED


async def test_the_job_of_a_deleted_lease_may_go() -> None:
    assert await fencing(None, book_of(released(2))).may_let_go("node-a", later(41))


async def test_a_live_nodes_job_is_let_go_without_asking() -> None:
    book = book_of(make_lease(version=1))
    assert await fencing(make_lease(version=1), book).may_let_go("node-a", later(1))
