from __future__ import annotations

import socket
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from cyxwiz_store.guard import Guard, Refused, host_and_port

PUBLIC = ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:93.184.216.34", "64:ff9b::5db8:d822"]
PRIVATE = [
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::a00:1",
    "64:ff9b:1::a00:1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "2001:0:0:1::1",
    "fc00::1",
    "fd12:3456::1",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
]
METADATA = [
    "169.254.169.254",
    "169.254.170.2",
    "fe80::1",
    "fe80::1%eth0",
    "fd00:ec2::254",
    "100.100.100.200",
    "168.63.129.16",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
]


class Names(AbstractResolver):
    """Answers from a table, in turn where a name has several answers."""

    def __init__(self, **names: list[str]) -> None:
        self._names = names

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        answers = self._names[host]
        address = answers.pop(0) if len(answers) > 1 else answers[0]
        return [ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None:
        pass


def info(address: str, port: int = 443) -> tuple[Any, ...]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))


def may_connect(guard: Guard, address: str, port: int = 443) -> bool:
    try:
        guard.open_socket(info(address, port)).close()  # pyright: ignore[reportArgumentType]  # as aiohttp passes it
    except Refused:
        return False
    return True


async def test_public_addresses_are_connected_to_and_no_others() -> None:
    guard = Guard([])
    assert [address for address in [*PRIVATE, *METADATA] if may_connect(guard, address)] == []
    assert len(guard.refused) == len(PRIVATE) + len(METADATA)
    assert [address for address in PUBLIC if not may_connect(guard, address)] == []


async def test_no_list_opens_a_metadata_service() -> None:
    guard = Guard(["0.0.0.0/0", "::/0", "169.254.169.254", "[fd00:ec2::254]:80"])
    assert [address for address in METADATA if may_connect(guard, address, 80)] == []
    assert may_connect(guard, "10.0.0.1")
    assert may_connect(guard, "::1")


async def test_a_listed_network_opens_its_addresses_in_every_notation() -> None:
    guard = Guard(["10.20.0.0/16"])
    assert may_connect(guard, "10.20.3.4", 9000)
    assert may_connect(guard, "::ffff:10.20.3.4", 9000)
    assert not may_connect(guard, "10.21.3.4", 9000)


async def test_a_listed_host_opens_what_it_resolves_to_at_its_port() -> None:
    guard = Guard(["Minio.storage.svc:9000"], Names(**{"minio.storage.svc": ["10.1.2.3"], "evil": ["10.1.2.4"]}))
    assert not may_connect(guard, "10.1.2.3", 9000)
    await guard.resolve("minio.storage.svc", 9000)
    assert may_connect(guard, "10.1.2.3", 9000)
    assert not may_connect(guard, "10.1.2.3", 22)
    await guard.resolve("evil", 9000)
    assert not may_connect(guard, "10.1.2.4", 9000)


async def test_a_listed_host_that_resolves_to_a_metadata_service_stays_closed() -> None:
    guard = Guard(["store:80"], Names(store=["169.254.169.254"]))
    await guard.resolve("store", 80)
    assert not may_connect(guard, "169.254.169.254", 80)


async def test_a_name_that_is_bound_again_to_another_address_gains_nothing() -> None:
    guard = Guard([], Names(rebind=["93.184.216.34", "127.0.0.1", "169.254.169.254"]))
    answers = [(await guard.resolve("rebind", 443))[0]["host"] for _ in range(3)]
    assert [may_connect(guard, address) for address in answers] == [True, False, False]


@pytest.mark.parametrize("entry", ["", "10.0.0.1/8", "host/path", "host:port", "host:0", "host:70000", "a:1:b"])
def test_an_entry_that_is_neither_network_nor_host_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="is no network"):
        host_and_port(entry)
