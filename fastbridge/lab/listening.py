"""Sockets that listen in a namespace, as the kernel lists them in /proc/net. Nobody connects to find out."""

from __future__ import annotations

import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from fastbridge.errors import ConfigError, LabError

from .namespaces import Namespace

_LISTENS = {"tcp": "0A", "udp": "07"}  #: the state (net/tcp_states.h) of one; of UDP those that are not connected
_PAUSE = 0.01  #: seconds between two looks


@dataclass(frozen=True, slots=True)
class Listener:
    """An address and port on which a socket listens."""

    address: IPv4Address | IPv6Address
    port: int

    def __str__(self) -> str:
        return f"{self.address}:{self.port}" if self.address.version == 4 else f"[{self.address}]:{self.port}"


def listeners(namespace: Namespace, protocol: str) -> list[Listener]:
    """All that listen by `tcp` or `udp`, over IPv4 and IPv6."""
    found = []
    for name in (protocol, f"{protocol}6"):
        with suppress(FileNotFoundError):  # a kernel without this family
            lines = namespace.read_net(name).splitlines()[1:]
            found += [_read(line.split()[1]) for line in lines if line.split()[3] == _LISTENS[protocol]]
    return found


def wait_listening(namespace: Namespace, pod: str, port: int, protocol: str, timeout: float) -> None:
    """Return when something listens on this port. Raises LabError after `timeout` seconds."""
    if not 0 < port < 1 << 16:
        raise ConfigError(f"{port} is not a port: 1 to 65535")
    deadline = time.monotonic() + timeout
    while True:
        found = listeners(namespace, protocol)
        if any(listener.port == port for listener in found):
            return
        if time.monotonic() > deadline:
            others = f"; listening are {', '.join(map(str, found))}" if found else ", nor on any other"
            raise LabError(
                f"nothing listens on {protocol.upper()} port {port} of pod {pod} after {timeout:g} s{others}"
            )
        time.sleep(_PAUSE)


def _read(text: str) -> Listener:
    """An address of /proc/net: its 32-bit words as this machine stores them, in hexadecimal, and the port."""
    words, port = text.split(":")
    address = struct.pack(f"={len(words) // 8}I", *(int(words[at : at + 8], 16) for at in range(0, len(words), 8)))
    return Listener(IPv4Address(address) if len(address) == 4 else IPv6Address(address), int(port, 16))
