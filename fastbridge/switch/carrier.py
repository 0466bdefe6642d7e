"""Carriers, taken from pods and given back.

veth lets nobody set its carrier (it has neither ndo_change_carrier nor protodown). But the far end of a pair loses its
carrier while the near end is switched off. The kernel then forgets what the host has there: IPv6 addresses, routes and
permanent neighbours. So they are noted before, as the kernel dumps them, and entered again afterwards, as `ip address
save` and `ip route save` do.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator

from fastbridge.forks import in_child
from fastbridge.netlink import NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, Netlink, attributes, message

_RTM_NEWLINK, _RTM_GETLINK, _RTM_NEWADDR, _RTM_GETADDR = 16, 18, 20, 22
_RTM_NEWROUTE, _RTM_GETROUTE, _RTM_NEWNEIGH, _RTM_GETNEIGH = 24, 26, 28, 30
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, kind, index, flags, which of them to change
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=8BI")  # struct rtmsg: family, lengths, tos, table, protocol, scope, type; flags
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # struct ndmsg: family, index, state, flags, type
_NEXT_HOP = struct.Struct("=HBBi")  # struct rtnexthop: length, flags, hops, index
_RTA_OIF, _RTA_GATEWAY, _RTA_MULTIPATH, _RTA_VIA = 4, 5, 9, 18
_BY_KERNEL, _BY_ROUTER, _ONLINK = 2, 9, 4  # RTPROT_KERNEL, RTPROT_RA: they come back by themselves; RTNH_F_ONLINK
_NUD_PERMANENT, _NTF_PROXY = 0x80, 0x08
_IFF_UP, _ARPHRD_ETHER = 0x1, 1

_Note = tuple[int, bytes]  # a request that enters something again: its kind, and the rest


class Carriers:
    """The carriers of one network namespace's interfaces, each by its index. For one thread at a time."""

    def __init__(self, open_socket: Callable[[int, int, int], socket.socket] = socket.socket) -> None:
        """open_socket: opens a socket in that namespace."""
        self._open_socket = open_socket
        self._kernel: Netlink | None = None
        self._taken: dict[int, dict[_Note, None]] = {}  # what the host had there
        in_child(self, Carriers._leave_to_parent)

    def take(self, index: int) -> None:
        """Take the carrier from the far end of an interface; a second call does nothing.

        Raises OSError: it is no Ethernet interface, or somebody else has switched it off.
        """
        if self._is_up(index):
            notes = dict.fromkeys(self._notes(index))
            self._switch(index, 0)
            self._taken[index] = self._taken.get(index, {}) | notes
        elif index not in self._taken:
            raise OSError(errno.ENETDOWN, "somebody else has switched it off")

    def give_back(self, index: int) -> list[str]:
        """Give back what take() took; returns what the host had there and cannot have again, each with the reason.

        Raises OSError: there is no such interface any more, or somebody else has switched it off.
        """
        notes = self._taken.pop(index, None)
        if notes is None:
            if not self._is_up(index):
                raise OSError(errno.ENETDOWN, "somebody else has switched it off")
            return []
        self._switch(index, _IFF_UP)
        return [text for note in notes if (text := self._enter(*note))]

    def close(self) -> None:
        """Give all back."""
        for index in list(self._taken):
            try:
                self.give_back(index)
            except OSError:  # it is gone: there is nothing to be put right
                continue
        self._leave_to_parent()

    def _leave_to_parent(self) -> None:
        self._taken = {}
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None

    @property
    def _netlink(self) -> Netlink:
        if self._kernel is None:
            self._kernel = Netlink(self._open_socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE))
        return self._kernel

    def _is_up(self, index: int) -> bool:
        answer = self._netlink.ask(message(_RTM_GETLINK, 0, _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0)))
        _, kind, _, flags, _ = _LINK.unpack_from(answer.payload)
        if kind != _ARPHRD_ETHER:
            raise OSError(errno.EINVAL, "it is not an Ethernet interface")
        return bool(flags & _IFF_UP)

    def _switch(self, index: int, flags: int) -> None:
        body = _LINK.pack(socket.AF_UNSPEC, 0, index, flags, _IFF_UP)
        self._netlink.send([message(_RTM_NEWLINK, 0, body)], ["the interface"])

    def _notes(self, index: int) -> Iterator[_Note]:
        """What the kernel forgets of an interface that is switched off, in the order in which it can be entered."""
        addresses = list(self._dump(_RTM_GETADDR, _ADDRESS.pack(socket.AF_INET6, 0, 0, 0, 0)))
        for answer in reversed(addresses):  # the kernel has the newest first
            if _ADDRESS.unpack_from(answer)[-1] == index:
                yield _RTM_NEWADDR, answer
        routes = []
        for family in (socket.AF_INET, socket.AF_INET6):
            for answer in self._dump(_RTM_GETROUTE, _ROUTE.pack(family, *[0] * 8)):
                *head, flags = _ROUTE.unpack_from(answer)
                found = {kind: bytes(value) for kind, value in attributes(answer[_ROUTE.size :])}
                if head[5] not in (_BY_KERNEL, _BY_ROUTER) and index in _interfaces(found):
                    hops = bool(found.keys() & {_RTA_GATEWAY, _RTA_MULTIPATH, _RTA_VIA})
                    routes.append((hops, _ROUTE.pack(*head, flags & _ONLINK) + answer[_ROUTE.size :]))
        for _, route in sorted(routes, key=lambda one: one[0]):  # a gateway must be reachable
            yield _RTM_NEWROUTE, route
        for flags in (0, _NTF_PROXY):
            for answer in self._dump(_RTM_GETNEIGH, _NEIGHBOUR.pack(socket.AF_UNSPEC, 0, 0, flags, 0)):
                _, at, state, kind, _ = _NEIGHBOUR.unpack_from(answer)
                if at == index and (state & _NUD_PERMANENT or kind & _NTF_PROXY):
                    yield _RTM_NEWNEIGH, answer

    def _dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        return (bytes(answer.payload) for answer in self._netlink.dump(message(kind, NLM_F_DUMP, body)))

    def _enter(self, kind: int, body: bytes) -> str:
        """Enter it again, where it is not there by now; returns why that cannot be, or ""."""
        what = {_RTM_NEWADDR: "an IPv6 address", _RTM_NEWROUTE: "a route", _RTM_NEWNEIGH: "a neighbour"}[kind]
        try:
            self._netlink.send([message(kind, NLM_F_CREATE | NLM_F_EXCL, body)], [what])
        except OSError as error:
            return "" if error.errno == errno.EEXIST else f"{what} ({os.strerror(error.errno or 0)})"
        return ""


def _interfaces(route: dict[int, bytes]) -> set[int]:
    """The interfaces that a route leads to, by its attributes."""
    found = {int(struct.unpack("=i", route[_RTA_OIF])[0])} if _RTA_OIF in route else set()
    hops = route.get(_RTA_MULTIPATH, b"")
    while len(hops) >= _NEXT_HOP.size:
        length, _, _, index = _NEXT_HOP.unpack_from(hops)
        if length < _NEXT_HOP.size:
            break
        found.add(index)
        hops = hops[(length + 3) & ~3 :]
    return found
