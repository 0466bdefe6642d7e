"""Frames with pending checksum and segmentation, as a pod's own stack sends them by default."""

from __future__ import annotations

import random
import struct

from frames import ethernet
from live import VnetHeader

TCP4, UDP4, TCP6, NEEDS_CSUM, UDP_L4 = 1, 3, 4, 1, 5


def gso_frame(destination: int, source: int, tags: bytes, version: int, size: int) -> tuple[bytes, VnetHeader]:
    """A TCP segment of `size` bytes, to be cut into pieces of 1,000, its checksum pending (only the pseudo header)."""
    if version == 4:
        ip = struct.pack(
            "!BBHHHBBH4s4s", 0x45, 0, 40 + size, 1, 0, 64, 6, 0, bytes([10, 9, 0, 1]), bytes([10, 9, 0, 2])
        )
        ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
        pseudo = ip[12:20] + struct.pack("!HH", 6, 20 + size)
    else:
        ip = struct.pack("!IHBB16s16s", 6 << 28, 20 + size, 6, 64, b"\xfd" + bytes(14) + b"\x01", bytes(16))
        pseudo = ip[8:40] + struct.pack("!IHH", 20 + size, 0, 6)
    tcp = struct.pack("!HHIIHHHH", 5_000, 6_000, 1, 1, 5 << 12 | 0x10, 65_535, ~checksum(pseudo) & 0xFFFF, 0)
    payload = (b"fastbridge" + random.Random(size).randbytes(size))[:size]
    frame = ethernet(
        destination, source, tags, ethertype=0x0800 if version == 4 else 0x86DD, payload=ip + tcp + payload
    )
    start = 14 + len(tags) + len(ip)
    return frame, VnetHeader(NEEDS_CSUM, TCP4 if version == 4 else TCP6, start + 20, 1_000, start, 16)


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
