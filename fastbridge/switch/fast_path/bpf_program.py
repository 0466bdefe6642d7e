"""The program of the bpf hand, and its assembler.

The program runs at tcx ingress of each port, for each frame that comes in. It does one look-up by the ingress port and
the frame's first 14 bytes; for a guard the key includes the IP source address. A hit goes straight to the pod or to the
egress port. All other frames go on to the nf_tables chain behind this hook, which hands them to the core. The program
is written here in some twenty mnemonics (Documentation/bpf/standardization/instruction-set.rst). So the reviewed text
is the loaded program, and no compiler and no compiled file are needed.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence

from .hand import EXTENSIONS, ICMPV6, IPV4, IPV6, ND, Look
from .headers import HEADER_BYTES, ICMPV6_TYPE, IPV4_SOURCE, IPV6_NEXT_HEADER, IPV6_SOURCE

#: Layout of a key: the frame's first 14 bytes, two of padding, the ingress interface's index …
KEY = struct.Struct("=14sxxI")
#: … and the IP source address, an IPv4 one first.
KEY_BY_IP = struct.Struct("=14sxxI16s")
#: Layout of a value: the egress interface's index, HOW to get there, when it was last used (ns, the
#: coarse monotonic clock).
VALUE = struct.Struct("=IIQ")
REDIRECT, REDIRECT_PEER = 0, 1

_R0, _R1, _R2, _R3, _R4, _R5, _R6, _R7, _R8, _R9, _R10 = range(11)
# Offsets in struct __sk_buff.
_VLAN_PRESENT, _IFINDEX, _DATA, _DATA_END = 20, 40, 76, 80
# Helpers, by number (include/uapi/linux/bpf.h).
_LOOKUP, _REDIRECT, _CHANGE_TYPE, _REDIRECT_PEER, _COARSE_TIME = 1, 23, 32, 155, 160
_NEXT = -1  # TCX_NEXT
_B, _H, _W, _DW = 0x10, 0x08, 0x00, 0x18
_INSTRUCTION = struct.Struct("=BBhi")


def _load(size: int, into: int, base: int, offset: int) -> bytes:
    return _INSTRUCTION.pack(0x61 | size, base << 4 | into, offset, 0)


def _store(size: int, base: int, offset: int, register: int) -> bytes:
    return _INSTRUCTION.pack(0x63 | size, register << 4 | base, offset, 0)


def _store_zero(size: int, base: int, offset: int) -> bytes:
    return _INSTRUCTION.pack(0x62 | size, base, offset, 0)


def _move(into: int, register: int) -> bytes:
    return _INSTRUCTION.pack(0xBF, register << 4 | into, 0, 0)


def _set(into: int, value: int) -> bytes:
    return _INSTRUCTION.pack(0xB7, into, 0, value)


def _add(into: int, value: int) -> bytes:
    return _INSTRUCTION.pack(0x07, into, 0, value)


def _map(into: int, fd: int) -> bytes:
    return _INSTRUCTION.pack(0x18, 1 << 4 | into, 0, fd) + _INSTRUCTION.pack(0, 0, 0, 0)


def _call(helper: int) -> bytes:
    return _INSTRUCTION.pack(0x85, 0, 0, helper)


def _exit() -> bytes:
    return _INSTRUCTION.pack(0x95, 0, 0, 0)


class _Jump:
    """A jump to a label: the opcode and its operands."""

    def __init__(self, opcode: int, left: int, right: int, label: str) -> None:
        self.opcode, self.left, self.right, self.label = opcode, left, right, label

    def pack(self, distance: int) -> bytes:
        if self.opcode & 0x08:  # with a register
            return _INSTRUCTION.pack(self.opcode, self.right << 4 | self.left, distance, 0)
        return _INSTRUCTION.pack(self.opcode, self.left, distance, self.right)


def _if_equal(left: int, value: int, label: str) -> _Jump:
    return _Jump(0x15, left, value, label)


def _if_different(left: int, value: int, label: str) -> _Jump:
    return _Jump(0x55, left, value, label)


def _if_less(left: int, value: int, label: str) -> _Jump:
    return _Jump(0xA5, left, value, label)


def _if_at_most(left: int, value: int, label: str) -> _Jump:
    return _Jump(0xB5, left, value, label)


def _go(label: str) -> _Jump:
    return _Jump(0x05, 0, 0, label)


def _if_greater_register(left: int, right: int, label: str) -> _Jump:
    return _Jump(0x2D, left, right, label)


def _if_equal_register(left: int, right: int, label: str) -> _Jump:
    return _Jump(0x1D, left, right, label)


def assemble(steps: Sequence[bytes | _Jump | str]) -> bytes:
    """Instructions; a string is a label for the next instruction."""
    places: dict[str, int] = {}
    at = 0
    for step in steps:
        if isinstance(step, str):
            places[step] = at
        else:
            at += len(step) // 8 if isinstance(step, bytes) else 1
    made, at = b"", 0
    for step in steps:
        if isinstance(step, str):
            continue
        packed = step if isinstance(step, bytes) else step.pack(places[step.label] - at - 1)
        made += packed
        at += len(packed) // 8
    return made


# Registers that outlive a call: the frame's context, the found value, and the frame's bytes until that is found.
_CONTEXT, _FOUND, _FRAME, _END = _R6, _R7, _R8, _R9
# Where the key is on the stack; each part at the offset it has in KEY_BY_IP.
_KEY = -KEY_BY_IP.size - 4  # a multiple of 8, as its first 8 bytes are written at once
_IN_KEY_INDEX, _IN_KEY_IP = 16, 20


def program(pairs_fd: int, by_ip_fd: int, look: Look) -> bytes:
    """The program over two maps KEY → VALUE and KEY_BY_IP → VALUE, by their descriptors, for a port's `look`."""
    return assemble(
        [
            _move(_CONTEXT, _R1),
            # A tag stands beside the frame, not in it.
            _load(_W, _R1, _CONTEXT, _VLAN_PRESENT),
            _if_different(_R1, 0, "next"),
            _load(_W, _FRAME, _CONTEXT, _DATA),
            _load(_W, _END, _CONTEXT, _DATA_END),
            *_unless_it_has(HEADER_BYTES),
            # The key, on the stack.
            _load(_DW, _R1, _FRAME, 0),
            _store(_DW, _R10, _KEY, _R1),
            _load(_W, _R1, _FRAME, 8),
            _store(_W, _R10, _KEY + 8, _R1),
            _load(_H, _R2, _FRAME, 12),
            _store(_H, _R10, _KEY + 12, _R2),
            _store_zero(_H, _R10, _KEY + 14),
            _load(_W, _R1, _CONTEXT, _IFINDEX),
            _store(_W, _R10, _KEY + _IN_KEY_INDEX, _R1),
            *(_by_source(by_ip_fd) if look is Look.SOURCES else _without_nd() if look is Look.ND else []),
            *_find(pairs_fd),
            "found",
            _if_equal(_R0, 0, "next"),
            _move(_FOUND, _R0),
            # Note the time of use. An unchanged time is not written, so its cache line stays clean.
            _call(_COARSE_TIME),
            _load(_DW, _R1, _FOUND, 8),
            _if_equal_register(_R1, _R0, "used"),
            _store(_DW, _FOUND, 8, _R0),
            "used",
            _load(_W, _R1, _FOUND, 4),
            _if_equal(_R1, REDIRECT, "plain"),
            _move(_R1, _CONTEXT),
            _set(_R2, 0),
            _call(_CHANGE_TYPE),  # PACKET_HOST, which kernels before 6.15 leave to us
            _load(_W, _R1, _FOUND, 0),
            _set(_R2, 0),
            _call(_REDIRECT_PEER),
            _exit(),
            "plain",
            _load(_W, _R1, _FOUND, 0),
            _set(_R2, 0),
            _call(_REDIRECT),
            _exit(),
            "next",
            _set(_R0, _NEXT),
            _exit(),
        ]
    )


_Steps = Sequence[bytes | _Jump | str]


def _unless_it_has(length: int) -> _Steps:
    """Go on only with a frame whose first bytes may be read."""
    return [_move(_R4, _FRAME), _add(_R4, length), _if_greater_register(_R4, _END, "next")]


def _find(map_fd: int) -> _Steps:
    return [_map(_R1, map_fd), _move(_R2, _R10), _add(_R2, _KEY), _call(_LOOKUP)]


def _unless_nd() -> _Steps:
    """Go on only with an IPv6 frame that is not ND and cannot hide ND behind extension headers."""
    return [
        *_unless_it_has(ICMPV6_TYPE + 1),
        _load(_B, _R1, _FRAME, IPV6_NEXT_HEADER),
        *(_if_equal(_R1, number, "next") for number in EXTENSIONS),
        _if_different(_R1, ICMPV6, "no nd"),
        _load(_B, _R1, _FRAME, ICMPV6_TYPE),
        _if_less(_R1, ND[0], "no nd"),
        _if_at_most(_R1, ND[1], "next"),
        "no nd",
    ]


def _without_nd() -> _Steps:
    return [_if_different(_R2, _as_loaded(IPV6), "other"), *_unless_nd(), "other"]


def _by_source(by_ip_fd: int) -> _Steps:
    """IP by its source address; the rest goes on."""
    ip = _KEY + _IN_KEY_IP
    return [
        _if_equal(_R2, _as_loaded(IPV6), "ipv6"),
        _if_different(_R2, _as_loaded(IPV4), "other"),
        *_unless_it_has(IPV4_SOURCE + 4),
        _load(_W, _R1, _FRAME, IPV4_SOURCE),
        _store(_W, _R10, ip, _R1),
        *(_store_zero(_W, _R10, ip + offset) for offset in (4, 8, 12)),
        _go("by ip"),
        "ipv6",
        *_unless_nd(),
        *(
            step
            for offset in (0, 4, 8, 12)
            for step in (_load(_W, _R1, _FRAME, IPV6_SOURCE + offset), _store(_W, _R10, ip + offset, _R1))
        ),
        "by ip",
        *_find(by_ip_fd),
        _go("found"),
        "other",
    ]


def _as_loaded(ethertype: int) -> int:
    """An EtherType as a load reads it from the frame."""
    return int.from_bytes(ethertype.to_bytes(2, "big"), sys.byteorder)
