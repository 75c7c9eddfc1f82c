"""A device plugin that offers simulated GPUs to a real kubelet, as NVIDIA's offers real ones: by their UUIDs.

Of the kubelet's device plugin API, v1beta1, it has what a kubelet asks; containers are given no device. Messages are
written by hand: each is a string or two. Run as `python -m cyxwiz_platform.simulated_gpus.device_plugin UUID...`.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

PLUGINS = Path("/var/lib/kubelet/device-plugins")
SOCKET = "cyxwiz-simulated.sock"
RESOURCE = "nvidia.com/gpu"
API_VERSION = "v1beta1"


def text(number: int, value: str | bytes) -> bytes:
    """A length-delimited protobuf field. Everything here is short."""
    raw = value.encode() if isinstance(value, str) else value
    size = len(raw)
    length = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
    return bytes([number << 3 | 2]) + length + raw


def device_list(uuids: list[str]) -> bytes:
    """ListAndWatchResponse{devices = 1}, Device{ID = 1, health = 2}."""
    return b"".join(text(1, text(1, uuid) + text(2, "Healthy")) for uuid in uuids)


def allocation(request: bytes) -> bytes:
    """AllocateResponse{container_responses = 1}: an empty one for each container that is asked for."""
    containers, at = 0, 0
    while at < len(request):
        size, at = request[at + 1], at + 2
        if size > 127:
            size, at = size & 127 | request[at] << 7, at + 1
        containers, at = containers + 1, at + size
    return text(1, b"") * containers


class Plugin(grpc.GenericRpcHandler):
    """Answers the kubelet."""

    def __init__(self, uuids: list[str]) -> None:
        self._uuids = uuids

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method.rpartition("/")[2]
        if method == "ListAndWatch":
            return grpc.unary_stream_rpc_method_handler(self._list_and_watch)
        if method == "Allocate":
            return grpc.unary_unary_rpc_method_handler(lambda request, _: allocation(request))
        # GetDevicePluginOptions, PreStartContainer, GetPreferredAllocation: nothing special.
        return grpc.unary_unary_rpc_method_handler(lambda request, _: b"")

    def _list_and_watch(self, request: bytes, context: Any) -> Iterator[bytes]:
        yield device_list(self._uuids)
        gone = threading.Event()
        context.add_callback(gone.set)
        gone.wait()


def main(uuids: list[str]) -> None:
    """Registered with the kubelet of this mount namespace, until killed."""
    socket = PLUGINS / SOCKET
    socket.unlink(missing_ok=True)
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    server.add_generic_rpc_handlers((Plugin(uuids),))
    server.add_insecure_port(f"unix://{socket}")
    server.start()
    # RegisterRequest{version = 1, endpoint = 2, resource_name = 3}
    registration = text(1, API_VERSION) + text(2, SOCKET) + text(3, RESOURCE)
    with grpc.insecure_channel(f"unix://{PLUGINS / 'kubelet.sock'}") as kubelet:
        kubelet.unary_unary(f"/{API_VERSION}.Registration/Register")(registration, timeout=30, wait_for_ready=True)
    print(f"registered {len(uuids)} of {RESOURCE}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main(sys.argv[1:])
