"""Port sockets, opened ready.

Two AF_PACKET sockets a port, for RX and for TX, from the standard library's `socket`. The facts behind each option
are in packet(7), Documentation/networking/packet_mmap.rst and docs/architecture.md; values without a name in `socket`
are from <linux/if_packet.h>, <linux/sockios.h>, <linux/ethtool.h>, <linux/if.h> and <asm-generic/socket.h>.
"""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from fastbridge.addresses import MacAddress
from fastbridge.errors import PortError, PrivilegeError
from fastbridge.forks import in_child

from .io_modes import IO_MODES, IoMode

_SOL_PACKET = 263
_PACKET_ADD_MEMBERSHIP, _PACKET_DROP_MEMBERSHIP, _PACKET_MR_PROMISC = 1, 2, 1
_PACKET_COPY_THRESH, _PACKET_AUXDATA, _PACKET_VERSION, _PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING = 7, 8, 10, 15, 23
_PACKET_FANOUT, _PACKET_FANOUT_FLAG_UNIQUEID, _PACKET_FANOUT_FLAG_IGNORE_OUTGOING = 18, 0x2000, 0x4000
_SO_ATTACH_FILTER, _SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 26, 32, 33
_SIOCGIFFLAGS = 0x8913
_SIOCETHTOOL, _ETHTOOL_GTSO = 0x8946, 0x1E
_IFF_UP = 0x1
_ETH_P_ALL = 0x0003

# Frames larger than a ring slot wait in the receive buffer, 64 KB GSO frames above all: room for some 50 of
# them a port. A limit, not an allocation. The send buffer is never longer than what is on its way to one pod.
_BUFFER_BYTES = 4 << 20

# What a socket lets in, as classic BPF: "ret #0"; and "ld #pkttype; jeq #PACKET_OUTGOING, 0, 1; ret #0; ret #all".
_NOTHING = ((0x06, 0, 0, 0),)
_INCOMING = ((0x20, 0, 0, 0xFFFFF004), (0x15, 0, 1, 4), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))


_libc = ctypes.CDLL(None, use_errno=True)


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


def open_port_sockets(
    port: PortLike, index: int, io: IoMode = IO_MODES["ring"], receivers: int = 1
) -> tuple[socket.socket, ...]:
    """A port's RX sockets, and its TX socket, for the interface of this index. The RX sockets are not bound yet: their
    rings come first, or frames would bypass them. TX has a socket of its own so that nobody watches it
    (core/transmit.pxd).

    Raises PortError when the interface is gone, or the kernel lacks the I/O mode; PrivilegeError without CAP_NET_RAW.
    """
    sockets: list[socket.socket] = []
    try:
        for _ in range(receivers + 1):
            # Protocol 0: nothing is received before bind(), or frames of every interface would come first.
            sockets.append(port.open_socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
            in_child(sockets[-1], socket.socket.close)
        tx = sockets[-1]
        for rx in sockets[:-1]:
            _set_rx_options(rx, index, io)
        tx.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        _set_buffer(tx, _SO_SNDBUFFORCE, socket.SO_SNDBUF)
        _bind(tx, index, 0, port.name)
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
    return tuple(sockets)


def start_receiving(receivers: Sequence[socket.socket], index: int, name: str) -> None:
    """Bind the RX sockets: from here on frames fill their rings; with several, each flow's always the same (by a hash
    of its addresses and ports; all that is not IP goes to one). Raises PortError.

    A socket may join a fanout group only when it is bound, and would get every frame until then: so all are deaf, by a
    filter, until all have joined. A group knows nothing of its sockets' PACKET_IGNORE_OUTGOING: it has a flag of its
    own, and for kernels without that there is the filter. PACKET_FANOUT_FLAG_DEFRAG would reassemble IP: never here.
    """
    if len(receivers) == 1:
        _bind(receivers[0], index, _ETH_P_ALL, name)
        return
    for rx in receivers:
        _filter(rx, _NOTHING)
        _bind(rx, index, _ETH_P_ALL, name)
    try:
        group = (_PACKET_FANOUT_FLAG_UNIQUEID | _PACKET_FANOUT_FLAG_IGNORE_OUTGOING) << 16  # PACKET_FANOUT_HASH is 0
        for rx in receivers:
            rx.setsockopt(_SOL_PACKET, _PACKET_FANOUT, group)
            group = rx.getsockopt(_SOL_PACKET, _PACKET_FANOUT) & 0xFFFF | _PACKET_FANOUT_FLAG_IGNORE_OUTGOING << 16
    except OSError as error:
        raise PortError(f"the kernel refuses a fanout group on {name}: {error.strerror}; use fanout=False") from None
    for rx in receivers:
        _filter(rx, _INCOMING)


def end_receiving(receivers: Sequence[socket.socket], index: int) -> None:
    """Be deaf from now on, and leave the interface as it was. The sockets stay open: their rings may be in use."""
    for rx in receivers:
        _filter(rx, _NOTHING)
        rx.setsockopt(_SOL_PACKET, _PACKET_DROP_MEMBERSHIP, _promiscuous(index))


def _filter(sock: socket.socket, program: Sequence[tuple[int, int, int, int]]) -> None:
    """Let a classic BPF program, (code, jt, jf, k) each, say what a socket receives."""
    code = array.array("B", b"".join(struct.pack("HBBI", *step) for step in program))  # struct sock_filter
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program), code.buffer_info()[0]))


def _bind(sock: socket.socket, index: int, protocol: int, name: str) -> None:
    """By index: socket.bind() would take a name, which may be another interface's by now."""
    address = struct.pack("=HHiHBB8x", socket.AF_PACKET, socket.htons(protocol), index, 0, 0, 0)  # struct sockaddr_ll
    if _libc.bind(sock.fileno(), address, len(address)):
        raise PortError(f"cannot bind to interface {name}: {os.strerror(ctypes.get_errno())}")


def _promiscuous(index: int) -> bytes:
    return struct.pack("iHH8x", index, _PACKET_MR_PROMISC, 0)  # struct packet_mreq


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
    rx.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, _promiscuous(index))
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
