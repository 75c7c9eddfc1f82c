"""Which pods hold which devices, as the kubelet has given them out: its pod-resources API, v1, over its unix socket.

Of the answer a few strings are read (names, resources, device ids), which takes less code than generated stubs take
imports. The protocol: https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/device-plugins/
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import grpc.aio

log = logging.getLogger(__name__)

LIST = "/v1.PodResourcesLister/List"
ASK_EVERY_S = 1.0
ANSWER_WITHIN_S = 5.0
LARGEST_ANSWER = 16 * 2**20


class Holding(NamedTuple):
    """Devices of one resource that one pod holds."""

    namespace: str
    pod: str
    resource: str
    devices: tuple[str, ...]
    """As the device plugin names them: NVIDIA's gives UUIDs, unless it is told otherwise."""

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.pod}"


class PodResources:
    """What the kubelet answered last. While it does not answer, that stands: its pods go on without it."""

    def __init__(self, socket: Path, changed: Callable[[], None]) -> None:
        self._socket = socket
        self._changed = changed
        self.holdings: tuple[Holding, ...] | None = None
        """None before its first answer."""
        self.problem: str | None = None
        """Why there is no newer answer."""

    def held_by(self, namespace: str, pod: str) -> tuple[str, ...] | None:
        """The devices of that pod, of all resources; None when it holds none."""
        found = [each for each in self.holdings or () if (each.namespace, each.pod) == (namespace, pod)]
        return tuple(device for each in found for device in each.devices) if found else None

    async def run(self) -> None:
        """Asks every second, until cancelled."""
        options = [("grpc.max_receive_message_length", LARGEST_ANSWER)]
        async with grpc.aio.insecure_channel(f"unix://{self._socket}", options=options) as channel:
            ask = channel.unary_unary(LIST, request_serializer=bytes, response_deserializer=parse_list)
            while True:
                await self._ask(ask)
                await asyncio.sleep(ASK_EVERY_S)

    async def _ask(self, ask: Any) -> None:
        try:
            holdings, problem = await ask(b"", timeout=ANSWER_WITHIN_S), None
        except grpc.aio.AioRpcError as error:
            holdings, problem = self.holdings, error.details() or error.code().name
        if problem != self.problem:
            log.warning("pod resources at %s: %s", self._socket, problem or "answered again")
        if (holdings, problem) != (self.holdings, self.problem):
            self.holdings, self.problem = holdings, problem
            self._changed()


def parse_list(message: bytes) -> tuple[Holding, ...]:
    """The holdings in a ListPodResourcesResponse. Raises ValueError for what is none."""
    return tuple(holding for number, pod in _fields(message) if number == 1 for holding in _of_pod(pod))


def _of_pod(message: bytes) -> Iterator[Holding]:
    """PodResources{name = 1, namespace = 2, containers = 3}."""
    fields = list(_fields(message))
    name, namespace = _text(fields, 1), _text(fields, 2)
    # ContainerResources{name = 1, devices = 2}, ContainerDevices{resource_name = 1, device_ids = 2}.
    for container in (value for number, value in fields if number == 3):
        for devices in (value for number, value in _fields(container) if number == 2):
            inner = list(_fields(devices))
            ids = tuple(value.decode() for number, value in inner if number == 2)
            if ids:
                yield Holding(namespace, name, _text(inner, 1), ids)


def _text(fields: list[tuple[int, bytes]], number: int) -> str:
    return next((value.decode() for known, value in fields if known == number), "")


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each length-delimited field of a protobuf message; numbers are passed over."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        match key & 7:
            case 0:
                _, at = _varint(message, at)
            case 1:
                at += 8
            case 2:
                size, at = _varint(message, at)
                if at + size > len(message):
                    raise ValueError("the kubelet's answer is cut off")
                yield key >> 3, message[at : at + size]
                at += size
            case 5:
                at += 4
            case wire_type:
                raise ValueError(f"the kubelet's answer has a field of wire type {wire_type}")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError("the kubelet's answer is cut off")
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
