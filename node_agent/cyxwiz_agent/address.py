"""Where the agent may listen for readers of models and logs: nowhere that the world can reach."""

from __future__ import annotations

import argparse
import ipaddress
from dataclasses import dataclass


@dataclass(frozen=True)
class Address:
    """Where to listen."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """127.0.0.1:8444, [fd00::7]:8444. Raises ArgumentTypeError for anything but a loopback or private address."""
        host, _, port = text.rpartition(":")
        try:
            ip = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
            number = int(port)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not <IP address>:<port>") from None
        if ip.is_unspecified or ip.is_global or ip.is_multicast or not 0 <= number < 65_536:
            raise argparse.ArgumentTypeError(
                f"{text}: give a loopback or private address: what is sent is not encrypted"
            )
        return cls(str(ip), number)
