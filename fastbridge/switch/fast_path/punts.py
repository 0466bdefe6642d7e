"""Punt pairs: veth pairs by which the kernel hands frames to the core.

Each port has one pair. The kernel forwards the port's frames into one end, in the port's namespace. The core's socket
listens on the other end. Where the process may make one, that other end is in a network namespace that only this
process holds. No other process sees or hears it there, and both ends vanish with the process, SIGKILL included. Without
CAP_SYS_ADMIN over the namespace both ends are in the port's namespace. The next switch that has the port finds them by
name and removes them.
"""

from __future__ import annotations

import errno
import re
import secrets
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from fastbridge.netlink import (
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    Netlink,
    attribute,
    attributes,
    message,
    nested,
    text,
    u32,
)

_NEWLINK, _DELLINK, _GETLINK, _SETLINK = 16, 17, 18, 19
_IFNAME, _MTU, _TXQLEN, _LINKINFO, _IFALIAS, _AF_SPEC, _NET_NS_FD = 3, 4, 13, 18, 20, 26, 28
_UP, _NOARP = 0x1, 0x80
_INET6, _ADDR_GEN_MODE, _NO_ADDRESS = 10, 8, 1
# The longest a veth takes: whatever the port's MTU is or becomes, its frames fit.
_MOST_MTU = 65535
_GROUP, _GSO_MAX_SIZE, _GSO_IPV4_MAX_SIZE = 27, 41, 63
_EXT_MASK, _NO_STATS = 29, 8  # RTEXT_FILTER_SKIP_STATS
_LARGEST = 8 * 65535  # GSO_MAX_SIZE
# Of the names of outer and inner ends: a port that is taken over has two pairs, and a killed process may have left one.
_LETTERS = "oi", "pj", "qk"
_FEW = 64  # interfaces that are asked for one by one
_A_PIECE = 64  # pairs made at a time, so that their answers find room


class Punt(NamedTuple):
    """One pair."""

    name: str  #: of the end that receives the punted frames
    ifindex: int
    inner: str  #: of the end that the core listens on


class Punts:
    """Makes and removes punt pairs."""

    def __init__(self, outer: Netlink, inner: Netlink | None = None, inner_fd: int = -1) -> None:
        """outer: a NETLINK_ROUTE socket in the ports' namespace; inner: one in the namespace of the other ends.

        inner_fd: a descriptor of that namespace; None: both are the same.
        """
        self._outer, self._inner, self._inner_fd = outer, inner or outer, inner_fd
        self._letters: dict[int, str] = {}  # of the names of those to be made, by the port's index
        self._old: set[str] = set()  # outer ends from before, of ports taken over
        self._group = secrets.randbits(31) | 1 << 30  # of interfaces: these, and no other's

    def ask_by(self, outer: Netlink) -> None:
        """Use another socket in the ports' namespace."""
        self._inner = outer if self._inner is self._outer else self._inner
        self._outer = outer

    def close(self) -> None:
        """Close the sockets; the pairs stay."""
        for netlink in {self._outer, self._inner}:
            netlink.close()

    def make(self, ports: Sequence[tuple[str, int]], beside: bool = False) -> list[Punt]:
        """A pair for each port (name, index), up and silent, in their order. Raises OSError.

        beside: other switches may still have pairs for these ports, and need them until remove_old(). Else a pair that
        is there was left behind by a killed process, and is removed: no other switch has this port.
        """
        candidates = {index: {letters: f"fb{letters[0]}{index}" for letters in _LETTERS} for _, index in ports}
        known = self._known(self._outer, [name for names in candidates.values() for name in names.values()])
        self._letters.clear()
        for _, index in ports:
            there = {letters: name for letters, name in candidates[index].items() if name in known}
            if beside:
                self._old.update(there.values())
            else:
                self._remove_named(there.values())
                there.clear()
            self._letters[index] = next((letters for letters in _LETTERS if letters not in there), _LETTERS[0])
        for start in range(0, len(ports), _A_PIECE):
            self._make(ports[start : start + _A_PIECE])
        indices = self._known(self._outer, [self._outer_name(index) for _, index in ports])
        return [
            Punt(self._outer_name(index), indices[self._outer_name(index)], self._inner_name(index))
            for _, index in ports
        ]

    def inner_indices(self, names: Sequence[str]) -> dict[str, int]:
        """The indexes of the ends the core listens on, by name. Raises OSError."""
        known = self._known(self._inner, names)
        return {name: known[name] for name in names}

    def remove_old(self) -> None:
        """The switches before have ended. Raises OSError."""
        if self._inner_fd < 0:  # else theirs end with their namespaces, all at once
            self._remove_named(self._known(self._outer, list(self._old)))
        self._old.clear()

    def remove(self, punt: int) -> None:
        """Remove the pair that has this outer end, if it is still there.

        By its index, for the next switch's pair for the port has its name; and by its group, for an interface that came
        from another namespace may have its index.
        """
        if self._is_ours(punt):
            self._remove(_link(_DELLINK, 0, index=punt))

    def remove_all(self) -> None:
        """Remove all pairs at once: one by one, each takes the kernel some 10 ms."""
        self._remove(_link(_DELLINK, 0, u32(_GROUP, self._group)))

    def _is_ours(self, index: int) -> bool:
        try:
            answer = self._outer.ask(_link(_GETLINK, 0, index=index)).payload
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return False
        group = dict(attributes(answer[_HEADER.size :])).get(_GROUP, b"")
        return int.from_bytes(group, sys.byteorder) == self._group

    def _remove_named(self, names: Iterable[str]) -> None:
        for name in names:
            self._remove(_link(_DELLINK, 0, text(_IFNAME, name)))

    def _remove(self, message: bytes) -> None:
        try:
            self._outer.send([message], ["a punt pair"])
        except OSError as error:
            if error.errno != errno.ENODEV:  # it is gone
                raise

    def _make(self, ports: Sequence[tuple[str, int]]) -> None:
        self._add(ports)
        # The outer ends last: an end that is up before its carrier loses frames until the kernel notices the carrier.
        for netlink, name_of in ((self._inner, self._inner_name), (self._outer, self._outer_name)):
            names = [name_of(index) for _, index in ports]
            # First: an end that comes up gives itself an address, and then it sends frames.
            self._send(netlink, [_link(_SETLINK, 0, text(_IFNAME, name), _no_ipv6()) for name in names])
            self._send(netlink, [_link(_SETLINK, 0, text(_IFNAME, name), flags=_UP | _NOARP) for name in names])
        self._take_large(ports)

    def _take_large(self, ports: Sequence[tuple[str, int]]) -> None:
        """Hand over BIG TCP's frames whole, too, where the kernel has BIG TCP (since 5.19)."""
        sizes = u32(_GSO_MAX_SIZE, _LARGEST), u32(_GSO_IPV4_MAX_SIZE, _LARGEST)
        try:
            self._send(
                self._outer, [_link(_SETLINK, 0, text(_IFNAME, self._outer_name(index)), *sizes) for _, index in ports]
            )
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise

    def _add(self, ports: Sequence[tuple[str, int]]) -> None:
        where = [u32(_NET_NS_FD, self._inner_fd)] if self._inner_fd >= 0 else []
        made = []
        for name, index in ports:
            peer = _HEADER.pack(0, 0, 0, 0, 0) + text(_IFNAME, self._inner_name(index)) + u32(_MTU, _MOST_MTU)
            kind = nested(_LINKINFO, text(1, "veth"), nested(2, attribute(1, peer + b"".join(where))))
            alias = attribute(_IFALIAS, f"fastbridge: what is the core's, of {name}".encode())
            parts = text(_IFNAME, self._outer_name(index)), u32(_MTU, _MOST_MTU), u32(_GROUP, self._group), alias, kind
            made.append(_link(_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, *parts))
        self._outer.send(made, ["a punt pair"] * len(made))

    @staticmethod
    def _send(netlink: Netlink, messages: Sequence[bytes]) -> None:
        netlink.send(messages, ["a punt pair"] * len(messages))

    @staticmethod
    def _known(netlink: Netlink, names: Sequence[str]) -> dict[str, int]:
        """The indexes of those of these interfaces that exist, by name. Raises OSError.

        A few are asked for one by one: there may be thousands of others.
        """
        if len(names) > _FEW:
            wanted = set(names)
            return {name: index for name, index in Punts._names(netlink) if name in wanted}
        found = {name: _index_of(netlink, name) for name in names}
        return {name: index for name, index in found.items() if index}

    @staticmethod
    def _names(netlink: Netlink) -> Iterator[tuple[str, int]]:
        for _, _, payload in netlink.dump(_link(_GETLINK, NLM_F_DUMP, u32(_EXT_MASK, _NO_STATS))):
            name = next(value for kind, value in attributes(payload[_HEADER.size :]) if kind == _IFNAME)
            yield bytes(name).rstrip(b"\0").decode(errors="surrogateescape"), _HEADER.unpack_from(payload)[2]

    def _outer_name(self, index: int) -> str:
        return f"fb{self._letters[index][0]}{index}"

    def _inner_name(self, index: int) -> str:
        return self._outer_name(index) if self._inner_fd >= 0 else f"fb{self._letters[index][1]}{index}"


def is_punt_end(name: str) -> bool:
    """Whether an interface of this name is one end of a punt pair, of this switch or of another one."""
    return re.fullmatch(rf"fb[{''.join(_LETTERS)}]\d+", name) is not None


_HEADER = struct.Struct("=BxHiII")  # struct ifinfomsg


def _index_of(netlink: Netlink, name: str) -> int:
    """The index of the interface of this name; 0: there is none. Raises OSError."""
    try:
        answer = netlink.ask(_link(_GETLINK, 0, text(_IFNAME, name), u32(_EXT_MASK, _NO_STATS)))
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        return 0
    return int(_HEADER.unpack_from(answer.payload)[2])


def _link(kind: int, message_flags: int, *parts: bytes, flags: int = 0, index: int = 0) -> bytes:
    return message(kind, message_flags, _HEADER.pack(0, 0, index, flags, flags) + b"".join(parts))


def _no_ipv6() -> bytes:
    return nested(_AF_SPEC, nested(_INET6, attribute(_ADDR_GEN_MODE, bytes([_NO_ADDRESS]))))
