"""Netlink's bytes: the one place where messages and attributes are packed and read.

For messages that must be quick or that pyroute2 does not know: thousands of links or of nf_tables elements in one
transaction. The caller opens the socket, because it knows the network namespace (`PortLike.open_socket`). So the
process needs no thread in that namespace.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
_NLM_F_REQUEST, _NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x200, 0x400, 0x800
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 270, 10, 11
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_NESTED = 0x8000
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr
PIECE = 1 << 18  #: bytes to read at a time: more than the kernel puts into one piece
_BUFFER_BYTES = 8 << 20


class Message(NamedTuple):
    """A message from the kernel."""

    kind: int
    number: int  #: of the request that it answers
    payload: memoryview


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds others."""
    return attribute(kind | _NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    """A string attribute."""
    return attribute(kind, os.fsencode(value) + b"\0")


def be32(kind: int, value: int) -> bytes:
    """A number in network byte order, as nf_tables has them."""
    return attribute(kind, struct.pack("!I", value))


def u32(kind: int, value: int) -> bytes:
    """A number in the machine's byte order, as rtnetlink has them."""
    return attribute(kind, struct.pack("=I", value))


def message(kind: int, flags: int, payload: bytes) -> bytes:
    """A message without its number, which Netlink puts in."""
    return _HEADER.pack(_HEADER.size + len(payload), kind, flags | _NLM_F_REQUEST, 0, 0) + payload


def attributes(data: bytes | memoryview) -> Iterator[tuple[int, memoryview]]:
    """The attributes in a piece of memory: (kind, value)."""
    view = memoryview(data)
    start, end = 0, len(view)
    while start + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(view, start)
        if not _ATTRIBUTE.size <= length <= end - start:
            return
        yield kind & 0x3FFF, view[start + _ATTRIBUTE.size : start + length]
        start += (length + 3) & ~3


def messages(data: bytes) -> Iterator[Message]:
    """The messages in what one recv() returned."""
    view = memoryview(data)
    while len(view) >= _HEADER.size:
        length, kind, _, number, _ = _HEADER.unpack_from(view)
        yield Message(kind, number, view[_HEADER.size : length])
        view = view[(length + 3) & ~3 :]


class Netlink:
    """A netlink socket, for questions. For one thread at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._numbers = itertools.count(1)
        sock.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        sock.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        for forced, option in ((_SO_SNDBUFFORCE, socket.SO_SNDBUF), (_SO_RCVBUFFORCE, socket.SO_RCVBUF)):
            try:
                sock.setsockopt(socket.SOL_SOCKET, forced, _BUFFER_BYTES)
            except PermissionError:
                sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
        sock.bind((0, 0))

    def close(self) -> None:
        """Close it; what it owns in the kernel goes with it."""
        self.socket.close()

    def send(self, messages: Sequence[bytes], about: Sequence[str], answered: int = -1) -> None:
        """Send messages in one piece, and return when the kernel has acknowledged the one at index `answered`.

        about: the purpose of each message. Raises OSError that names the first refused message.
        """
        numbers = [next(self._numbers) for _ in messages]
        packed = [_numbered(one, number) for one, number in zip(messages, numbers, strict=True)]
        last = bytearray(packed[answered])
        struct.pack_into("=H", last, 6, struct.unpack_from("=H", last, 6)[0] | _NLM_F_ACK)
        packed[answered] = bytes(last)
        self.socket.send(b"".join(packed))
        while True:
            for kind, number, payload in self._read():
                if kind != _NLMSG_ERROR or number not in range(numbers[0], numbers[-1] + 1):
                    continue  # the tail of an earlier answer
                code = -struct.unpack_from("=i", payload)[0]
                if code:
                    raise OSError(code, f"{about[number - numbers[0]]}: {os.strerror(code)}")
                if number == numbers[answered]:
                    return

    def dump(self, request: bytes) -> Iterator[Message]:
        """The answers to a request for many objects. Raises OSError."""
        number = self._request(request)
        while True:
            for answer in self._read():
                if answer.number != number:
                    continue
                if answer.kind in (_NLMSG_DONE, _NLMSG_ERROR):
                    _check(answer.payload)
                    return
                yield answer

    def ask(self, request: bytes) -> Message:
        """The answer to a request for one object. Raises OSError."""
        number = self._request(request)
        while True:
            for answer in self._read():
                if answer.number == number:
                    if answer.kind == _NLMSG_ERROR:
                        _check(answer.payload)
                    return answer

    def _request(self, request: bytes) -> int:
        number = next(self._numbers)
        self.socket.send(_numbered(request, number))
        return number

    def _read(self) -> Iterator[Message]:
        try:
            return messages(self.socket.recv(PIECE))
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # answers were lost: a caller that waits for one must not wait for ever
                raise
            raise OSError(error.errno, "the kernel's answers found no room") from None


def _numbered(one: bytes, number: int) -> bytes:
    return one[:8] + struct.pack("=II", number, 0) + one[16:]


def _check(payload: memoryview) -> None:
    code = -struct.unpack_from("=i", payload)[0] if len(payload) >= 4 else 0
    if code:
        raise OSError(code, os.strerror(code))
