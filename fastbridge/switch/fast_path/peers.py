"""Who is at the other end of a veth pair, asked by rtnetlink."""

from __future__ import annotations

import struct

from fastbridge.netlink import Netlink, attributes, message, u32

_GETLINK = 18
_ADDRESS, _LINK, _LINKINFO, _LINK_NETNSID, _TARGET_NETNSID, _KIND = 1, 5, 18, 37, 46, 1
_HEADER = struct.Struct("=BxHiII")  # struct ifinfomsg


def peer_address(netlink: Netlink, index: int) -> int | None:
    """The MAC address of a veth interface's other end in another network namespace, as a number; None: there is none,
    or we may not look (it takes CAP_NET_ADMIN over that namespace).
    """
    try:
        own = _read(netlink, _HEADER.pack(0, 0, index, 0, 0))
        kind = dict(attributes(own.get(_LINKINFO, memoryview(b"")))).get(_KIND, memoryview(b""))
        if bytes(kind).rstrip(b"\0") != b"veth" or _LINK_NETNSID not in own:
            return None
        (other,), (space,) = struct.unpack("=i", own[_LINK]), struct.unpack("=i", own[_LINK_NETNSID])
        peer = _read(netlink, _HEADER.pack(0, 0, other, 0, 0) + u32(_TARGET_NETNSID, space))
    except OSError:
        return None
    return int.from_bytes(bytes(peer[_ADDRESS]), "big") if _ADDRESS in peer else None


def _read(netlink: Netlink, request: bytes) -> dict[int, memoryview]:
    payload = netlink.ask(message(_GETLINK, 0, request)).payload
    return dict(attributes(payload[_HEADER.size :]))
