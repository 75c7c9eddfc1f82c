"""The node's Lease: its heartbeat, and the ground on which its jobs may compute.

Every acquisition is a new epoch with a holder identity never used before. A renewal that was acknowledged lets jobs
compute until 25 s after it was *sent*; nothing else does. Losing the holder means that the operator has fenced this
node, and whatever was granted before is void until each job has been confirmed again in the new epoch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from cyxwiz_kube import ApiError, Conflict, Kube, NotFound, paths
from cyxwiz_protocol.clock import boottime

from .settings import LEASE_DURATION_S, LEASE_GRACE_S, LEASE_RENEWAL_S

log = logging.getLogger(__name__)

RETRY_S = 1.0


class NodeLease:
    """Keeps the Lease of one node. `epoch` grows with every acquisition; 0 means never held."""

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        node: str,
        instance: str,
        changed: Callable[[], None],
        cannot_work: Callable[[], Awaitable[bool]],
    ) -> None:
        """While `cannot_work`, the Lease is left to run out: only then do this node's jobs start elsewhere."""
        self._kube = kube
        self._path = paths.lease(namespace, node)
        self._collection = paths.leases(namespace)
        self._namespace = namespace
        self._node = node
        self._instance = instance
        self._changed = changed
        self._cannot_work = cannot_work
        self._held: dict[str, Any] | None = None
        self.epoch = 0
        self.deadline = 0.0
        """Boot time until which jobs confirmed in this epoch may compute."""

    @property
    def valid(self) -> bool:
        """True while jobs may be started."""
        return self._held is not None and boottime() < self.deadline

    async def keep(self) -> None:
        """Acquire, renew, acquire again after a loss, as long as this node can work; until cancelled."""
        leaves = False
        while True:
            before, leaves = leaves, await self._cannot_work()
            if leaves:
                if not before:
                    log.warning("lease of %s is left to run out: the runner does not answer", self._node)
                await asyncio.sleep(LEASE_RENEWAL_S)
                continue
            try:
                await self.step()
            except Conflict:
                continue  # somebody wrote in between: look again at once
            except ApiError as error:
                log.warning("lease of %s not renewed, trying again: %s", self._node, error)
                await asyncio.sleep(RETRY_S)
                continue
            self._changed()
            await asyncio.sleep(LEASE_RENEWAL_S)

    async def step(self) -> None:
        """Held, and acknowledged just now. Raises Conflict when somebody else wrote in between: step again."""
        if self._held is None:
            await self._acquire()
        else:
            await self._renew()

    async def _acquire(self) -> None:
        """A new epoch. One agent a node is held by a lock on the state folder, so another holder is a dead one."""
        holder = f"{self._instance}-{self.epoch + 1}"
        sent = boottime()
        try:
            current = await self._kube.get(self._path)
        except NotFound:
            body = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self._node, "namespace": self._namespace},
                "spec": self._spec(holder),
            }
            self._held = await self._kube.create(self._collection, body)
        else:
            self._held = await self._kube.replace(self._path, {**current, "spec": self._spec(holder)})
        self.epoch += 1
        self.deadline = sent + LEASE_GRACE_S
        log.info("lease of %s acquired, epoch %d", self._node, self.epoch)

    async def _renew(self) -> None:
        held = self._held
        assert held is not None
        holder = held["spec"]["holderIdentity"]
        sent = boottime()
        try:
            self._held = await self._kube.replace(self._path, {**held, "spec": self._spec(holder)})
        except (Conflict, NotFound):
            await self._look_again(holder)
            raise Conflict(409, "Conflict", "the Lease was changed by somebody else") from None
        self.deadline = max(self.deadline, sent + LEASE_GRACE_S)

    async def _look_again(self, holder: str) -> None:
        """After a refused renewal: still ours with a newer version, or fenced."""
        try:
            current = await self._kube.get(self._path)
        except NotFound:
            current = None
        if current is not None and current["spec"].get("holderIdentity") == holder:
            self._held = current
            return
        log.warning("node %s was fenced: every job must be confirmed again", self._node)
        self._held = None
        self.deadline = 0.0
        self._changed()

    def _spec(self, holder: str) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {"holderIdentity": holder, "leaseDurationSeconds": LEASE_DURATION_S, "renewTime": now}
