"""Links, looked at and followed.

Asks the kernel about the interfaces of one network namespace, over rtnetlink: one socket asks, one hears of changes. An
interface is its index. Its name and altnames are resolved once, here, and may change afterwards. The formats are in
rtnetlink(7), <linux/if_link.h> and Documentation/netlink/specs/rt-link.yaml.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from fastbridge.errors import PortError

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK, _RTM_NEWSTATS, _RTM_GETSTATS = 16, 17, 18, 92, 94
_RTM_NEWQDISC, _RTM_DELQDISC, _RTM_GETQDISC = 36, 37, 38
_NLMSG_ERROR, _NLMSG_DONE, _NLM_F_REQUEST, _NLM_F_DUMP = 2, 3, 0x1, 0x300
_GROUPS = 1 | 8  # RTMGRP_LINK, RTMGRP_TC
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_QDISC, _IFLA_MASTER, _IFLA_OPERSTATE = 1, 3, 4, 6, 10, 16
_IFLA_STATS64, _IFLA_CARRIER, _IFLA_NEW_NETNSID, _IFLA_NEW_IFINDEX, _IFLA_ALT_IFNAME = 23, 33, 45, 49, 53
_IFLA_CARRIER_DOWN_COUNT = 48
_STATS_LINK_64 = 1  # an attribute of RTM_NEWSTATS, and as 1 << (n - 1) its bit in the filter
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
_STATS = struct.Struct("=BxxxII")  # struct if_stats_msg
_COUNTERS = struct.Struct("=8Q")  # the start of struct rtnl_link_stats64; tx_dropped is the last
_TC = struct.Struct("=BxxxIIII")  # struct tcmsg: family, ifindex, handle, parent, info
_TCA_STATS2, _TCA_STATS_QUEUE, _TC_ROOT = 7, 3, 0xFFFFFFFF
_QUEUE = struct.Struct("=5I")  # struct gnet_stats_queue: qlen, backlog, drops, requeues, overlimits
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr
_IFF_UP, _IFF_RUNNING, _ARPHRD_ETHER = 0x1, 0x40, 1
_OPER_DOWN, _OPER_LOWER_DOWN = 2, 3
_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
_NAME_BYTES = 15  # the longest name; an altname has up to 127
_ANSWER_BYTES = 1 << 16
# Changes not yet read: each some 1,200 bytes, charged as 2,304. Room for those of 1,000 links at once; what does not
# fit is noticed, and all links are looked at.
_BUFFER_BYTES = 4 << 20


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
        self._number = 0
        self._requests = open_socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        try:
            self._events = open_socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        except BaseException:
            self._requests.close()
            raise
        self._events.setblocking(False)
        self._events.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        self._events.bind((0, _GROUPS))

    def fileno(self) -> int:
        """Readable when there are changes."""
        return self._events.fileno()

    def close(self) -> None:
        """Close the sockets."""
        self._requests.close()
        self._events.close()

    def look(self, which: str | int) -> Link | None:
        """The interface of this index, name or altname; None: there is none. Raises PortError."""
        attributes = b""
        if isinstance(which, str):
            name = os.fsencode(which)
            attributes = _attribute(_IFLA_IFNAME if len(name) <= _NAME_BYTES else _IFLA_ALT_IFNAME, name + b"\0")
        body = _LINK.pack(socket.AF_UNSPEC, 0, which if isinstance(which, int) else 0, 0, 0) + attributes
        try:
            answer = self._ask(_RTM_GETLINK, body)
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.EINVAL, errno.ERANGE, errno.ENOENT):
                return None
            raise PortError(f"cannot look at interface {which}: {error.strerror}") from None
        return next(iter(_links(answer)), None)

    def tx_dropped(self) -> dict[int, int]:
        """How many frames each interface has lost on sending since it was made, by index. Raises PortError."""
        found = {}
        try:
            for answer in self._dump(_RTM_GETSTATS, _STATS.pack(socket.AF_UNSPEC, 0, 1 << (_STATS_LINK_64 - 1))):
                for kind, start, end in _messages(answer):
                    if kind == _RTM_NEWSTATS:
                        attributes = dict(_attributes(answer, start + _STATS.size, end))
                        index = _STATS.unpack_from(answer, start)[1]
                        found[index] = _tx_dropped(attributes.get(_STATS_LINK_64))
        except OSError as error:
            raise PortError(f"cannot read the interfaces' counters: {error.strerror}") from None
        return found

    def queue_drops(self) -> dict[int, tuple[int, int]]:
        """The handle and the drops of each interface's outermost queueing discipline, by index. Raises PortError."""
        found = {}
        try:
            for answer in self._dump(_RTM_GETQDISC, _TC.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
                for kind, start, end in _messages(answer):
                    if kind == _RTM_NEWQDISC:
                        _, index, handle, parent, _ = _TC.unpack_from(answer, start)
                        nested = dict(_attributes(answer, start + _TC.size, end)).get(_TCA_STATS2, b"")
                        queue = dict(_attributes(nested, 0, len(nested))).get(_TCA_STATS_QUEUE)
                        if parent == _TC_ROOT and queue:
                            found[index] = handle, _QUEUE.unpack_from(queue)[2]
        except OSError as error:
            raise PortError(f"cannot read the interfaces' queues: {error.strerror}") from None
        return found

    def changes(self, known: Iterable[int]) -> Iterator[Link]:
        """The changes since the last call, in order. When there are too many, looks at all `known` links instead."""
        known, asked = set(known), set()
        lost = False  # the kernel says so first; the changes that it kept are older than a look
        while True:
            try:
                data = self._events.recv(_ANSWER_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise PortError(f"cannot hear of links that change: {error.strerror}") from None
                lost = True
            else:
                yield from _links(data)
                asked |= _queues(data)  # they say nothing about the link
        for index in known if lost else known & asked:
            yield self.look(index) or Link(index, "", 0, 0, b"", 0, 0, 0, False, "deleted")

    def _ask(self, kind: int, body: bytes) -> bytes:
        with self._asking:
            self._number += 1
            self._request(kind, _NLM_F_REQUEST, body)
            return self._answer()[0]

    def _dump(self, kind: int, body: bytes) -> list[bytes]:
        answers = []
        with self._asking:
            self._request(kind, _NLM_F_REQUEST | _NLM_F_DUMP, body)
            while True:
                answer, last = self._answer()
                answers.append(answer)
                if last:
                    return answers

    def _request(self, kind: int, flags: int, body: bytes) -> None:
        self._number += 1
        self._requests.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, self._number, 0) + body)

    def _answer(self) -> tuple[bytes, bool]:
        """The next answer to the last request, and whether it ends a dump. Raises OSError."""
        while True:
            answer = self._requests.recv(_ANSWER_BYTES)
            if _HEADER.unpack_from(answer)[3] == self._number:  # else it is of a request that was given up
                break
        kinds = [kind for kind, _, _ in _messages(answer)]
        if kinds[0] == _NLMSG_ERROR:
            code = -struct.unpack_from("=i", answer, _HEADER.size)[0]
            raise OSError(code, os.strerror(code))
        return answer, kinds[-1] == _NLMSG_DONE


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _links(data: bytes) -> Iterator[Link]:
    """The links that some netlink messages speak of; bridges speak of their ports in a family of their own."""
    for kind, start, end in _messages(data):
        if kind in (_RTM_NEWLINK, _RTM_DELLINK):
            family, arphrd, index, flags, _ = _LINK.unpack_from(data, start)
            if family == socket.AF_UNSPEC:
                found = dict(_attributes(data, start + _LINK.size, end))
                yield _link(kind == _RTM_DELLINK, arphrd, index, flags, found)


def _queues(data: bytes) -> set[int]:
    """The interfaces whose queueing disciplines some netlink messages speak of."""
    told = (start for kind, start, _ in _messages(data) if kind in (_RTM_NEWQDISC, _RTM_DELQDISC))
    return {_TC.unpack_from(data, start)[1] for start in told}


def _messages(data: bytes) -> Iterator[tuple[int, int, int]]:
    """The kind of each netlink message, and where what is behind its header starts and ends."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
        yield kind, offset + _HEADER.size, offset + length
        offset += length + -length % 4


def _attributes(data: bytes, offset: int, end: int) -> Iterator[tuple[int, bytes]]:
    while offset + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        yield kind & _TYPE_MASK, data[offset + _ATTRIBUTE.size : offset + length]
        offset += length + -length % 4


def _link(deleted: bool, arphrd: int, index: int, flags: int, found: dict[int, bytes]) -> Link:
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
        "" if not deleted else "moved" if moved else "deleted",
        found.get(_IFLA_QDISC, b"").rstrip(b"\0").decode("ascii", "replace"),
        _number(found.get(_IFLA_CARRIER_DOWN_COUNT)),
        _tx_dropped(found.get(_IFLA_STATS64)),
    )


def _tx_dropped(counters: bytes | None) -> int:
    return int(_COUNTERS.unpack_from(counters)[-1]) if counters else 0


def _number(value: bytes | None) -> int:
    return int.from_bytes(value or b"", "little" if struct.pack("=H", 1)[0] else "big")
