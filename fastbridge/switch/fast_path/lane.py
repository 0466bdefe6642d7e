"""The fast path of one switch: its head, its hand and its ports' punt pairs.

All ports live in one network namespace, that of the first; one of another namespace stays without.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from fastbridge.netlink import NETLINK_ROUTE, NLM_F_DUMP, Netlink, attributes, message
from fastbridge.switch.port_socket import Receiver

from .bpf import BpfHand
from .head import FastPath
from .inside import Inside
from .nft import NftHand, OpenSocket, PortLinks
from .peers import peer_address
from .punts import Punts

if TYPE_CHECKING:
    from fastbridge.core.dataplane import Dataplane
    from fastbridge.core.fdb import FdbAccess

_GETLINK, _STATS64 = 18, 23
_HEADER = struct.Struct("=BxHiII")  # struct ifinfomsg
_RX_FRAMES, _TX_FRAMES, _RX_BYTES, _TX_BYTES, _RX_ERRORS, _TX_ERRORS, _RX_DROPPED, _TX_DROPPED = range(8)


class FastLane:
    """Made with the first port, with a hand that works. Raises OSError."""

    def __init__(
        self,
        dataplane: Dataplane,
        entries: FdbAccess,
        now_ms: Callable[[], int],
        open_socket: OpenSocket,
        inside: Inside | None,
        hand: NftHand,
    ) -> None:
        self._dataplane, self._inside = dataplane, inside
        self._route = Netlink(open_socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE))
        self._inner = self._route
        self._open_inner = open_socket
        if inside is not None:
            self._open_inner = inside.open_socket
            self._inner = Netlink(inside.open_socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE))
        self._punts = Punts(self._route, self._inner, -1 if inside is None else inside.fd)
        self._ports: dict[int, PortLinks] = {}
        self._begun: dict[int, int] = {}  # what a port's device had forwarded by itself before it was one
        self._lock = threading.Lock()  # of the sockets
        self.hand = hand
        self.head = FastPath(dataplane, entries, hand, now_ms)

    def peer(self, ifindex: int) -> int | None:
        """The MAC address at the other end of a port's veth pair, where the hand can make use of it."""
        with self._lock:
            return peer_address(self._route, ifindex) if isinstance(self.hand, BpfHand) else None

    def make(self, ports: Sequence[tuple[str, int]]) -> list[Receiver]:
        """Punt pairs of ports, (name, interface's index). Raises OSError."""
        with self._lock:
            made = self._punts.make(ports)
            inner = self._punts.inner_indices([punt.inner for punt in made])
        return [Receiver(self._open_inner, inner[punt.inner], punt.ifindex) for punt in made]

    def attach(self, ports: Mapping[int, PortLinks]) -> None:
        """Take these ports' frames from now on, by the ports' indexes. Raises OSError."""
        with self._lock:
            self.hand.attach(ports)
            self._ports.update(ports)
            self._begun.update(dict.fromkeys(ports, 0))
            forwarded = self._forwarded()
            self._begun.update({index: forwarded.get(index, 0) for index in ports})

    def detach(self, index: int) -> int | None:
        """Take a port's frames no more; returns how many the kernel forwarded, None: it was not attached. Raises
        OSError.
        """
        self.revoke_port(index)
        with self._lock:
            if index not in self._ports:
                return None
            count = self._forwarded().get(index, 0)
            self.hand.detach(index)
            self._ports.pop(index)
            self._begun.pop(index)
        return count

    def rename(self, index: int, name: str) -> None:
        """A port's interface has another name. Raises OSError."""
        if index in self._ports:
            self.revoke_port(index)
            with self._lock:
                self.hand.rename(index, name)

    def remove(self, ifindex: int) -> None:
        """A port's punt pair is not needed any more, as its sockets are closed."""
        with self._lock:
            self._punts.remove([ifindex])

    def forwarded(self) -> dict[int, int]:
        """How many frames that came in by each port the kernel forwarded by itself."""
        with self._lock:
            return self._forwarded()

    def check(self) -> None:
        """The FDB was changed from Python."""
        self.head.check()

    def revoke_port(self, index: int) -> None:
        """Nothing that is promoted to or from a port holds."""
        self.head.revoke_port(index)

    def revoke_blocked(self) -> None:
        """Nor of those that are part of a loop."""
        for index, link in self._dataplane.links().items():
            if link == "blocked":
                self.head.revoke_port(index)

    def leave_to_parent(self) -> None:
        """In a forked child: close the copies of what is the parent's."""
        for sock in {self._route.socket, self._inner.socket}:
            sock.close()
        self.hand.close()

    def close(self) -> None:
        """Give all back."""
        self.head.stop()
        self.hand.close()
        if self._inside is None:  # else they go with their namespace
            self._punts.remove([links.ifindex for links in self._ports.values()])
        for netlink in {self._route, self._inner}:
            netlink.close()
        if self._inside is not None:
            self._inside.close()

    def _forwarded(self) -> dict[int, int]:
        """What came in by a port's device, less what was handed to the core: no counter costs a frame anything."""
        stats = {}
        for _, _, payload in self._route.dump(message(_GETLINK, NLM_F_DUMP, _HEADER.pack(0, 0, 0, 0, 0))):
            for kind, value in attributes(payload[_HEADER.size :]):
                if kind == _STATS64:
                    stats[_HEADER.unpack_from(payload)[2]] = struct.unpack_from("=8Q", value)
        found = {}
        for index, links in self._ports.items():
            if links.ifindex in stats and links.punt in stats:
                punted = stats[links.punt]
                received = stats[links.ifindex][_RX_FRAMES]
                found[index] = received - punted[_TX_FRAMES] - punted[_TX_DROPPED] - self._begun[index]
        return found
