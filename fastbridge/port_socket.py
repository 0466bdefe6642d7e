"""Port sockets, opened ready.

Two AF_PACKET sockets a port, for RX and for TX, from the standard library's `socket`. The facts behind each option
are in packet(7), Documentation/networking/packet_mmap.rst and DESIGN §5; values without a name in `socket`
are from <linux/if_packet.h>, <linux/sockios.h>, <linux/ethtool.h>, <linux/if.h> and <asm-generic/socket.h>.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from .addresses import MacAddress
from .errors import PortError, PrivilegeError
from .io_modes import IO_MODES, IoMode

_SOL_PACKET = 263
_PACKET_ADD_MEMBERSHIP, _PACKET_MR_PROMISC = 1, 1
_PACKET_COPY_THRESH, _PACKET_AUXDATA, _PACKET_VERSION, _PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING = 7, 8, 10, 15, 23
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_SIOCGIFFLAGS, _SIOCGIFHWADDR, _SIOCGIFINDEX = 0x8913, 0x8927, 0x8933
_SIOCETHTOOL, _ETHTOOL_GTSO = 0x8946, 0x1E
_IFF_UP, _ARPHRD_ETHER = 0x1, 1
_ETH_P_ALL = 0x0003

# Frames larger than a ring slot wait in the receive buffer, 64 KB GSO frames above all: room for some 50 of
# them a port. A limit, not an allocation. The send buffer is never longer than what is on its way to one pod.
_BUFFER_BYTES = 4 << 20


class PortLike(Protocol):
    """What can become a port: a name, and a way to open sockets in the network namespace it lives in."""

    @property
    def name(self) -> str:
        """The interface's name in that namespace."""

    def open_socket(self, family: int, type: int, proto: int) -> socket.socket:  # noqa: A002
        """A socket opened in that namespace, as `socket.socket(family, type, proto)` would in one's own."""

    @property
    def owners(self) -> Sequence[tuple[MacAddress, IPv4Address | IPv6Address]]:
        """Who is behind the port, as far as is known beforehand: (MAC address, IP address) pairs."""


class Interface:
    """An interface of the current network namespace, by name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def open_socket(self, family: int, type: int, proto: int) -> socket.socket:  # noqa: A002
        """See PortLike."""
        return socket.socket(family, type, proto)

    @property
    def owners(self) -> Sequence[tuple[MacAddress, IPv4Address | IPv6Address]]:
        """Nobody is known."""
        return ()


def open_port_sockets(port: PortLike, io: IoMode = IO_MODES["ring"]) -> tuple[socket.socket, socket.socket]:
    """A port's RX and TX sockets, checked. The RX socket is not bound yet: its ring comes first, or frames would
    bypass it. TX has a socket of its own so that nobody watches it (core/transmit.pxd).

    Raises PortError when the interface does not exist, is not Ethernet or is down, or the kernel lacks the I/O mode;
    PrivilegeError without CAP_NET_RAW.
    """
    sockets: list[socket.socket] = []
    try:
        for _ in range(2):
            # Protocol 0: nothing is received before bind(), or frames of every interface would come first.
            sockets.append(port.open_socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
        rx, tx = sockets
        index = _check_interface(rx, port.name)
        _set_rx_options(rx, index, io)
        tx.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        _set_buffer(tx, _SO_SNDBUFFORCE, socket.SO_SNDBUF)
        _bind(tx, port.name, 0)
    except PermissionError:
        _close(sockets)
        raise PrivilegeError(
            f"no right to open a raw socket on {port.name}: run as root (CAP_NET_RAW), or inside `unshare -Urn`"
        ) from None
    except OSError as error:
        _close(sockets)
        hint = "; raise the limit on open files (ulimit -n)" if error.errno in (errno.EMFILE, errno.ENFILE) else ""
        raise PortError(f"cannot open sockets on {port.name}: {error.strerror}{hint}") from None
    except BaseException:
        _close(sockets)
        raise
    return rx, tx


def start_receiving(rx: socket.socket, name: str) -> None:
    """Bind the RX socket: from here on frames fill its ring. Raises PortError."""
    _bind(rx, name, _ETH_P_ALL)


def _bind(sock: socket.socket, name: str, protocol: int) -> None:
    try:
        sock.bind((name, protocol))
    except OSError as error:
        raise PortError(f"cannot bind to interface {name}: {error.strerror}") from None


def _close(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def is_up(sock: socket.socket) -> bool:
    """Whether the interface a socket is bound to exists, whatever its name is now, and is up (IFF_UP)."""
    try:
        return _is_up(sock, sock.getsockname()[0])
    except (OSError, ValueError):  # deleted, or the socket closed meanwhile
        return False


def takes_gso(sock: socket.socket) -> bool:
    """Whether the interface a socket is bound to takes GSO frames, to cut them up or to hand them on."""
    value = array.array("I", (_ETHTOOL_GTSO, 0))  # struct ethtool_value
    request = struct.pack("16sP16x", os.fsencode(sock.getsockname()[0]), value.buffer_info()[0])
    try:
        fcntl.ioctl(sock, _SIOCETHTOOL, request)
    except OSError:  # a driver that knows nothing of it
        return False
    return bool(value[1])


def _is_up(sock: socket.socket, name: str) -> bool:
    return bool(_ioctl(sock, _SIOCGIFFLAGS, name, "H") & _IFF_UP)


def _check_interface(sock: socket.socket, name: str) -> int:
    try:
        index = _ioctl(sock, _SIOCGIFINDEX, name, "i")
    except OSError as error:
        if error.errno not in (errno.ENODEV, errno.EINVAL, errno.ENXIO):
            raise PortError(f"cannot look at interface {name}: {error.strerror}") from None
        raise PortError(f"there is no interface {name!r}; `ip link` lists those there are") from None
    if _ioctl(sock, _SIOCGIFHWADDR, name, "H") != _ARPHRD_ETHER:
        raise PortError(f"{name} is not an Ethernet interface; a port must be one (veth, tap, a network card)")
    if not _is_up(sock, name):
        raise PortError(f"{name} is down; bring it up first: ip link set {name} up")
    return index


def _ioctl(sock: socket.socket, request: int, name: str, value: str) -> int:
    """One field of a struct ifreq: the 16-byte name, then a union the kernel fills in."""
    if not 0 < len(os.fsencode(name)) < 16:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
    answer = fcntl.ioctl(sock, request, struct.pack("16s24x", os.fsencode(name)))
    result: int = struct.unpack_from(value, answer, 16)[0]
    return result


def _set_rx_options(rx: socket.socket, index: int, io: IoMode) -> None:
    options = [
        (_PACKET_VNET_HDR, 1),  # pending checksums and GSO pass through, on RX and TX
        (_PACKET_IGNORE_OUTGOING, 1),  # what the host itself sends on the interface is not received
    ]
    if io.source == "slots":
        options.append((_PACKET_COPY_THRESH, 1))  # a frame larger than its slot also waits, whole, to be received
    if io.version is None:
        options.append((_PACKET_AUXDATA, 1))  # the VLAN tag
    else:
        _set_version(rx, io.version, io.name)
    for option, value in options:
        rx.setsockopt(_SOL_PACKET, option, value)
    # Promiscuous as long as the socket lives: the kernel undoes it, whatever happens.
    rx.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, struct.pack("iHH8x", index, _PACKET_MR_PROMISC, 0))
    _set_buffer(rx, _SO_RCVBUFFORCE, socket.SO_RCVBUF)


def _set_version(rx: socket.socket, version: int, name: str) -> None:
    try:
        rx.setsockopt(_SOL_PACKET, _PACKET_VERSION, version)
    except OSError as error:
        if error.errno == errno.EPERM:
            raise
        raise PortError(f"this kernel lacks I/O mode {name!r} ({error.strerror}); choose another") from None


def _set_buffer(sock: socket.socket, force: int, plain: int) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, force, _BUFFER_BYTES)
    except PermissionError:  # no CAP_NET_ADMIN in the first user namespace: what net.core.*mem_max allow
        sock.setsockopt(socket.SOL_SOCKET, plain, _BUFFER_BYTES)
