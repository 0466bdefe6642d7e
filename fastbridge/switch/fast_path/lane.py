"""The fast path of one switch: its head, its hand and its ports' punt pairs.

All ports live in one network namespace, that of the first; one of another namespace stays without.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from fastbridge.switch.netlink import NETLINK_ROUTE, NLM_F_DUMP, Netlink, NetlinkError, attributes, message

from .bpf import BpfHand
from .head import MOST_PAIRS, FastPath
from .inside import Inside
from .nft import NftHand, OpenSocket, PortLinks
from .peers import peer_address
from .punts import Punts

if TYPE_CHECKING:
    from fastbridge.core.dataplane import Dataplane
    from fastbridge.core.fdb import FdbAccess

_GETLINK, _STATS64 = 18, 23
_CLONE_NEWNET, _SIOCGSKNS = 0x40000000, 0x894C
_HEADER = struct.Struct("=BxHiII")  # struct ifinfomsg
_RX_FRAMES, _TX_FRAMES, _RX_BYTES, _TX_BYTES, _RX_ERRORS, _TX_ERRORS, _RX_DROPPED, _TX_DROPPED = range(8)
_READINGS = 8  # under traffic a reading may be some frames short

Stats = Mapping[int, tuple[int, ...]]  # an interface's counts, by its index


class Receiver(NamedTuple):
    """Where the core listens for a port: how to open a socket there, and the interface's index."""

    open_socket: OpenSocket
    ifindex: int


def _enter(sock: socket.socket) -> None:
    """Take this thread into a socket's network namespace: what is attached to an interface is, by who is there."""
    fd = fcntl.ioctl(sock.fileno(), _SIOCGSKNS)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(fd, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(fd)


class Passed(NamedTuple):
    """Frames of a port that the core never saw."""

    forwarded: int  #: by the kernel
    lost: int  #: on their way to the core


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
        self._begun: dict[int, int] = {}  # of each port, what its device had received before …
        self._passed: dict[int, Passed] = {}  # … and what had passed it when that was asked last
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
            handed, received = self._stats(), self._stats()
            for index, links in ports.items():
                if links.ifindex in received and links.punt in handed:
                    self._begun[index] = received[links.ifindex][_RX_FRAMES] - sum(_handed(handed[links.punt]))
                    self._passed[index] = Passed(0, 0)

    def let_go(self, index: int) -> None:
        """Take a port's frames no more; what passed stays on record. Raises OSError."""
        self.revoke_port(index)
        with self._lock:
            if index not in self._ports:
                return
            links = self._ports[index]
            for _ in range(_READINGS):  # now none is forwarded any more, and the most is the truth
                self._note({index: links}, self._stats(links.ifindex), self._stats(links.punt))
            self.hand.detach(index)
            self._ports.pop(index)
            self._begun.pop(index, None)

    def detach(self, index: int) -> Passed:
        """Take a port's frames no more; returns what passed. Raises OSError."""
        self.let_go(index)
        with self._lock:
            return self._passed.pop(index, Passed(0, 0))

    def rename(self, index: int, name: str) -> None:
        """A port's interface has another name. Raises OSError."""
        with self._lock:
            if index in self._ports:
                self.hand.rename(index, name)
                self._ports[index] = self._ports[index]._replace(name=name)

    def remove(self, ifindex: int) -> None:
        """A port's punt pair is not needed any more, as its sockets are closed."""
        with self._lock:
            self._punts.remove([ifindex])

    def passed(self) -> dict[int, Passed]:
        """Of the frames that came in by each port, those that the core never saw."""
        with self._lock:
            self._note(self._ports, self._stats(), self._stats())
            return dict(self._passed)

    def check(self) -> None:
        """The FDB was changed from Python."""
        if self.head is not None:
            self.head.check()

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
            self._punts.remove_all()
        for netlink in {self._route, self._inner}:
            netlink.close()
        if self._inside is not None:
            self._inside.close()

    def _note(self, ports: Mapping[int, PortLinks], received: Stats, handed: Stats) -> None:
        """What came in by a port's device, less what was handed to the core: no counter costs a frame anything.

        What was handed over is read after what came in, so no frame between the two is taken for a forwarded one.
        """
        for index, links in ports.items():
            if index in self._begun and links.ifindex in received and links.punt in handed:
                taken, lost = _handed(handed[links.punt])
                forwarded = received[links.ifindex][_RX_FRAMES] - taken - lost - self._begun[index]
                self._passed[index] = Passed(max(forwarded, self._passed[index].forwarded), lost)

    def _stats(self, ifindex: int = 0) -> Stats:
        """What the kernel counted on all interfaces, or on one, if it is there."""
        ask = _HEADER.pack(0, 0, ifindex, 0, 0)
        try:
            if ifindex:
                answers = [self._route.ask(message(_GETLINK, 0, ask))]
            else:
                answers = list(self._route.dump(message(_GETLINK, NLM_F_DUMP, ask)))
        except NetlinkError as error:
            if error.errno != errno.ENODEV:
                raise
            return {}
        return {
            _HEADER.unpack_from(payload)[2]: struct.unpack_from("=8Q", value)
            for _, payload in answers
            for kind, value in attributes(payload[_HEADER.size :])
            if kind == _STATS64
        }


def _handed(punt: tuple[int, ...]) -> tuple[int, int]:
    """How many frames a punt pair took, and how many it lost."""
    return punt[_TX_FRAMES], punt[_TX_DROPPED]
