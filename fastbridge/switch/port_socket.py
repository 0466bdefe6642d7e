"""Port sockets, opened ready.

Two AF_PACKET sockets a port, for RX and for TX, from the standard library's `socket`. The facts behind each option
are in packet(7) and Documentation/networking/packet_mmap.rst; values without a name in `socket` are the core's
(core/af_packet.pyx), or from <linux/sockios.h>, <linux/if.h> and <asm-generic/socket.h>.
"""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, NamedTuple, Protocol

from fastbridge.addresses import MacAddress
from fastbridge.core import af_packet
from fastbridge.errors import ConfigError, PortError, PrivilegeError
from fastbridge.forks import in_child
from fastbridge.named import refuse_text
from fastbridge.tso import has_tso

if TYPE_CHECKING:
    from fastbridge.links.link import Link
    from fastbridge.links.places import Place

_SO_ATTACH_FILTER, _SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 26, 32, 33
_SIOCGIFFLAGS = 0x8913
_IFF_UP, _IFF_RUNNING = 0x1, 0x40
_RUNS = _IFF_UP | _IFF_RUNNING
_ETH_P_ALL = 0x0003

# Frames larger than a ring slot wait in the receive buffer, 64 KB GSO frames above all: room for some 50 of
# them a port. A limit, not an allocation. The send buffer is never longer than what is on its way to one pod.
_BUFFER_BYTES = 4 << 20

# In front of a queue that shapes or counts, waiting here gains nothing: room for some 50 frames of 1,500 bytes.
_SMALL_BUFFER_BYTES = 64 << 10

# What a socket lets in, as classic BPF: "ret #0"; and "ld #pkttype; jeq #PACKET_OUTGOING, 0, 1; ret #0; ret #all".
_NOTHING = ((0x06, 0, 0, 0),)
_INCOMING = ((0x20, 0, 0, 0xFFFFF004), (0x15, 0, 1, 4), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))


_libc = ctypes.CDLL(None, use_errno=True)


class PortLike(Protocol):
    """A candidate for a port: a name, and a way to open sockets in its network namespace.

    It may also have a method `pod_takes_merged() -> bool`: whether the switch may send merged frames to its pod. The
    method must be cheap, and any thread may call it. It is called when the port is added, and now and then. It may have
    `links: Mapping[Place, Link]`, emulated links that it brings with it: its port's, and those of pairs. And it may
    have `switch: str`, where it belongs to one of several switches: a Switch is made of the ports of one.
    """

    @property
    def name(self) -> str:
        """The interface's name in that namespace."""

    def open_socket(self, family: int, type: int, proto: int) -> socket.socket:  # noqa: A002
        """A socket opened in that namespace, as `socket.socket(family, type, proto)` would in one's own."""

    @property
    def owners(self) -> Sequence[tuple[MacAddress, IPv4Address | IPv6Address]]:
        """The stations known beforehand behind the port: (MAC address, IP address) pairs."""


def refuse_several_switches(ports: Iterable[object]) -> None:
    """Raise ConfigError for ports that belong to several switches: one switch would join what they keep apart."""
    switches = list(dict.fromkeys(name for port in ports if (name := getattr(port, "switch", None))))
    if len(switches) > 1:
        raise ConfigError(
            f"these are ports of {len(switches)} switches, {switches[0]} … {switches[-1]}, which one would join: make "
            f"one of each, Switches(lab.switches), or one alone, Switch(lab.switches[{switches[0]!r}])"
        )


def read_ports(ports: Iterable[str | PortLike]) -> list[str | PortLike]:
    """The ports of one switch. Raises ConfigError for what is no list of ports, and for those of several switches."""
    refuse_text(ports, "ports")
    if isinstance(ports, Mapping):
        raise ConfigError("a Switch has one list of ports; Switches takes those of several, by name")
    try:
        wanted = list(ports)
    except TypeError:
        raise ConfigError(f"ports must be a list, of interface names or of a lab's ports, not {ports!r}") from None
    for port in wanted:
        if not isinstance(port, str) and not hasattr(port, "open_socket"):
            raise ConfigError(f"{port!r} is no port; a port is an interface's name, or one of a lab's ports: lab.ports")
    refuse_several_switches(wanted)
    return wanted


class Interface:
    """An interface of the current network namespace, by name."""

    def __init__(self, name: str, sockets: PacketSockets | None = None) -> None:
        """sockets: what opens its packet sockets, where this process may not."""
        self.name = name
        self._sockets = sockets

    def open_socket(self, family: int, type: int, proto: int) -> socket.socket:  # noqa: A002
        """See PortLike."""
        if self._sockets is not None and family == socket.AF_PACKET:
            return self._sockets.open()
        return socket.socket(family, type, proto)

    @property
    def owners(self) -> Sequence[tuple[MacAddress, IPv4Address | IPv6Address]]:
        """No station is known."""
        return ()


class PacketSockets:
    """Opens packet sockets in the current network namespace, and sizes their buffers, for whoever may not."""

    def __init__(self, priority: int) -> None:
        """priority: of the frames that they send, or 0."""
        self._priority = priority

    def open(self) -> socket.socket:
        """One with all that takes rights."""
        sock = open_packet()
        if self._priority:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, self._priority)
        return sock

    def set_send_buffer(self, tx: socket.socket, small: bool) -> None:
        """Limit the bytes on their way out by a socket. Raises OSError."""
        set_send_buffer(tx, small)

    def close(self) -> None:
        """It holds nothing."""


def open_packet() -> socket.socket:
    """A packet socket that receives nothing yet, with the buffers of a port's."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    _set_buffer(sock, _SO_RCVBUFFORCE, socket.SO_RCVBUF, _BUFFER_BYTES)
    set_send_buffer(sock, small=False)
    return sock


def check_right() -> None:
    """Raise PrivilegeError where this process may open no port, and PortError where it cannot."""
    try:
        open_packet().close()
    except PermissionError:
        raise _no_right() from None
    except OSError as error:
        raise PortError(f"cannot open a raw socket: {error.strerror}") from None


def _no_right(where: str = "") -> PrivilegeError:
    text = f"no right to open a raw socket{where}: run as root (CAP_NET_RAW), or inside `unshare -Urn`"
    return PrivilegeError(text)


class Receiver(NamedTuple):
    """Where the core listens for a port whose frames the kernel hands over (fast_path/punts.py)."""

    open_socket: Callable[[int, int, int], socket.socket]  #: opens a socket there
    ifindex: int  #: of the interface to listen on
    punt: int  #: of the interface to which the kernel hands the frames


def pod_question(port: PortLike) -> Callable[[], bool] | None:
    """The function that tells whether its pod takes merged frames; None for a port that does not know."""
    question: Callable[[], bool] | None = getattr(port, "pod_takes_merged", None)
    return question


def links_of_port(port: PortLike) -> Mapping[Place, Link]:
    """The links that a port brings with it."""
    links: Mapping[Place, Link] = getattr(port, "links", {})
    return links


def open_port_sockets(
    port: PortLike, index: int, receivers: int = 1, listen: Receiver | None = None
) -> tuple[socket.socket, ...]:
    """A port's RX sockets, and its TX socket, for the interface of this index.

    The RX sockets are not bound yet: their rings come first, or frames would bypass them. TX has its own socket, which
    no thread watches (core/transmit.pxd). listen: where the RX sockets are opened, if not on the interface itself
    (fast_path/ports.py).

    Raises PortError when the interface is gone, or the kernel lacks TPACKET_V2; PrivilegeError without CAP_NET_RAW.
    """
    sockets: list[socket.socket] = []
    try:
        for _ in range(receivers + 1):
            # Protocol 0: nothing is received before bind(), or frames of every interface would come first.
            where = port if listen is None or len(sockets) == receivers else listen
            sockets.append(where.open_socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
            in_child(sockets[-1], socket.socket.close)
        tx = sockets[-1]
        for rx in sockets[:-1]:
            _set_rx_options(rx, listen.ifindex if listen else index)
        tx.setsockopt(af_packet.SOL_PACKET, af_packet.PACKET_VNET_HDR, 1)
        if listen:
            tx.setsockopt(af_packet.SOL_PACKET, af_packet.PACKET_ADD_MEMBERSHIP, _promiscuous(index))
        set_send_buffer(tx, small=False)
        _bind(tx, index, 0, port.name)
    except PermissionError:
        _close(sockets)
        raise _no_right(f" on {port.name}") from None
    except OSError as error:
        _close(sockets)
        hint = "; raise the limit on open files (ulimit -n)" if error.errno in (errno.EMFILE, errno.ENFILE) else ""
        raise PortError(f"cannot open sockets on {port.name}: {error.strerror}{hint}") from None
    except BaseException:
        _close(sockets)
        raise
    return tuple(sockets)


def start_receiving(receivers: Sequence[socket.socket], index: int, name: str) -> None:
    """Bind the RX sockets: from here on frames fill their rings. Raises PortError.

    With several rings, each flow always fills the same one, by a hash of its addresses and ports. All frames other than
    IP fill one ring.

    A socket may join a fanout group only when it is bound, and would get every frame until then. So a filter keeps all
    sockets deaf until all have joined. A group ignores its sockets' PACKET_IGNORE_OUTGOING. It has its own flag, and
    for kernels without that flag there is the filter. PACKET_FANOUT_FLAG_DEFRAG would reassemble IP, so it is not set.
    """
    if len(receivers) == 1:
        _bind(receivers[0], index, _ETH_P_ALL, name)
        return
    for rx in receivers:
        _filter(rx, _NOTHING)
        _bind(rx, index, _ETH_P_ALL, name)
    try:
        ignore = af_packet.PACKET_FANOUT_FLAG_IGNORE_OUTGOING << 16
        group = af_packet.PACKET_FANOUT_FLAG_UNIQUEID << 16 | ignore  # PACKET_FANOUT_HASH is 0
        for rx in receivers:
            rx.setsockopt(af_packet.SOL_PACKET, af_packet.PACKET_FANOUT, group)
            group = rx.getsockopt(af_packet.SOL_PACKET, af_packet.PACKET_FANOUT) & 0xFFFF | ignore
    except OSError as error:
        raise PortError(f"the kernel refuses a fanout group on {name}: {error.strerror}; use fanout=False") from None
    for rx in receivers:
        _filter(rx, _INCOMING)


def end_receiving(sockets: Sequence[socket.socket], index: int, listen: Receiver | None) -> None:
    """Make a port's sockets deaf, and leave its interface as it was. They stay open: their rings may be in use."""
    *receivers, tx = sockets
    for rx in receivers:
        _filter(rx, _NOTHING)
    for sock in (tx,) if listen else receivers:
        sock.setsockopt(af_packet.SOL_PACKET, af_packet.PACKET_DROP_MEMBERSHIP, _promiscuous(index))


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
    return struct.pack("iHH8x", index, af_packet.PACKET_MR_PROMISC, 0)  # struct packet_mreq


def _close(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def is_running(sock: socket.socket) -> bool:
    """Whether the interface a socket is bound to exists, whatever its name is now, is up and has a carrier.

    Without one a send succeeds, and the frame is lost.
    """
    try:
        return _ioctl(sock, _SIOCGIFFLAGS, sock.getsockname()[0], "H") & _RUNS == _RUNS
    except (OSError, ValueError):  # deleted, or the socket closed meanwhile
        return False


def takes_gso(sock: socket.socket) -> bool:
    """Whether the interface a socket is bound to takes GSO frames, to cut them up or to hand them on."""
    try:
        return has_tso(sock, sock.getsockname()[0])
    except OSError:  # a driver that knows nothing of it
        return False


def _ioctl(sock: socket.socket, request: int, name: str, value: str) -> int:
    """One field of a struct ifreq: the 16-byte name, then a union the kernel fills in."""
    if not 0 < len(os.fsencode(name)) < 16:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
    answer = fcntl.ioctl(sock, request, struct.pack("16s24x", os.fsencode(name)))
    result: int = struct.unpack_from(value, answer, 16)[0]
    return result


def _set_rx_options(rx: socket.socket, index: int) -> None:
    options = [
        (af_packet.PACKET_VNET_HDR, 1),  # pending checksums and GSO pass through, on RX and TX
        (af_packet.PACKET_IGNORE_OUTGOING, 1),  # what the host itself sends on the interface is not received
        (af_packet.PACKET_COPY_THRESH, 1),  # a frame larger than its slot also waits, whole, to be received
    ]
    _set_version(rx)
    for option, value in options:
        rx.setsockopt(af_packet.SOL_PACKET, option, value)
    # Promiscuous as long as the socket lives: the kernel undoes it, whatever happens.
    rx.setsockopt(af_packet.SOL_PACKET, af_packet.PACKET_ADD_MEMBERSHIP, _promiscuous(index))
    _set_buffer(rx, _SO_RCVBUFFORCE, socket.SO_RCVBUF, _BUFFER_BYTES)


def _set_version(rx: socket.socket) -> None:
    try:
        rx.setsockopt(af_packet.SOL_PACKET, af_packet.PACKET_VERSION, af_packet.TPACKET_V2)
    except OSError as error:
        if error.errno == errno.EPERM:
            raise
        raise PortError(f"this kernel lacks TPACKET_V2 receive rings ({error.strerror})") from None


def set_send_buffer(tx: socket.socket, small: bool) -> None:
    """Limit the bytes on their way out by a port: to few, where the interface has a queue for them."""
    _set_buffer(tx, _SO_SNDBUFFORCE, socket.SO_SNDBUF, _SMALL_BUFFER_BYTES if small else _BUFFER_BYTES)


def _set_buffer(sock: socket.socket, force: int, plain: int, size: int) -> None:
    if sock.getsockopt(socket.SOL_SOCKET, plain) == 2 * size:  # as the kernel has it
        return
    try:
        sock.setsockopt(socket.SOL_SOCKET, force, size)
    except PermissionError:  # no CAP_NET_ADMIN in the first user namespace: what net.core.*mem_max allow
        sock.setsockopt(socket.SOL_SOCKET, plain, size)
