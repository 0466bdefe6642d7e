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

from fastbridge.errors import LabError
from fastbridge.link_watch import LinkCounters
from fastbridge.netlink import PIECE, attributes, message, messages

_NLMSG_ERROR, _RTM_GETLINK, _RTM_GETSTATS = 2, 18, 94
_STATS_LINK_64 = 1  # the attribute; its bit in the filter is 1 << (n - 1)
_SIOCGIFINDEX = 0x8933
_REQUEST = struct.Struct("=BxxxII")  # struct if_stats_msg
_LINK_REQUEST = struct.Struct("=BxHiII")  # struct ifinfomsg
_IFLA_OPERSTATE, _OPER_UP = 16, 6
_PATIENCE, _PAUSE = 10.0, 0.001  #: seconds; the kernel may take one second to find that a link is up
_COUNTERS = struct.Struct("=8Q")  # the start of struct rtnl_link_stats64


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
    answer = _ask(sock, index, _RTM_GETLINK, _LINK_REQUEST.pack(socket.AF_UNSPEC, 0, index, 0, 0))
    for kind, value in attributes(answer[_LINK_REQUEST.size :]):
        if kind == _IFLA_OPERSTATE:
            return value[0]
    raise LabError(f"interface {index} has no state")


def read_counters(sock: socket.socket, index: int) -> LinkCounters:
    """The counters of an interface, over a NETLINK_ROUTE socket. Nobody else may read from the socket meanwhile."""
    request = _REQUEST.pack(socket.AF_UNSPEC, index, 1 << (_STATS_LINK_64 - 1))
    answer = _ask(sock, index, _RTM_GETSTATS, request)
    return LinkCounters(*_COUNTERS.unpack(dict(attributes(answer[_REQUEST.size :]))[_STATS_LINK_64][: _COUNTERS.size]))


def _ask(sock: socket.socket, index: int, kind: int, request: bytes) -> memoryview:
    sock.send(message(kind, 0, request))
    answer = next(messages(sock.recv(PIECE)))
    if answer.kind == _NLMSG_ERROR:
        code = -struct.unpack_from("=i", answer.payload)[0]
        raise LabError(f"interface {index} cannot be asked: {os.strerror(code)}")
    return answer.payload
