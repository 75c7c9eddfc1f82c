"""ComputeNodes whose machine has left the cluster are deleted, where the garbage collector has not done it already."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from .clock import Now
from .cluster import ApiError, Cluster, Conflict, NotFound
from .snapshot import Observer
from .views import Liveness
from .watched import Watched

log = logging.getLogger(__name__)


async def collect_for_ever(
    cluster: Cluster, watched: Watched, leases: Observer, interval_s: float, clock: Callable[[], Now]
) -> None:
    """A look every `interval_s`. Never returns."""
    while True:
        await asyncio.sleep(interval_s)
        try:
            await collect(cluster, watched, leases, clock())
        except ApiError as error:
            log.warning("collecting broke off", extra={"error": error})


async def collect(cluster: Cluster, watched: Watched, leases: Observer, now: Now) -> None:
    """No silent ComputeNode is left whose owner, a Kubernetes Node, does not exist any more."""
    for node in list(watched.nodes.values()):
        owners = [owner for owner in node.node.metadata.owner_references if owner.kind == "Node"]
        alive = leases.liveness(node.name, now) is Liveness.ONLINE
        if alive or not owners or any(owner.name in watched.machines for owner in owners):
            continue
        if any([await cluster.machine_exists(owner.name) for owner in owners]):
            continue  # it was made a moment ago
        try:
            await cluster.delete_node(node)
        except (Conflict, NotFound):
            continue  # somebody else was faster
        log.info("deleted", extra={"node": node.name, "why": "its Kubernetes node is gone"})
