"""Which addresses a node connects to for a job: public ones, and those that its administrator names.

The check is made on the very address that a socket is about to be connected to: after the name was resolved, for each
address of it, on every redirect and every new connection. A name that answers differently the second time, an address
in another notation and a redirect to a metadata service all meet the same question.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from aiohttp import TCPConnector, ThreadedResolver
from aiohttp.abc import AbstractResolver, ResolveResult

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

HTTPS_PORT = 443
METADATA = tuple(
    ip_network(network)
    for network in (
        "169.254.0.0/16",  # link-local: AWS, Google, Azure, OpenStack, Oracle
        "fe80::/10",
        "fd00:ec2::254/128",  # AWS over IPv6
        "100.100.100.200/32",  # Alibaba
        "168.63.129.16/32",  # Azure's wire server, a public address
        "192.0.0.192/32",  # Oracle, older
    )
)
"""Where machines are told their own credentials. No administrator's list opens these."""
_NAT64 = ip_network("64:ff9b::/96")


class Refused(OSError):
    """The address is not one this node connects to."""


class Guard(AbstractResolver):
    """A resolver and socket factory for aiohttp that only let allowed addresses through."""

    def __init__(self, allow: Iterable[str], resolver: AbstractResolver | None = None) -> None:
        """`allow`: networks such as 10.0.0.0/8, and hosts such as minio.storage.svc:9000 (port 443 if absent).

        Raises ValueError for an entry that is neither. Needs a running loop.
        """
        self.refused: list[str] = []
        """What was refused, in words: the client's own error may hide it among others."""
        self._networks: list[Network] = []
        self._hosts: set[tuple[str, int]] = set()
        self._allowed: set[tuple[Address, int]] = set()
        self._resolver = resolver or ThreadedResolver()
        for entry in allow:
            try:
                self._networks.append(ip_network(entry))
            except ValueError:
                self._hosts.add(host_and_port(entry))

    def connector(self, **options: Any) -> TCPConnector:
        """A connector all of whose connections pass the guard."""
        return TCPConnector(resolver=self, socket_factory=self.open_socket, use_dns_cache=False, **options)

    def open_socket(self, info: tuple[Any, Any, Any, Any, tuple[Any, ...]]) -> socket.socket:
        """A socket that will be connected to the address of `info`. Raises Refused."""
        family, kind, protocol, _, destination = info
        address, port = ip_address(str(destination[0]).partition("%")[0]), int(destination[1])
        if reason := self._why_not(address, port):
            self.refused.append(f"{address} {reason}")
            raise Refused(f"{address} {reason}")
        return socket.socket(family, kind, protocol)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """As any resolver; remembers what the administrator's hosts resolve to."""
        found = await self._resolver.resolve(host, port, family)
        if (host.lower().removesuffix("."), port) in self._hosts:
            self._allowed.update((ip_address(result["host"].partition("%")[0]), port) for result in found)
        return found

    async def close(self) -> None:
        await self._resolver.close()

    def _why_not(self, address: Address, port: int) -> str | None:
        plain = _unwrapped(address)
        if any(plain in network for network in METADATA):
            return "is a link-local or metadata address, which no list allows"
        if (address, port) in self._allowed or (str(plain), port) in self._hosts:
            return None
        if any(plain in network for network in self._networks):
            return None
        return None if _is_public(plain) else "is no public address"


def host_and_port(entry: str) -> tuple[str, int]:
    """Of `host`, `host:port`, `[address]:port`. Raises ValueError."""
    host, port = entry, str(HTTPS_PORT)
    if entry.startswith("["):
        host, _, rest = entry[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif ":" in entry:
        host, _, port = entry.partition(":")
    if not host or set("/[]") & set(host) or not port.isdecimal() or not 1 <= int(port) <= 65_535:
        raise ValueError(f"{entry!r} is no network such as 10.0.0.0/8 and no host such as minio.storage.svc:9000")
    return host.lower().removesuffix("."), int(port)


def _unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, where it does."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and (address.sixtofour or address.teredo or address.is_site_local):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)
