"""The program of the bpf hand, and its assembler.

What runs at tcx ingress of each port, for each frame that comes in: one look-up by where it came in and its first 14
bytes. A hit goes straight to the pod or to the egress port; all else goes on, to the nf_tables chain behind this hook,
which hands it to the core. It is written here in mnemonics, a dozen of which are all there are
(Documentation/bpf/standardization/instruction-set.rst), so what is reviewed is what is loaded: there is no compiled
file, and no compiler needed.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

#: Layout of a key: the frame's first 14 bytes, two of padding, the ingress interface's index.
KEY = struct.Struct("=14sxxI")
#: Layout of a value: the egress interface's index, HOW to get there, when it was last used (ns, the
#: coarse monotonic clock).
VALUE = struct.Struct("=IIQ")
REDIRECT, REDIRECT_PEER = 0, 1

_R0, _R1, _R2, _R3, _R4, _R5, _R6, _R7, _, _, _R10 = range(11)
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
    """A jump to a label: opcode, and what it compares."""

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


def _if_greater_register(left: int, right: int, label: str) -> _Jump:
    return _Jump(0x2D, left, right, label)


def _if_equal_register(left: int, right: int, label: str) -> _Jump:
    return _Jump(0x1D, left, right, label)


def assemble(steps: Sequence[bytes | _Jump | str]) -> bytes:
    """Instructions; a string is a label for what comes next."""
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


def program(pairs_fd: int) -> bytes:
    """The program over a map KEY → VALUE, by its descriptor."""
    return assemble(
        [
            _move(_R6, _R1),
            # A tag stands beside the frame, not in it.
            _load(_W, _R1, _R6, _VLAN_PRESENT),
            _if_different(_R1, 0, "next"),
            _load(_W, _R2, _R6, _DATA),
            _load(_W, _R3, _R6, _DATA_END),
            _move(_R4, _R2),
            _add(_R4, 14),
            _if_greater_register(_R4, _R3, "next"),
            # The key, on the stack.
            _load(_DW, _R1, _R2, 0),
            _store(_DW, _R10, -24, _R1),
            _load(_W, _R1, _R2, 8),
            _store(_W, _R10, -16, _R1),
            _load(_H, _R1, _R2, 12),
            _store(_H, _R10, -12, _R1),
            _store_zero(_H, _R10, -10),
            _load(_W, _R1, _R6, _IFINDEX),
            _store(_W, _R10, -8, _R1),
            _map(_R1, pairs_fd),
            _move(_R2, _R10),
            _add(_R2, -24),
            _call(_LOOKUP),
            _if_equal(_R0, 0, "next"),
            _move(_R7, _R0),
            # When it was last used: a line that says the same already is not made dirty.
            _call(_COARSE_TIME),
            _load(_DW, _R1, _R7, 8),
            _if_equal_register(_R1, _R0, "used"),
            _store(_DW, _R7, 8, _R0),
            "used",
            _load(_W, _R1, _R7, 4),
            _if_equal(_R1, REDIRECT, "plain"),
            _move(_R1, _R6),
            _set(_R2, 0),
            _call(_CHANGE_TYPE),  # PACKET_HOST, which kernels before 6.15 leave to us
            _load(_W, _R1, _R7, 0),
            _set(_R2, 0),
            _call(_REDIRECT_PEER),
            _exit(),
            "plain",
            _load(_W, _R1, _R7, 0),
            _set(_R2, 0),
            _call(_REDIRECT),
            _exit(),
            "next",
            _set(_R0, _NEXT),
            _exit(),
        ]
    )
