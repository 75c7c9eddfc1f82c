"""The node's Lease on a real API server: epochs, fencing, restarts."""

from __future__ import annotations

import pytest

from cyxwiz_agent.lease import NodeLease
from cyxwiz_agent.settings import LEASE_GRACE_S
from cyxwiz_kube import Conflict, Kube, paths
from cyxwiz_protocol.clock import boottime


async def works() -> bool:
    return False


def make_lease(kube: Kube, namespace: str, instance: str = "agent-1") -> NodeLease:
    return NodeLease(kube, namespace, "n1", instance, lambda: None, cannot_work=works)


async def fence(kube: Kube, namespace: str) -> None:
    """As the operator does it: the holder cleared by compare-and-swap."""
    current = await kube.get(paths.lease(namespace, "n1"))
    await kube.replace(paths.lease(namespace, "n1"), {**current, "spec": {**current["spec"], "holderIdentity": ""}})


async def test_a_lease_is_acquired_and_lets_jobs_compute_until_25_s_after_it_was_sent(
    admin: Kube, namespace: str
) -> None:
    lease = make_lease(admin, namespace)
    assert not lease.valid
    before = boottime()
    await lease.step()
    assert lease.valid
    assert lease.epoch == 1
    assert before + LEASE_GRACE_S <= lease.deadline <= boottime() + LEASE_GRACE_S


async def test_a_renewal_moves_the_deadline_and_keeps_the_epoch(admin: Kube, namespace: str) -> None:
    lease = make_lease(admin, namespace)
    await lease.step()
    first = lease.deadline
    await lease.step()
    assert lease.deadline > first
    assert lease.epoch == 1


async def test_a_fenced_node_loses_every_grant_and_comes_back_in_a_new_epoch(admin: Kube, namespace: str) -> None:
    lease = make_lease(admin, namespace)
    await lease.step()
    await fence(admin, namespace)
    with pytest.raises(Conflict):
        await lease.step()
    assert not lease.valid
    await lease.step()
    assert lease.valid
    assert lease.epoch == 2


async def test_somebody_elses_label_on_the_lease_is_no_fence(admin: Kube, namespace: str) -> None:
    lease = make_lease(admin, namespace)
    await lease.step()
    await admin.merge_patch(paths.lease(namespace, "n1"), {"metadata": {"labels": {"a": "b"}}})
    with pytest.raises(Conflict):
        await lease.step()
    await lease.step()
    assert lease.epoch == 1


async def test_every_acquisition_has_a_holder_that_was_never_used_before(admin: Kube, namespace: str) -> None:
    holders: list[str] = []
    first = make_lease(admin, namespace)
    for lease in (first, first, make_lease(admin, namespace, "agent-2")):
        await lease.step()
        holders.append((await admin.get(paths.lease(namespace, "n1")))["spec"]["holderIdentity"])
        await fence(admin, namespace)
        if lease.epoch == 1 and lease is first and len(holders) == 1:
            with pytest.raises(Conflict):
                await lease.step()
    assert len(set(holders)) == 3
