"""Links, looked at and followed.

Asks the kernel about the interfaces of one network namespace, over rtnetlink: one socket asks, one hears of changes. An
interface is its index. Its name and altnames are resolved once, here, and may change afterwards. The formats are in
rtnetlink(7), <linux/if_link.h> and Documentation/netlink/specs/rt-link.yaml.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field

from fastbridge.errors import PortError
from fastbridge.netlink import NLM_F_DUMP, PIECE, Message, Netlink, attributes, message, messages, text

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK, _RTM_NEWSTATS, _RTM_GETSTATS = 16, 17, 18, 92, 94
_RTM_NEWQDISC, _RTM_DELQDISC, _RTM_GETQDISC = 36, 37, 38
_GROUPS = 1 | 8  # RTMGRP_LINK, RTMGRP_TC
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_QDISC, _IFLA_MASTER, _IFLA_OPERSTATE = 1, 3, 4, 6, 10, 16
_IFLA_STATS64, _IFLA_CARRIER, _IFLA_NEW_NETNSID, _IFLA_NEW_IFINDEX, _IFLA_ALT_IFNAME = 23, 33, 45, 49, 53
_IFLA_CARRIER_DOWN_COUNT = 48
_STATS_LINK_64 = 1  # an attribute of RTM_NEWSTATS, and as 1 << (n - 1) its bit in the filter
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
_STATS = struct.Struct("=BxxxII")  # struct if_stats_msg
_COUNTERS = struct.Struct("=8Q")  # the start of struct rtnl_link_stats64
_TC = struct.Struct("=BxxxIIII")  # struct tcmsg: family, ifindex, handle, parent, info
_TCA_STATS2, _TCA_STATS_QUEUE, _TC_ROOT = 7, 3, 0xFFFFFFFF
_QUEUE = struct.Struct("=5I")  # struct gnet_stats_queue: qlen, backlog, drops, requeues, overlimits
_IFF_UP, _IFF_RUNNING, _ARPHRD_ETHER = 0x1, 0x40, 1
_OPER_DOWN, _OPER_LOWER_DOWN = 2, 3
_SO_ATTACH_FILTER = 26
_LOAD, _EQUAL, _RETURN, _ALL = 0x20, 0x15, 0x06, 0xFFFFFFFF  # classic BPF: ld [k], jeq, ret
_INDEX_AT = 20  # behind struct nlmsghdr, in struct ifinfomsg and in struct tcmsg
_MOST_TOLD_APART = 200  # a jump goes over 255 steps
_NAME_BYTES = 15  # the longest name; an altname has up to 127
# Changes not yet read: each some 1,200 bytes, charged as 2,304. Room for those of 1,000 links at once; what does not
# fit is noticed, and all links are looked at.
_BUFFER_BYTES = 4 << 20
_FEW = 32  # interfaces whose counts are asked for one by one


@dataclass(frozen=True, slots=True)
class LinkCounters:
    """What the kernel counted on one interface; a GSO frame of 64 KB is one frame."""

    rx_frames: int
    tx_frames: int
    rx_bytes: int
    tx_bytes: int
    rx_errors: int
    tx_errors: int
    rx_dropped: int
    tx_dropped: int


@dataclass(frozen=True, slots=True)
class Link:
    """An interface, as the kernel described it at some time."""

    index: int
    name: str
    kind: int  # ARPHRD_…
    flags: int  # IFF_…
    mac: bytes
    mtu: int
    master: int  # the index of the bridge, bond, … it belongs to; 0: none
    operstate: int  # IF_OPER_…
    carrier: bool
    #: "" while it is there; "deleted"; "moved" to another network namespace
    gone: str = ""
    queue: str = ""  # the kind of its queueing discipline
    falls: int = 0  # how often it has lost its carrier since it was made
    tx_dropped: int = field(default=0, compare=False)  # frames that it lost on sending since it was made

    @property
    def ethernet(self) -> bool:
        """Whether its frames are Ethernet frames."""
        return self.kind == _ARPHRD_ETHER

    @property
    def up(self) -> bool:
        """Whether it is switched on, with or without a carrier."""
        return bool(self.flags & _IFF_UP)

    @property
    def running(self) -> bool:
        """Whether frames pass: it is up, and the kernel has acted on its carrier (RFC 2863: up, or unknown)."""
        return bool(self.flags & _IFF_UP and self.flags & _IFF_RUNNING)

    @property
    def starting(self) -> bool:
        """Whether the kernel will act on its carrier within milliseconds. Until then it sends nothing."""
        return self.up and self.carrier and not self.running and self.operstate in (_OPER_DOWN, _OPER_LOWER_DOWN)


class LinkWatch:
    """The links of one network namespace. Any thread may call look(), only one may call changes()."""

    def __init__(self, open_socket: Callable[[int, int, int], socket.socket] = socket.socket) -> None:
        """open_socket: opens a socket in the namespace, as `socket.socket` does in the current one."""
        self._asking = threading.Lock()
        self._questions = Netlink(open_socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE))
        try:
            self._events = open_socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        except BaseException:
            self._questions.close()
            raise
        self._events.setblocking(False)
        self._events.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        self._events.bind((0, _GROUPS))

    def fileno(self) -> int:
        """Readable when there are changes."""
        return self._events.fileno()

    def hear_of(self, indices: Collection[int]) -> None:
        """From now on hear of changes of these interfaces, and of others only where they are too many to tell apart.

        In a process of many switches each would hear of the interfaces of all.
        """
        program = _only(indices) if len(indices) <= _MOST_TOLD_APART else [(_RETURN, 0, 0, _ALL)]
        code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
        fprog = struct.pack("HP", len(program), ctypes.addressof(code))  # struct sock_fprog
        self._events.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)

    def close(self) -> None:
        """Close the sockets."""
        self._questions.close()
        self._events.close()

    def look(self, which: str | int) -> Link | None:
        """The interface of this index, name or altname; None: there is none. Raises PortError."""
        by_name = b""
        if isinstance(which, str):
            by_name = text(_IFLA_IFNAME if len(os.fsencode(which)) <= _NAME_BYTES else _IFLA_ALT_IFNAME, which)
        body = _LINK.pack(socket.AF_UNSPEC, 0, which if isinstance(which, int) else 0, 0, 0) + by_name
        try:
            with self._asking:
                answer = self._questions.ask(message(_RTM_GETLINK, 0, body))
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.EINVAL, errno.ERANGE, errno.ENOENT):
                return None
            raise PortError(f"cannot look at interface {which}: {error.strerror}") from None
        return _link(answer.kind, answer.payload)

    def links(self) -> list[Link]:
        """All interfaces there are. Raises PortError."""
        found = self._dump(_RTM_GETLINK, _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0), "names")
        return [link for payload in found if (link := _link(_RTM_NEWLINK, payload))]

    def tx_dropped(self, indices: Collection[int]) -> dict[int, int]:
        """How many frames these interfaces have lost on sending since they were made, by index. Raises PortError."""
        try:
            with self._asking:
                return {index: counts.tx_dropped for index, counts in read_counts(self._questions, indices).items()}
        except OSError as error:
            raise PortError(f"cannot read the interfaces' counters: {error.strerror}") from None

    def queue_drops(self) -> dict[int, tuple[int, int]]:
        """The handle and the drops of each interface's outermost queueing discipline, by index. Raises PortError."""
        found = {}
        for answer in self._dump(_RTM_GETQDISC, _TC.pack(socket.AF_UNSPEC, 0, 0, 0, 0), "queues"):
            _, index, handle, parent, _ = _TC.unpack_from(answer)
            stats = dict(attributes(answer[_TC.size :])).get(_TCA_STATS2, b"")
            queue = dict(attributes(stats)).get(_TCA_STATS_QUEUE)
            if parent == _TC_ROOT and queue:
                found[index] = handle, _QUEUE.unpack_from(queue)[2]
        return found

    def changes(self, known: Iterable[int], *, all_there: bool = False) -> Iterator[Link]:
        """The changes since the last call, in order. When there are too many, looks at all `known` links instead.

        all_there: and at all others that there are.
        """
        known, asked = set(known), set()
        lost = False  # the kernel says so first; the changes that it kept are older than a look
        while True:
            try:
                data = self._events.recv(PIECE)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise PortError(f"cannot hear of links that change: {error.strerror}") from None
                lost = True
            else:
                yield from _links(data)
                asked |= _queues(data)  # they say nothing about the link
        if lost and all_there:
            known.update(link.index for link in self.links())
        for index in known if lost else known & asked:
            if link := self.look(index):
                yield link
            elif lost:  # its last message may be lost, too; without a loss it waits to be read, with the last counts
                yield Link(index, "", 0, 0, b"", 0, 0, 0, False, "deleted")

    def _dump(self, kind: int, body: bytes, what: str) -> list[memoryview]:
        try:
            with self._asking:
                return [answer.payload for answer in self._questions.dump(message(kind, NLM_F_DUMP, body))]
        except OSError as error:
            raise PortError(f"cannot read the interfaces' {what}: {error.strerror}") from None


def _only(indices: Collection[int]) -> list[tuple[int, int, int, int]]:
    """Classic BPF, each step (code, jt, jf, k): messages about these interfaces. All have the index at one place."""
    wanted = [int.from_bytes(index.to_bytes(4, sys.byteorder), "big") for index in indices]
    tests = [(_EQUAL, len(wanted) - place, 0, index) for place, index in enumerate(wanted)]
    return [(_LOAD, 0, 0, _INDEX_AT), *tests, (_RETURN, 0, 0, 0), (_RETURN, 0, 0, _ALL)]


def read_counts(netlink: Netlink, indices: Collection[int]) -> dict[int, LinkCounters]:
    """The counts of those of these interfaces that exist, by index; others may be among them. Raises OSError.

    By RTM_GETSTATS: with 1,000 pods, a dump of the links themselves takes ten times as long. A few are asked for one by
    one: there may be thousands of others.
    """
    if len(indices) > _FEW:
        answers = netlink.dump(_stats_request(0, NLM_F_DUMP))
    else:
        answers = (answer for index in indices if (answer := _ask_stats(netlink, index)))
    return {
        _STATS.unpack_from(payload)[1]: LinkCounters(*_COUNTERS.unpack_from(value))
        for _, _, payload in answers
        for kind, value in attributes(payload[_STATS.size :])
        if kind == _STATS_LINK_64
    }


def _ask_stats(netlink: Netlink, index: int) -> Message | None:
    try:
        return netlink.ask(_stats_request(index))
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        return None


def _stats_request(index: int, flags: int = 0) -> bytes:
    return message(_RTM_GETSTATS, flags, _STATS.pack(socket.AF_UNSPEC, index, 1 << (_STATS_LINK_64 - 1)))


def _links(data: bytes) -> Iterator[Link]:
    """The links that some netlink messages speak of."""
    for kind, _, payload in messages(data):
        if kind in (_RTM_NEWLINK, _RTM_DELLINK) and (link := _link(kind, payload)):
            yield link


def _queues(data: bytes) -> set[int]:
    """The interfaces whose queueing disciplines some netlink messages speak of."""
    told = (payload for kind, _, payload in messages(data) if kind in (_RTM_NEWQDISC, _RTM_DELQDISC))
    return {_TC.unpack_from(payload)[1] for payload in told}


def _link(kind: int, payload: memoryview) -> Link | None:
    """The link that a message speaks of; None: it is a bridge's, in a family of its own, about one of its ports."""
    family, arphrd, index, flags, _ = _LINK.unpack_from(payload)
    if family != socket.AF_UNSPEC:
        return None
    found = {one: bytes(value) for one, value in attributes(payload[_LINK.size :])}
    moved = _IFLA_NEW_NETNSID in found or _IFLA_NEW_IFINDEX in found
    return Link(
        index,
        os.fsdecode(found.get(_IFLA_IFNAME, b"").rstrip(b"\0")),
        arphrd,
        flags,
        found.get(_IFLA_ADDRESS, b""),
        _number(found.get(_IFLA_MTU)),
        _number(found.get(_IFLA_MASTER)),
        (found.get(_IFLA_OPERSTATE) or b"\0")[0],
        bool((found.get(_IFLA_CARRIER) or b"\1")[0]),
        "" if kind != _RTM_DELLINK else "moved" if moved else "deleted",
        found.get(_IFLA_QDISC, b"").rstrip(b"\0").decode("ascii", "replace"),
        _number(found.get(_IFLA_CARRIER_DOWN_COUNT)),
        _tx_dropped(found.get(_IFLA_STATS64)),
    )


def _tx_dropped(counters: bytes | None) -> int:
    return LinkCounters(*_COUNTERS.unpack_from(counters)).tx_dropped if counters else 0


def _number(value: bytes | None) -> int:
    return int.from_bytes(value or b"", "little" if struct.pack("=H", 1)[0] else "big")
