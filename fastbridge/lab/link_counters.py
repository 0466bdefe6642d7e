"""Interface counters, read cheaply.

One RTM_GETSTATS request over a raw netlink socket: some microseconds, so a tester can read them
around every trial. A full link message through a netlink library takes a hundred times as long.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
from dataclasses import dataclass

from fastbridge.errors import LabError

_NLMSG_ERROR, _RTM_GETSTATS, _NLM_F_REQUEST = 2, 94, 1
_STATS_LINK_64 = 1  # the attribute, and as 1 << (n - 1) its bit in the filter
_SIOCGIFINDEX = 0x8933
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_REQUEST = struct.Struct("=BxxxII")  # struct if_stats_msg
_COUNTERS = struct.Struct("=8Q")  # the start of struct rtnl_link_stats64


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


def interface_index(sock: socket.socket, name: str) -> int:
    """The index of an interface in the socket's namespace (any socket will do)."""
    try:
        answer = fcntl.ioctl(sock.fileno(), _SIOCGIFINDEX, struct.pack("16s24x", name.encode()))
    except OSError as error:
        raise LabError(f"there is no interface {name} (any more): {error.strerror}") from error
    return int(struct.unpack_from("=i", answer, 16)[0])


def has_interface(sock: socket.socket, name: str) -> bool:
    """Whether the socket's namespace has an interface of this name."""
    with contextlib.suppress(LabError):
        return interface_index(sock, name) > 0
    return False


def read_counters(sock: socket.socket, index: int) -> LinkCounters:
    """The counters of an interface, over a NETLINK_ROUTE socket that nobody else reads meanwhile."""
    size = _HEADER.size + _REQUEST.size
    header = _HEADER.pack(size, _RTM_GETSTATS, _NLM_F_REQUEST, 0, 0)
    sock.send(header + _REQUEST.pack(socket.AF_UNSPEC, index, 1 << (_STATS_LINK_64 - 1)))
    answer = sock.recv(8192)
    if _HEADER.unpack_from(answer)[1] == _NLMSG_ERROR:
        code = -struct.unpack_from("=i", answer, _HEADER.size)[0]
        raise LabError(f"interface {index} has no counters: {os.strerror(code)}")
    return LinkCounters(*_COUNTERS.unpack_from(answer, size + 4))  # 4: the attribute's own header
