"""Frames, made by hand: what the tests send."""

from __future__ import annotations

import struct

GROUP = 0xFFFF_FFFF_FFFF
TEST_ETHERTYPE = 0x88B5  # "local experimental" (IEEE 802): no stack answers it


def tag(vid: int, *, tpid: int = 0x8100, priority: int = 0) -> bytes:
    return struct.pack("!HH", tpid, priority << 13 | vid)


def ethernet(
    destination: int, source: int, tags: bytes = b"", *, ethertype: int = TEST_ETHERTYPE, payload: bytes = b"fastbridge"
) -> bytes:
    return destination.to_bytes(6, "big") + source.to_bytes(6, "big") + tags + struct.pack("!H", ethertype) + payload
