"""pcapng, written.

The blocks of a capture file (draft-ietf-opsawg-pcapng): a section, its interfaces, frames, statistics. Each function
returns the bytes of one block, in this machine's byte order, as the format allows.
"""

from __future__ import annotations

import platform
import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal

from .version import __version__

Option = tuple[int, bytes]
Direction = Literal["inbound", "outbound"]

_SECTION, _INTERFACE, _STATISTICS, _FRAME = 0x0A0D0D0A, 1, 5, 6
_BYTE_ORDER, _UNKNOWN_LENGTH = 0x1A2B3C4D, -1
_ETHERNET = 1  # LINKTYPE_ETHERNET
_NANOSECONDS = bytes([9])  # 10⁻⁹ s
_COMMENT = 1
_HARDWARE, _OS, _PROGRAM = 2, 3, 4  # of a section
_NAME, _RESOLUTION, _FILTER = 2, 9, 11  # of an interface
_FLAGS, _FRAME_ID, _QUEUE = 2, 5, 6  # of a frame
_START, _END, _DROPPED, _ACCEPTED, _DELIVERED = 2, 3, 5, 6, 8  # of statistics
_DIRECTIONS = {"inbound": 1, "outbound": 2}
_UNICAST, _MULTICAST, _BROADCAST = 1 << 2, 2 << 2, 3 << 2  # how it was received, in the flags
_LONGEST = 0xFFFF  # bytes of an option
_CUT = b" (cut)"
_FRAME_HEAD = struct.Struct("=IIIIIII")  # kind, size, interface, time's two halves, bytes here, bytes in all
_FRAME_TAIL = struct.Struct("=HHQHHIHHI")  # frame id, queue, the end of the options, size


def section(comments: Iterable[str]) -> bytes:
    """The first block: who has written the file, on what."""
    body = struct.pack("=IHHq", _BYTE_ORDER, 1, 0, _UNKNOWN_LENGTH)
    system = f"{platform.system()} {platform.release()}"
    told = [(_HARDWARE, platform.machine()), (_OS, system), (_PROGRAM, f"fastbridge {__version__}")]
    return _block(_SECTION, body + _options([*map(comment, comments), *((code, _text(text)) for code, text in told)]))


def interface(name: str, snap: int, capture_filter: str = "") -> bytes:
    """An interface. They are numbered from 0 on, in the order in which they are written."""
    options = [(_NAME, _text(name)), (_RESOLUTION, _NANOSECONDS)]
    if capture_filter:
        options.append((_FILTER, b"\0" + _text(capture_filter)))  # 0: it is in libpcap's words
    return _block(_INTERFACE, struct.pack("=HHI", _ETHERNET, 0, snap) + _options(options))


def frame(
    number: int, time_ns: int, data: bytes, length: int, direction: Direction, frame_id: int, queue: int, said: str
) -> bytes:
    """A frame of the interface of this number, with a comment.

    frame_id: the same for all copies of one frame. queue: the worker.
    """
    told = _told(said, _DIRECTIONS[direction] | _reception(data[:6]))
    size = _FRAME_HEAD.size + len(data) + -len(data) % 4 + len(told) + _FRAME_TAIL.size
    head = _FRAME_HEAD.pack(_FRAME, size, number, time_ns >> 32, time_ns & 0xFFFFFFFF, len(data), length)
    tail = _FRAME_TAIL.pack(_FRAME_ID, 8, frame_id, _QUEUE, 4, queue, 0, 0, size)
    return b"".join((head, _padded(data), told, tail))


@lru_cache(4096)
def _told(said: str, flags: int) -> bytes:
    """Those options of a frame that many frames share."""
    return b"".join(map(_option, (comment(said), (_FLAGS, struct.pack("=I", flags)))))


def statistics(number: int, start_ns: int, end_ns: int, *, accepted: int, dropped: int, delivered: int) -> bytes:
    """What became of an interface's frames: accepted by the filter; of those dropped, by the capture itself; and
    written.
    """
    head = struct.pack("=III", number, end_ns >> 32, end_ns & 0xFFFFFFFF)
    counts = ((_DROPPED, dropped), (_ACCEPTED, accepted), (_DELIVERED, delivered))
    times = ((_START, start_ns), (_END, end_ns))
    options = [(code, struct.pack("=II", time >> 32, time & 0xFFFFFFFF)) for code, time in times]
    return _block(_STATISTICS, head + _options([*options, *((code, struct.pack("=Q", n)) for code, n in counts)]))


def comment(text: str) -> Option:
    """A comment, as an option. One that is too long says that it is cut."""
    told = _text(text)
    if len(told) == _LONGEST:
        told = told[: -len(_CUT)].decode("utf-8", "ignore").encode() + _CUT
    return _COMMENT, told


def _reception(destination: bytes) -> int:
    if not destination:
        return 0
    if destination == b"\xff" * 6:
        return _BROADCAST
    return _MULTICAST if destination[0] & 1 else _UNICAST


def _text(text: str) -> bytes:
    return text.encode("utf-8", "replace")[:_LONGEST]


def _options(options: Iterable[Option]) -> bytes:
    return b"".join(map(_option, options)) + bytes(4)  # the end of the options


def _option(option: Option) -> bytes:
    code, value = option
    return struct.pack("=HH", code, len(value)) + _padded(value)


def _block(kind: int, body: bytes) -> bytes:
    length = len(body) + 12
    return struct.pack("=II", kind, length) + body + struct.pack("=I", length)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
