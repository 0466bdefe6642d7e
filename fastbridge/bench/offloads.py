"""Offloads of an interface.

What `ethtool -k` shows, by its older ioctl: which work a sender leaves to the interface decides how
large the frames are that a switch meets, so no TCP number means anything without it.
"""

from __future__ import annotations

import ctypes
import fcntl
import socket

_SIOCETHTOOL = 0x8946
# linux/ethtool.h: ETHTOOL_GRXCSUM, …; the names are those that `ethtool -K` takes
_GET = {"rx": 0x14, "tx": 0x16, "sg": 0x18, "tso": 0x1E, "gso": 0x23, "gro": 0x2B}


class _Value(ctypes.Structure):  # struct ethtool_value
    _fields_ = (("cmd", ctypes.c_uint32), ("data", ctypes.c_uint32))


class _Request(ctypes.Structure):  # struct ifreq, as long as the kernel copies it
    _fields_ = (("name", ctypes.c_char * 16), ("data", ctypes.c_void_p), ("rest", ctypes.c_char * 16))


def read_offloads(sock: socket.socket, interface: str) -> str:
    """The features of an interface in the socket's namespace, as "rx on, tx on, …"."""
    return ", ".join(f"{name} {_read(sock, interface, command)}" for name, command in _GET.items())


def _read(sock: socket.socket, interface: str, command: int) -> str:
    value = _Value(command, 0)
    request = _Request(interface.encode(), ctypes.addressof(value), b"")
    try:
        fcntl.ioctl(sock.fileno(), _SIOCETHTOOL, request)
    except OSError:
        return "unknown"
    return "on" if value.data else "off"
