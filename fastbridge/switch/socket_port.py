"""Socket ports, ports that are Python objects.

The core sends to such a port as to any other one: by a socket, each frame behind its vnet header. The socket is one of
a pair. A program reads from the other one, and hands over what the port receives. No interface is made, so no right is
needed.
"""

from __future__ import annotations

import contextlib
import errno
import re
import select
import socket
import struct
import time
from collections.abc import Callable

from fastbridge.closes import Closes
from fastbridge.errors import ConfigError, PortError
from fastbridge.forks import in_child
from fastbridge.open_files import reserve_files
from fastbridge.waiting import wait_for

# What an interface can be called (dev_valid_name()), without the > between the ports of a pair.
_NAME = re.compile(r"[^\s/:>]{1,15}")
_QUEUE_BYTES = 1 << 20  # as far as net.core.wmem_max lets it
_MOST_BYTES = 1 << 17  # of a frame with its vnet header, for sure
_VNET = struct.Struct("=BBHHHH")  # struct virtio_net_hdr
_NEEDS_CSUM = 1
_UDP_CHECK = 6  # where a UDP header has its checksum


class SocketPort(Closes):
    """A port of a switch that is a Python object, made by `switch.add_socket_port(name)`; a context manager.

    Frames that the switch sends to it wait for recv(), some hundreds of them. When there is no room for more, the
    switch drops them, and counts them as `full`. Any thread may send and receive.
    """

    def __init__(self, name: str, sock: socket.socket, receive: Callable[[bytes], None], leave: Callable[[], None]):
        """sock: gives what the core sends; receive: lets the switch receive a frame; leave: removes the port."""
        self._name, self._socket, self._receive, self._leave = name, sock, receive, leave
        in_child(self, SocketPort._let_go)

    @property
    def name(self) -> str:
        """The port's name."""
        return self._name

    def send(self, frame: bytes) -> None:
        """Let the switch receive a frame (from the destination MAC on, no FCS); it returns when that is done.

        In memory, the copies for ports that are not socket ports get lost: `switch.process(port.name, [frame])` does
        the same and returns these. Raises TypeError (not bytes), ConfigError (too long), PortError (the port is closed,
        or the switch is not started).
        """
        self._receive(frame)

    def recv(self, timeout: float | None = None) -> bytes:
        """The next frame that the switch has sent to the port, as on a wire: single, with its tags and checksums.

        timeout: seconds to wait for it; None: for ever. Raises TimeoutError, and PortError: the port is closed.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            descriptor = self.fileno()  # another thread may close it
            if descriptor >= 0 and not wait_for(descriptor, select.POLLIN, left):
                raise TimeoutError(f"port {self._name} has got no frame within {timeout} s")
            with contextlib.suppress(BlockingIOError):  # another thread was quicker
                return self._take()

    def fileno(self) -> int:
        """The descriptor that is readable when recv() need not wait: for poll() and asyncio; -1: the port is closed."""
        return self._socket.fileno()

    def close(self) -> None:
        """Take the port out of the switch. A second call does nothing."""
        self._leave()
        self._socket.close()

    def _take(self) -> bytes:
        try:
            message = self._socket.recv(_MOST_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            raise
        except OSError:  # closed meanwhile
            message = b""
        if not message:
            raise closed(self._name)
        return _finish(message)

    def _let_go(self) -> None:
        """In a forked child: the port is the parent's."""
        self._receive, self._leave = self._refuse, _nothing
        self._socket.close()

    def _refuse(self, frame: bytes) -> None:
        raise closed(self._name)

    def __repr__(self) -> str:
        return f"<SocketPort {self._name}{'' if self.fileno() >= 0 else ', closed'}>"


def check_name(name: str) -> None:
    """Raise ConfigError: this cannot be a port's name."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} cannot be a port's name: 1 to 15 characters, without blanks, /, : and >")


def socket_pair(name: str) -> tuple[socket.socket, socket.socket]:
    """The core's socket, and the program's. Raises PortError."""
    try:
        reserve_files(2)
        # SEQPACKET, because the end of either is heard at the other one.
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError as error:
        hint = "; raise the limit on open files (ulimit -n)" if error.errno in (errno.EMFILE, errno.ENFILE) else ""
        raise PortError(f"cannot make the socket of port {name}: {error.strerror}{hint}") from None
    in_child(ours, socket.socket.close)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _QUEUE_BYTES)
    return ours, theirs


def closed(name: str) -> PortError:
    """The error of whoever uses a port that is closed."""
    return PortError(f"port {name} is closed, or its switch has stopped; add_socket_port() makes a new one")


def _finish(message: bytes) -> bytes:
    """A frame without its vnet header. A checksum that its sender left to the device is filled in."""
    flags, _, _, _, start, offset = _VNET.unpack_from(message)
    frame = message[_VNET.size :]
    at = start + offset
    if not flags & _NEEDS_CSUM or at + 2 > len(frame):
        return frame
    value = ~_sum(frame[start:]) & 0xFFFF
    if value == 0 and offset == _UDP_CHECK:  # to UDP, 0 would mean: none. It is the same sum (RFC 768)
        value = 0xFFFF
    return frame[:at] + struct.pack("!H", value) + frame[at + 2 :]


def _sum(data: bytes) -> int:
    """The ones' complement sum (RFC 1071)."""
    padded = data + bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def _nothing() -> None:
    """Does nothing."""
