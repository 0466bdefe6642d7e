"""Echo requests, sent and timed.

ICMP over raw sockets, because a fresh machine has no ping program. The socket is connected, so the kernel hands over
only the target's own answers. The kernel makes the checksum of ICMPv6.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

_ICMP_ECHO, _ICMP_ECHOREPLY = 8, 0
_ICMPV6_ECHO_REQUEST, _ICMPV6_ECHO_REPLY = 128, 129
_ECHO = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence
_PATTERN = bytes(range(48)) + b"fastbrdg"
SIZE = len(_PATTERN)  # 56 bytes of payload, as ping sends
LARGEST = 65_535 - 20 - _ECHO.size  # an IPv4 packet without its header and the echo's


@dataclass(frozen=True, slots=True)
class PingResult:
    """The answers. True when every request was answered."""

    sent: int
    rtts: tuple[float, ...]  #: seconds, in the order of the answers
    error: str | None = None  #: the kernel's last refusal to send, or why there was no answer, if known

    @property
    def received(self) -> int:
        """The number of requests that were answered."""
        return len(self.rtts)

    def __bool__(self) -> bool:
        return self.received == self.sent


def ping(
    sock: socket.socket,
    target: IPv4Address | IPv6Address,
    *,
    count: int,
    interval: float,
    timeout: float,
    size: int = SIZE,
) -> PingResult:
    """Send `count` echo requests over a raw ICMP socket, one every `interval` s; wait `timeout` s for the last answer.

    An answer counts when it brings back all `size` bytes of the payload.
    """
    payload = (_PATTERN * (size // SIZE + 1))[:size]
    identifier = int.from_bytes(os.urandom(2), "big")
    sent: dict[int, float] = {}
    rtts: dict[int, float] = {}
    error = None
    try:
        sock.connect((str(target), 0))
    except OSError as refusal:  # no route: nothing can be sent
        return PingResult(count, (), refusal.strerror)
    waiting = select.poll()  # select() takes no file descriptor above 1,023; a large lab has more
    waiting.register(sock, select.POLLIN)
    start = time.perf_counter()
    for sequence in range(count):
        sent[sequence] = time.perf_counter()
        try:
            sock.send(_request(target.version, identifier, sequence, payload))
        except OSError as refusal:
            error = refusal.strerror
        last = sequence == count - 1
        deadline = sent[sequence] + timeout if last else start + (sequence + 1) * interval
        while len(rtts) < count and (remaining := deadline - time.perf_counter()) > 0:
            if not waiting.poll(remaining * 1e3):
                break
            now = time.perf_counter()
            try:
                answered = _sequence(target.version, sock.recv(65536), identifier, payload)
            except OSError as refusal:
                error = refusal.strerror
                continue
            if answered in sent and answered not in rtts and now - sent[answered] <= timeout:
                rtts[answered] = now - sent[answered]
            if last and len(rtts) == count:
                break
    return PingResult(count, tuple(rtts.values()), error)


def open_type(version: int) -> tuple[int, int, int]:
    """Family, type and protocol of the socket `ping` wants."""
    if version == 4:
        return socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP
    return socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6


def _request(version: int, identifier: int, sequence: int, payload: bytes) -> bytes:
    kind = _ICMP_ECHO if version == 4 else _ICMPV6_ECHO_REQUEST
    message = _ECHO.pack(kind, 0, 0, identifier, sequence & 0xFFFF) + payload
    if version == 6:
        return message  # the kernel fills in the checksum: it covers the source address, which the kernel chooses
    return _ECHO.pack(kind, 0, _checksum(message), identifier, sequence & 0xFFFF) + payload


def _sequence(version: int, message: bytes, identifier: int, payload: bytes) -> int | None:
    """The sequence number of an answer to us that brings the payload back, or None."""
    offset = (message[0] & 0xF) * 4 if version == 4 else 0  # an IPv4 raw socket shows the IP header
    if len(message) < offset + _ECHO.size:
        return None
    kind, _, _, ours, sequence = _ECHO.unpack_from(message, offset)
    wanted = _ICMP_ECHOREPLY if version == 4 else _ICMPV6_ECHO_REPLY
    whole = message[offset + _ECHO.size :] == payload
    return int(sequence) if kind == wanted and ours == identifier and whole else None


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
