"""Ports for scapy: a SuperSocket, and an interface. It takes the extra `scapy`.

from fastbridge.scapy import FastbridgeInterface, FastbridgeSocket

sock = FastbridgeSocket(switch.add_socket_port("probe"))
answer = sock.sr1(Ether(src=MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(pdst="10.0.0.2", …), timeout=1)
"""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Iterable
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from fastbridge.addresses import MacAddress
from fastbridge.errors import ConfigError, PortError
from fastbridge.extras import way_to
from fastbridge.pcap_filter import compile_filter
from fastbridge.switch.socket_port import SocketPort

try:
    from scapy.compat import raw
    from scapy.interfaces import InterfaceProvider, NetworkInterface
    from scapy.layers.l2 import Ether
    from scapy.packet import Packet
    from scapy.supersocket import SuperSocket
except ImportError:
    raise ConfigError(f"this takes the package scapy: {way_to('scapy')}") from None

if TYPE_CHECKING:
    from fastbridge.core.filters import Filter

_POLL_SECONDS = 0.05  # scapy's conf.recv_poll_rate


class FastbridgeSocket(SuperSocket):
    """A socket port as scapy knows sockets: for `sniff(opened_socket=…)`, its own sr(), sr1(), sniff(), am(), and more.

    To close it leaves the port in the switch. A frame waits in the port until a socket reads it; of two sockets, one
    does.

    filter: in tcpdump's words; other frames are left out. Needs libpcap. Raises ConfigError.
    """

    desc = "a port of a fastbridge switch"

    def __init__(self, port: SocketPort, filter: str | None = None, **_: object) -> None:  # noqa: A002 - scapy's name
        _check(port)
        self.port = port
        self.iface = port.name
        self._filter: Filter | None = compile_filter(filter) if filter else None

    def fileno(self) -> int:
        """The port's."""
        return self.port.fileno()

    def send(self, x: Packet) -> int:
        """Send a packet, from its Ethernet header on; returns how many bytes it has. Raises as SocketPort.send()."""
        frame = raw(x)
        with contextlib.suppress(AttributeError):  # bytes have none
            x.sent_time = time.time()
        self.port.send(frame)
        return len(frame)

    def recv_raw(self, x: int = 0) -> tuple[type[Packet] | None, bytes | None, float | None]:
        """The next frame, whole, and when it was read. None: the filter leaves it out. Raises EOFError: no port."""
        try:
            frame = self.port.recv()
        except PortError as error:
            raise EOFError(str(error)) from None
        if self._filter is not None and not self._filter.run(frame, len(frame)):
            return None, None, None
        return Ether, frame, time.time()

    def close(self) -> None:
        """End it; the port stays."""
        self.closed = True

    @staticmethod
    def select(sockets: Iterable[Any], remain: float | None = _POLL_SECONDS) -> list[Any]:
        """Those of some sockets that can be read within `remain` seconds. Their descriptors may be any number."""
        poll = select.poll()
        found = {each.fileno(): each for each in sockets}
        for descriptor in found:
            poll.register(descriptor, select.POLLIN)
        return [found[descriptor] for descriptor, _ in poll.poll(None if remain is None else 1000 * remain)]


class _Provider(InterfaceProvider):
    """Opens the sockets of one interface."""

    name = "fastbridge"

    def __init__(self, port: SocketPort) -> None:
        self._port = port

    def _l2socket(self, dev: NetworkInterface) -> Any:
        return partial(FastbridgeSocket, self._port)

    _l2listen = _l2socket


def _check(port: SocketPort) -> None:
    if not isinstance(port, SocketPort):
        raise ConfigError(f"this takes a socket port, as switch.add_socket_port(…) makes one, not {port!r}")


class FastbridgeInterface(NetworkInterface):
    """A socket port as scapy knows interfaces: for `srp(…, iface=…)`, `sendp`, `sniff`, answering machines.

    mac, ip: the addresses that scapy takes for the interface's own. Raises ConfigError: they are none, or `port` is.
    """

    def __init__(self, port: SocketPort, mac: str | None = None, ip: str | None = None) -> None:
        _check(port)
        mac = None if mac is None else str(MacAddress(mac))
        try:
            ip = None if ip is None else str(ip_address(ip))
        except ValueError as error:
            raise ConfigError(str(error)) from None
        about = {"name": port.name, "network_name": port.name, "mac": mac, "ips": [ip] if ip else []}
        super().__init__(_Provider(port), about)
