"""The fast path of one switch: its head, its hand and its ports' punt pairs.

All ports live in one network namespace, that of the first; one of another namespace stays without.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from fastbridge.policy.base import Policy
from fastbridge.switch.netlink import NETLINK_ROUTE, NLM_F_DUMP, Netlink, attributes, message

from .bpf import BpfHand
from .head import MOST_PAIRS, FastPath
from .inside import Inside
from .nft import NftHand, OpenSocket, PortLinks
from .peers import peer_address, peer_received
from .punts import Punts

if TYPE_CHECKING:
    from fastbridge.core.dataplane import Dataplane
    from fastbridge.core.fdb import FdbAccess

_GETLINK, _STATS64 = 18, 23
_CLONE_NEWNET, _SIOCGSKNS = 0x40000000, 0x894C
_HEADER = struct.Struct("=BxHiII")  # struct ifinfomsg
_RX_FRAMES, _TX_FRAMES, _RX_BYTES, _TX_BYTES, _RX_ERRORS, _TX_ERRORS, _RX_DROPPED, _TX_DROPPED = range(8)


class Receiver(NamedTuple):
    """Where the core listens for a port: how to open a socket there, and the interface's index."""

    open_socket: OpenSocket
    ifindex: int


class Passed(NamedTuple):
    """What passed by a port's interface in the kernel since the port was attached."""

    received: int = 0  #: came in, and was not handed to the core
    missed: int = 0  #: was to be handed to the core, and found no room on the way
    sent: int = 0  #: left, or was lost in the interface; by the core or not


def _enter(sock: socket.socket) -> None:
    """Take this thread into a socket's network namespace: what is attached to an interface is, by who is there."""
    fd = fcntl.ioctl(sock.fileno(), _SIOCGSKNS)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(fd, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(fd)


class FastLane:
    """Made with the first port; raises OSError where it cannot be had."""

    def __init__(
        self,
        dataplane: Dataplane,
        entries: FdbAccess,
        now_ms: Callable[[], int],
        open_socket: OpenSocket,
        inside: Inside | None,
        kind: str,
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
        self._begun: dict[int, Passed] = {}  # what had passed before a port was attached …
        self._passed: dict[int, Passed] = {}  # … and since, as was last read
        self._lock = threading.Lock()  # of the sockets
        self.head: FastPath | None = None
        try:
            self.hand = self._make_hand(kind, open_socket)
        except BaseException:
            self.close()
            raise
        self.head = FastPath(dataplane, entries, self.hand, now_ms)

    def _make_hand(self, kind: str, open_socket: OpenSocket) -> NftHand:
        """The hand that was asked for, or the one that everybody may have; `without` says why."""
        self._there: ThreadPoolExecutor | None = None
        self.without = ""
        if kind == "bpf":
            self._there = ThreadPoolExecutor(1, "fastbridge-there", initializer=_enter, initargs=(self._route.socket,))
            there = self._there
            try:
                return BpfHand(open_socket, MOST_PAIRS, lambda attach: there.submit(attach).result())
            except OSError as error:
                self.without = error.strerror or str(error)
        return NftHand(open_socket, MOST_PAIRS)

    def peer(self, ifindex: int) -> int | None:
        """The MAC address at the other end of a port's veth pair, where the hand can make use of it."""
        with self._lock:
            return peer_address(self._route, ifindex) if isinstance(self.hand, BpfHand) else None

    def make(self, ports: Sequence[tuple[str, int]]) -> list[tuple[Receiver, int]]:
        """Punt pairs of ports, (name, interface's index): where the core listens, and what frames are handed to.
        Raises OSError.
        """
        with self._lock:
            made = self._punts.make(ports)
            inner = self._punts.inner_indices([punt.inner for punt in made])
        return [(Receiver(self._open_inner, inner[punt.inner]), punt.ifindex) for punt in made]

    def attach(self, ports: Mapping[int, PortLinks]) -> None:
        """Take these ports' frames from now on, by the ports' indexes. Raises OSError."""
        with self._lock:
            self.hand.attach(ports)
            self._ports.update(ports)
            self._passed.update(dict.fromkeys(ports, Passed()))
            found = self._read()
            self._begun.update({index: found.get(index, Passed()) for index in ports})

    def let_go(self, index: int) -> None:
        """Take a port's frames no more, and forward none to it; a second call does nothing. Raises OSError."""
        if self.head is not None:
            self.head.remove_port(index)
        with self._lock:
            if index in self._ports:
                self.hand.detach(index)
                self._note_passed()
                del self._ports[index], self._begun[index]

    def forget(self, index: int) -> Passed:
        """What has passed by a port that was let go, which is not counted any more."""
        with self._lock:
            return self._passed.pop(index)

    def remove(self, ifindex: int) -> None:
        """A port's punt pair is not needed any more, as its sockets are closed."""
        with self._lock:
            self._punts.remove([ifindex])

    def passed(self) -> dict[int, Passed]:
        """What has passed by each port; by one whose interface is gone, as far as is known."""
        with self._lock:
            self._note_passed()
            return dict(self._passed)

    def check(self) -> None:
        """The FDB was changed from Python."""
        if self.head is not None:
            self.head.check()

    def set_policy(self, index: int, policy: Policy) -> None:
        """A port has another policy."""
        if self.head is not None:
            self.head.set_policy(index, policy)

    def follow_mtu(self, index: int, mtu: int) -> None:
        """A port's MTU may have changed."""
        if self.head is not None and index in self._ports:
            self.head.set_port(index, mtu)

    def follow_bindings(self, rows: Sequence[tuple[int, int, int, bytes]]) -> None:
        """The guards' bindings have changed."""
        if self.head is not None:
            self.head.follow_bindings(rows)

    def revoke_port(self, index: int) -> None:
        """Nothing that is promoted to or from a port holds."""
        if self.head is not None:
            self.head.revoke_port(index)

    def revoke_blocked(self) -> None:
        """Nor of those that are part of a loop."""
        if self.head is not None:
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
        if self.head is not None:
            self.head.stop()
            self.hand.close()
        if getattr(self, "_there", None) is not None:
            self._there.shutdown()  # type: ignore[union-attr]
        if self._inside is None:  # else they go with their namespace
            self._punts.remove([links.ifindex for links in self._ports.values()])
        for netlink in {self._route, self._inner}:
            netlink.close()
        if self._inside is not None:
            self._inside.close()

    def _note_passed(self) -> None:
        for index, now in self._read().items():
            self._passed[index] = Passed(*(a - b for a, b in zip(now, self._begun[index], strict=True)))

    def _read(self) -> dict[int, Passed]:
        """What the interfaces have counted since they were made: no counter costs a frame anything."""
        stats = {}
        for _, payload in self._route.dump(message(_GETLINK, NLM_F_DUMP, _HEADER.pack(0, 0, 0, 0, 0))):
            for kind, value in attributes(payload[_HEADER.size :]):
                if kind == _STATS64:
                    stats[_HEADER.unpack_from(payload)[2]] = struct.unpack_from("=8Q", value)
        found = {}
        for index, links in self._ports.items():
            own, punt = stats.get(links.ifindex), stats.get(links.punt)
            if own is None or punt is None:
                continue
            handed, missed = punt[_TX_FRAMES], punt[_TX_DROPPED]
            sent = own[_TX_FRAMES] + own[_TX_DROPPED]
            if links.peer is not None:  # what bpf_redirect_peer took came in there, and did not leave here
                sent += max(0, peer_received(self._route, links.ifindex) - own[_TX_FRAMES])
            found[index] = Passed(own[_RX_FRAMES] - handed - missed, missed, sent)
        return found
