"""The other end of a veth pair, in another network namespace, asked by rtnetlink."""

from __future__ import annotations

import struct
import sys

from fastbridge.netlink import Netlink, attributes, message, u32

_GETLINK = 18
_ADDRESS, _LINK, _LINKINFO, _STATS64, _LINK_NETNSID, _TARGET_NETNSID, _KIND = 1, 5, 18, 23, 37, 46, 1
_HEADER = struct.Struct("=BxHiII")  # struct ifinfomsg


def peer_address(netlink: Netlink, index: int) -> int | None:
    """The MAC address of a veth interface's other end in another network namespace, as a number.

    None: there is none, or this process may not look (it takes CAP_NET_ADMIN over that namespace).
    """
    peer = _peer(netlink, index)
    return int.from_bytes(bytes(peer[_ADDRESS]), "big") if _ADDRESS in peer else None


def peer_received(netlink: Netlink, index: int) -> int | None:
    """How many frames the other end has received; None: there is none to be seen."""
    peer = _peer(netlink, index)
    return int.from_bytes(peer[_STATS64][:8], sys.byteorder) if _STATS64 in peer else None


def _peer(netlink: Netlink, index: int) -> dict[int, memoryview]:
    """The attributes of a veth interface's other end in another network namespace; {}: none to be seen."""
    try:
        own = _read(netlink, _HEADER.pack(0, 0, index, 0, 0))
        kind = dict(attributes(own.get(_LINKINFO, memoryview(b"")))).get(_KIND, memoryview(b""))
        if bytes(kind).rstrip(b"\0") != b"veth" or _LINK_NETNSID not in own:
            return {}
        (other,), (space,) = struct.unpack("=i", own[_LINK]), struct.unpack("=i", own[_LINK_NETNSID])
        return _read(netlink, _HEADER.pack(0, 0, other, 0, 0) + u32(_TARGET_NETNSID, space))
    except OSError:
        return {}


def _read(netlink: Netlink, request: bytes) -> dict[int, memoryview]:
    payload = netlink.ask(message(_GETLINK, 0, request)).payload
    return dict(attributes(payload[_HEADER.size :]))
