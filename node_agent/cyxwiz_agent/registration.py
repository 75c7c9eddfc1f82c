"""The node's ComputeNode: made once, and its inventory written when it changes and at no other time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from cyxwiz_crds import API_VERSION, ComputeNode, size_text
from cyxwiz_crds.compute_node import AgentInfo, Gpu, GpuReadings, Inventory
from cyxwiz_kube import ApiError, Conflict, Kube, NotFound, merge_diff, paths
from cyxwiz_protocol.runner_api import Snapshot

from .admission import Capacity
from .devices import Devices
from .gpu_room import context_mib
from .settings import GpuMode

log = logging.getLogger(__name__)

LOOK_EVERY_S = 30.0
READINGS_EVERY_S = 300.0
RETRY_S = 2.0
LONGEST_LINE = 256
MIB = 2**20


def inventory(
    devices: Devices,
    capacity: Capacity,
    snapshot: Snapshot | None,
    labels: dict[str, str],
    gpu_mode: GpuMode = GpuMode.UNGUARDED,
) -> Inventory:
    """The node in the words of its ComputeNode. Pure."""
    gpus = devices.gpus
    return Inventory(
        gpus=list(gpus),
        cpus=capacity.cpus,
        memory_mi_b=capacity.memory_bytes // MIB,
        simulated=devices.simulated,
        driver_version=devices.driver_version,
        cuda_version=devices.cuda_version,
        driver_message=devices.message[:LONGEST_LINE] if devices.message else None,
        torch_version=snapshot.torch_version if snapshot else None,
        # Not whether one is ready this moment: that changes with every start, and each change is a write.
        warm_trainers=snapshot is not None and snapshot.torch_version is not None and snapshot.message is None,
        models=snapshot.models if snapshot else [],
        gpu_sharing=snapshot.sharing if snapshot and gpus else None,
        gpu_context_mi_b=context_mib(snapshot.sharing) if snapshot and gpus else None,
        gpu_mode=gpu_mode.value if gpus else None,
        labels=labels,
        max_concurrent_jobs=capacity.max_jobs,
        gpu_text=_gpu_text(gpus),
        memory_text=size_text(gpus[0].memory_total_mi_b * MIB if gpus else capacity.memory_bytes),
    )


def worth_writing(before: Inventory | None, now: Inventory, since_written_s: float) -> bool:
    """True when the API server should hear of it. Temperatures and the like go along with a real change, or after
    five minutes when one of them has moved far. Pure."""
    if before is None or still(before) != still(now):
        return True
    return since_written_s >= READINGS_EVERY_S and any(
        moved_far(old.readings, new.readings) for old, new in zip(before.gpus, now.gpus, strict=True)
    )


def still(inventory: Inventory) -> Inventory:
    """What does not move by itself."""
    gpus = [gpu.model_copy(update={"readings": None}) for gpu in inventory.gpus]
    return inventory.model_copy(update={"gpus": gpus})


def moved_far(old: GpuReadings | None, new: GpuReadings | None) -> bool:
    """A person who looks at the old readings would be misled."""
    if old is None or new is None:
        return old is not new
    if old.last_xid_at != new.last_xid_at:
        return True
    return any(
        (a is None) != (b is None) or (a is not None and b is not None and abs(a - b) >= far)
        for a, b, far in (
            (old.memory_free_mi_b, new.memory_free_mi_b, 1024),
            (old.temperature_celsius, new.temperature_celsius, 10),
            (old.power_watts, new.power_watts, 100),
            (old.utilization_percent, new.utilization_percent, 25),
        )
    )


def _gpu_text(gpus: tuple[Gpu, ...]) -> str:
    """ "8 x NVIDIA H200", or "none"."""
    if not gpus:
        return "none"
    names = sorted({gpu.name for gpu in gpus})
    return f"{len(gpus)} x {names[0]}"[:60] if len(names) == 1 else f"{len(gpus)} mixed"


class Registration:
    """Keeps the ComputeNode of this node in step with what the node is."""

    def __init__(
        self,
        kube: Kube,
        node: str,
        agent: AgentInfo,
        look: Callable[[dict[str, str]], Inventory],
        on_drain: Callable[[], None],
    ) -> None:
        """`on_drain` is called when the node begins to drain, and when that is over."""
        self._kube = kube
        self._node = node
        self._path = paths.compute_node(node)
        self._agent = agent
        self._look = look
        self._wake = asyncio.Event()
        self._written_at = -READINGS_EVERY_S
        self.registered = False
        self.draining = False
        """The operator sends its jobs away, for whatever reason."""
        self._on_drain = on_drain

    def wake(self) -> None:
        """Something about the node may have changed."""
        self._wake.set()

    async def keep(self) -> None:
        """Look every 30 s and whenever woken; until cancelled."""
        while True:
            self._wake.clear()
            delay_s = LOOK_EVERY_S
            try:
                await self._step()
                self.registered = True
            except ApiError as error:
                log.warning("ComputeNode %s not written, trying again: %s", self._node, error)
                delay_s = RETRY_S
            try:
                async with asyncio.timeout(delay_s):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _step(self) -> None:
        kubernetes_node = await self._kubernetes_node()
        labels = dict(kubernetes_node["metadata"].get("labels") or {}) if kubernetes_node else {}
        wanted = self._look(labels)
        try:
            current = ComputeNode.model_validate(await self._kube.get(self._path))
        except NotFound:
            await self._create(kubernetes_node)
            current = None
        draining = current is not None and current.status.phase == "Draining"
        if draining != self.draining:
            self.draining = draining
            self._on_drain()
        known = current.status.inventory if current is not None else None
        same_agent = current is not None and current.status.agent == self._agent
        if same_agent and not worth_writing(known, wanted, time.monotonic() - self._written_at):
            return
        before = known.wire() if known else {}
        body = {"status": {"inventory": merge_diff(before, wanted.wire()), "agent": self._agent.wire()}}
        await self._kube.merge_patch(paths.status(self._path), body)
        self._written_at = time.monotonic()
        log.info("ComputeNode %s written: %s, %d CPUs", self._node, wanted.gpu_text, wanted.cpus)

    async def _kubernetes_node(self) -> dict[str, Any] | None:
        try:
            return await self._kube.get(paths.node(self._node))
        except NotFound:
            return None

    async def _create(self, kubernetes_node: dict[str, Any] | None) -> None:
        """The ComputeNode exists. The Kubernetes node owns it; this pod must not, a restart would delete it."""
        metadata: dict[str, Any] = {"name": self._node}
        if kubernetes_node is not None:
            uid = kubernetes_node["metadata"]["uid"]
            metadata["ownerReferences"] = [{"apiVersion": "v1", "kind": "Node", "name": self._node, "uid": uid}]
        body = {"apiVersion": API_VERSION, "kind": "ComputeNode", "metadata": metadata, "spec": {}}
        try:
            await self._kube.create(paths.compute_nodes(), body)
            log.info("ComputeNode %s registered", self._node)
        except Conflict:
            pass  # made by an earlier step whose answer was lost
