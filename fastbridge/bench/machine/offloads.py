"""Offloads of an interface.

What `ethtool -k` shows and `ethtool -K` sets, by the older ioctl. The work that a sender leaves to the interface
decides how large a switch's frames are, so no TCP number means anything without it.
"""

from __future__ import annotations

import ctypes
import fcntl
import socket

from fastbridge.errors import BenchError
from fastbridge.lab.topology import Lab

_SIOCETHTOOL = 0x8946
# linux/ethtool.h: ETHTOOL_GRXCSUM, …; `ethtool -K` takes these names. The number to set is one more than that to get.
_GET = {"rx": 0x14, "tx": 0x16, "sg": 0x18, "tso": 0x1E, "gso": 0x23, "gro": 0x2B}
# These let frames above the MTU, or with pending checksums, reach a switch. Each needs those after it.
_UNFINISHED = ("tso", "gso", "gro", "tx")


class _Value(ctypes.Structure):  # struct ethtool_value
    _fields_ = (("cmd", ctypes.c_uint32), ("data", ctypes.c_uint32))


class _Request(ctypes.Structure):  # struct ifreq, as long as the kernel copies it
    _fields_ = (("name", ctypes.c_char * 16), ("data", ctypes.c_void_p), ("rest", ctypes.c_char * 16))


def read_offloads(sock: socket.socket, interface: str) -> str:
    """The features of an interface in the socket's namespace, as "rx on, tx on, …"."""
    return ", ".join(f"{name} {_read(sock, interface, command)}" for name, command in _GET.items())


def turn_off_offloads(lab: Lab) -> None:
    """Make pods finish their frames: checksums and segmentation are done before the veth pair.

    This sets both ends of every pair; it raises BenchError where the kernel refuses.
    """
    for pod in lab:
        for end, namespace in ((pod, pod.namespace), (pod.port, lab.namespace)):
            with namespace.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                for name in _UNFINISHED:
                    try:
                        _ioctl(sock, end.interface, _Value(_GET[name] + 1, 0))
                    except OSError as error:
                        raise BenchError(f"{end.interface}: cannot turn {name} off: {error.strerror}") from error


def _read(sock: socket.socket, interface: str, command: int) -> str:
    value = _Value(command, 0)
    try:
        _ioctl(sock, interface, value)
    except OSError:
        return "unknown"
    return "on" if value.data else "off"


def _ioctl(sock: socket.socket, interface: str, value: _Value) -> None:
    fcntl.ioctl(sock.fileno(), _SIOCETHTOOL, _Request(interface.encode(), ctypes.addressof(value), b""))
