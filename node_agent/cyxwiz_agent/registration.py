"""The node's ComputeNode: made once, and its inventory written when it changes and at no other time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from cyxwiz_crds import API_VERSION, ComputeNode, size_text
from cyxwiz_crds.compute_node import AgentInfo, Gpu, Inventory
from cyxwiz_kube import ApiError, Conflict, Kube, NotFound, merge_diff, paths
from cyxwiz_protocol.runner_api import Snapshot

from .admission import Capacity
from .devices import Devices

log = logging.getLogger(__name__)

LOOK_EVERY_S = 30.0
RETRY_S = 2.0
MIB = 2**20


def inventory(devices: Devices, capacity: Capacity, snapshot: Snapshot | None, labels: dict[str, str]) -> Inventory:
    """The node in the words of its ComputeNode. Pure."""
    return Inventory(
        gpus=list(devices.gpus),
        cpus=capacity.cpus,
        memory_mi_b=capacity.memory_bytes // MIB,
        driver_version=devices.driver_version,
        cuda_version=devices.cuda_version,
        driver_message=devices.message,
        torch_version=snapshot.torch_version if snapshot else None,
        models=snapshot.models if snapshot else [],
        labels=labels,
        max_concurrent_jobs=capacity.max_jobs,
        gpu_text=_gpu_text(devices.gpus),
        memory_text=size_text(devices.gpus[0].memory_total_mi_b * MIB if devices.gpus else capacity.memory_bytes),
    )


def _gpu_text(gpus: tuple[Gpu, ...]) -> str:
    """ "8 x NVIDIA H200", or "none"."""
    if not gpus:
        return "none"
    names = sorted({gpu.name for gpu in gpus})
    return f"{len(gpus)} x {names[0]}"[:60] if len(names) == 1 else f"{len(gpus)} mixed"


class Registration:
    """Keeps the ComputeNode of this node in step with what the node is."""

    def __init__(self, kube: Kube, node: str, agent: AgentInfo, look: Callable[[dict[str, str]], Inventory]) -> None:
        self._kube = kube
        self._node = node
        self._path = paths.compute_node(node)
        self._agent = agent
        self._look = look
        self._wake = asyncio.Event()
        self.registered = False

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
        if current is not None and (current.status.inventory, current.status.agent) == (wanted, self._agent):
            return
        before = current.status.inventory.wire() if current and current.status.inventory else {}
        body = {"status": {"inventory": merge_diff(before, wanted.wire()), "agent": self._agent.wire()}}
        await self._kube.merge_patch(paths.status(self._path), body)
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
