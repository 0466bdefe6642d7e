"""Capture files, read.

One frame of a pcap or pcapng file (the IETF's drafts draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .errors import ConfigError

_ETHERNET = 1  # LINKTYPE_ETHERNET
_MOST_BYTES = 1 << 24  # of a block: no frame is longer
_PCAP = {
    b"\xa1\xb2\xc3\xd4": ">",
    b"\xd4\xc3\xb2\xa1": "<",
    b"\xa1\xb2\x3c\x4d": ">",  # the same in nanoseconds
    b"\x4d\x3c\xb2\xa1": "<",
}
_SECTION, _INTERFACE, _SIMPLE, _ENHANCED = 0x0A0D0D0A, 1, 3, 6

Captured = tuple[int, int, bytes]  # link type, length of the frame, what was captured of it


def frame_of(path: Path, number: int) -> bytes:
    """Frame `number` of a file, counted from 1 as Wireshark does. Raises ConfigError, OSError."""
    with path.open("rb") as file:
        count = 0
        for count, (link, length, data) in enumerate(_frames(file, path), 1):
            if count < number:
                continue
            if link != _ETHERNET:
                raise ConfigError(f"frame {number} of {path} is not an Ethernet frame (link type {link})")
            if len(data) < length:
                cut = f"frame {number} of {path} is cut to {len(data)} of {length} bytes"
                raise ConfigError(f"{cut}; capture whole frames (tcpdump -s 0)")
            return data
    raise ConfigError(f"{path} has {count} frames: there is no frame {number}")


def _frames(file: BinaryIO, path: Path) -> Iterator[Captured]:
    magic = file.read(4)
    if magic in _PCAP:
        return _pcap(file, path, _PCAP[magic])
    if magic == struct.pack("!I", _SECTION):
        file.seek(-4, 1)
        return _pcapng(file, path)
    raise ConfigError(f"{path} is neither a pcap nor a pcapng file")


def _pcap(file: BinaryIO, path: Path, order: str) -> Iterator[Captured]:
    (link,) = struct.unpack(f"{order}16xI", _take(file, path, 20))
    while head := file.read(16):
        captured, length = struct.unpack(f"{order}8xII", head + _take(file, path, 16 - len(head)))
        yield link & 0x0FFFFFFF, length, _take(file, path, captured)


def _pcapng(file: BinaryIO, path: Path) -> Iterator[Captured]:
    order, links = "<", list[tuple[int, int]]()  # link type and snap length of each interface
    while head := file.read(8):
        head += _take(file, path, 8 - len(head))
        if head[:4] == struct.pack("!I", _SECTION):
            mark = _take(file, path, 4)
            order, links = (">" if mark == b"\x1a\x2b\x3c\x4d" else "<"), []
            _take(file, path, struct.unpack(f"{order}I", head[4:])[0] - 12)
            continue
        kind, size = struct.unpack(f"{order}II", head)
        body = _take(file, path, size - 8)[:-4]
        try:
            if kind == _INTERFACE:
                links.append(struct.unpack_from(f"{order}HxxI", body))
            elif kind == _ENHANCED:
                interface, captured, length = struct.unpack_from(f"{order}I8xII", body)
                yield links[interface][0], length, body[20 : 20 + captured]
            elif kind == _SIMPLE:
                (length,) = struct.unpack_from(f"{order}I", body)
                link, snap = links[0]
                yield link, length, body[4 : 4 + min(length, snap or length)]
        except (struct.error, IndexError):
            raise ConfigError(f"{path} is broken: a block is too short, or of no known interface") from None


def _take(file: BinaryIO, path: Path, size: int) -> bytes:
    if not 0 <= size <= _MOST_BYTES:
        raise ConfigError(f"{path} is broken: it has a block of {size} bytes")
    data = file.read(size)
    if len(data) < size:
        raise ConfigError(f"{path} ends in the middle of a frame")
    return data
