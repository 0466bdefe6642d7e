"""Interface counters and states, read cheaply.

One request over a raw netlink socket takes some microseconds, so a tester can read counters around every trial.
A full link message through a netlink library takes a hundred times as long.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import time
from dataclasses import dataclass

from fastbridge.errors import LabError

_NLMSG_ERROR, _RTM_GETLINK, _RTM_GETSTATS, _NLM_F_REQUEST = 2, 18, 94, 1
_STATS_LINK_64 = 1  # the attribute, and as 1 << (n - 1) its bit in the filter
_SIOCGIFINDEX = 0x8933
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_REQUEST = struct.Struct("=BxxxII")  # struct if_stats_msg
_LINK_REQUEST = struct.Struct("=BxHiII")  # struct ifinfomsg
_IFLA_OPERSTATE, _OPER_UP = 16, 6
_ATTRIBUTE = struct.Struct("=HH")
_PATIENCE, _PAUSE = 10.0, 0.001  #: seconds; the kernel may take one second to find that a link is up
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
    """The index of an interface in the socket's namespace. Any socket will do."""
    try:
        answer = fcntl.ioctl(sock.fileno(), _SIOCGIFINDEX, struct.pack("16s24x", name.encode()))
    except OSError as error:
        raise LabError(f"there is no interface {name}, or no longer: {error.strerror}") from error
    return int(struct.unpack_from("=i", answer, 16)[0])


def has_interface(sock: socket.socket, name: str) -> bool:
    """Whether the socket's namespace has an interface of this name."""
    with contextlib.suppress(LabError):
        return interface_index(sock, name) > 0
    return False


def await_up(sock: socket.socket, name: str) -> None:
    """Return when an interface is up and carries frames.

    A veth pair whose ends are up and have a carrier is not active yet. The kernel activates it in the background: up to
    a second later when both ends have the same index, each in its own namespace. A newer kernel does it at once when
    somebody asks for the link.
    """
    index = interface_index(sock, name)
    deadline = time.monotonic() + _PATIENCE
    while _operstate(sock, index) != _OPER_UP:
        if time.monotonic() > deadline:
            raise LabError(f"{name} does not come up: within {_PATIENCE:.0f} s the kernel has not activated it")
        time.sleep(_PAUSE)


def _operstate(sock: socket.socket, index: int) -> int:
    attributes = _ask(sock, index, _RTM_GETLINK, _LINK_REQUEST.pack(socket.AF_UNSPEC, 0, index, 0, 0), 65536)
    at = _HEADER.size + _LINK_REQUEST.size
    while at < len(attributes):
        size, kind = _ATTRIBUTE.unpack_from(attributes, at)
        if kind == _IFLA_OPERSTATE:
            return attributes[at + _ATTRIBUTE.size]
        at += size + 3 & ~3
    raise LabError(f"interface {index} has no state")


def read_counters(sock: socket.socket, index: int) -> LinkCounters:
    """The counters of an interface, over a NETLINK_ROUTE socket. Nobody else may read from the socket meanwhile."""
    request = _REQUEST.pack(socket.AF_UNSPEC, index, 1 << (_STATS_LINK_64 - 1))
    answer = _ask(sock, index, _RTM_GETSTATS, request, 8192)
    return LinkCounters(*_COUNTERS.unpack_from(answer, _HEADER.size + _REQUEST.size + _ATTRIBUTE.size))


def _ask(sock: socket.socket, index: int, kind: int, request: bytes, room: int) -> bytes:
    sock.send(_HEADER.pack(_HEADER.size + len(request), kind, _NLM_F_REQUEST, 0, 0) + request)
    answer = sock.recv(room)
    if _HEADER.unpack_from(answer)[1] == _NLMSG_ERROR:
        code = -struct.unpack_from("=i", answer, _HEADER.size)[0]
        raise LabError(f"interface {index} cannot be asked: {os.strerror(code)}")
    return answer
