"""The other end of a veth pair, in another network namespace, asked by rtnetlink."""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence

from fastbridge.netlink import Netlink, attributes, message, u32

_GETLINK = 18
_ADDRESS, _LINK, _LINKINFO, _STATS64, _LINK_NETNSID, _TARGET_NETNSID, _KIND = 1, 5, 18, 23, 37, 46, 1
_HEADER = struct.Struct("=BxHiII")  # struct ifinfomsg


class Peers:
    """Looks at those other ends that this process may see: it takes CAP_NET_ADMIN over their namespaces."""

    def __init__(self, netlink: Netlink) -> None:
        """netlink: a NETLINK_ROUTE socket in the namespace of the interfaces."""
        self._netlink = netlink

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def address(self, index: int) -> int | None:
        """The MAC address of a veth interface's other end, as a number; None: there is none to be seen."""
        peer = _peer(self._netlink, index)
        return int.from_bytes(bytes(peer[_ADDRESS]), "big") if _ADDRESS in peer else None

    def received(self, indices: Sequence[int]) -> dict[int, int]:
        """How many frames the other ends that are to be seen have received."""
        peers = {index: _peer(self._netlink, index) for index in indices}
        return {
            index: int.from_bytes(peer[_STATS64][:8], sys.byteorder)
            for index, peer in peers.items()
            if _STATS64 in peer
        }


def _peer(netlink: Netlink, index: int) -> dict[int, memoryview]:
    """The attributes of a veth interface's other end in another network namespace; {}: none to be seen."""
    try:
        own = _read(netlink, _HEADER.pack(0, 0, index, 0, 0))
        kind = dict(attributes(own.get(_LINKINFO, memoryview(b"")))).get(_KIND, memoryview(b""))
        if bytes(kind).rstrip(b"\0") != b"veth" or _LINK_NETNSID not in own:
            return {}
        (other,), (space,) = struct.unpack("=i", own[_LINK]), struct.unpack("=i", own[_LINK_NETNSID])
        if space < 0:  # NETNSA_NSID_NOT_ASSIGNED: its namespace is ending
            return {}
        return _read(netlink, _HEADER.pack(0, 0, other, 0, 0) + u32(_TARGET_NETNSID, space))
    except OSError:
        return {}


def _read(netlink: Netlink, request: bytes) -> dict[int, memoryview]:
    payload = netlink.ask(message(_GETLINK, 0, request)).payload
    return dict(attributes(payload[_HEADER.size :]))
