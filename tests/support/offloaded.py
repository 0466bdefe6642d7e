"""GSO frames with the segments that a wire would see, in tunnels too, as vnet messages for a core and for the model."""

from __future__ import annotations

import struct
from typing import Any

from frames import ethernet, tag
from hypothesis import strategies as st
from link_model import Offloaded
from segmentation import (
    ACK,
    CWR,
    DF,
    FIN,
    GSO_NONE,
    NEEDS_CSUM,
    PSH,
    TCP,
    TCPV4,
    TCPV6,
    UDP,
    UDP_L4,
    VNET,
    Packet,
    add,
    complete,
    finish,
    pseudo_header,
    put,
    segment,
)

ETHERTYPES = {4: 0x0800, 6: 0x86DD}
VXLAN, GRE, IPIP = "vxlan", "gre", "ipip"
IP_IN_IP = {4: 4, 6: 41}
GRE_PROTOCOL = 47


def gso(packet: Packet, size: int) -> bytes:
    """The message of a packet that is to be cut into segments with so much payload."""
    message = packet.but(pending=True).message()
    _, _, _, _, start, offset = VNET.unpack_from(message)
    kind = UDP_L4 if packet.protocol == UDP else TCPV4 if packet.version == 4 else TCPV6
    return VNET.pack(NEEDS_CSUM, kind, start + len(packet.header()), size, start, offset) + message[VNET.size :]


def wrap(inner: bytes, kind: str, version: int, checked: bool, ident: int, ends: tuple[int, int]) -> bytes:
    """A frame (Ethernet) in a tunnel between two stations, its checksums complete."""
    network = 14 if kind == VXLAN else 0
    packet, inside = (inner, 0x6558) if kind == VXLAN else (inner[14:], int.from_bytes(inner[12:14], "big"))
    assert network or inside in ETHERTYPES.values()
    if kind == VXLAN:
        protocol = UDP
        body = struct.pack("!HHHHB3xI", 50_000, 4_789, 16 + len(packet), 0, 8, 7 << 8) + packet
    elif kind == GRE:
        protocol = GRE_PROTOCOL
        body = struct.pack("!HH", 0x8000 if checked else 0, inside) + (bytes(4) if checked else b"") + packet
    else:
        protocol, body = IP_IN_IP[4 if inside == ETHERTYPES[4] else 6], packet
    if version == 4:
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), ident % (1 << 16), DF, 64, protocol, 0)
        ip += bytes([172, 16, 0, 1, 172, 16, 0, 2])
        ip = put(ip, 10, ~add(ip))
    else:
        ip = struct.pack("!IHBB", 6 << 28, len(body), protocol, 64) + bytes(15) + b"\1" + bytes(15) + b"\2"
    if checked and kind == VXLAN:
        body = put(body, 6, finish(add(pseudo_header(ip, version, UDP, len(body)) + body), UDP))
    if checked and kind == GRE:
        body = put(body, 4, ~add(body))
    return ethernet(*ends, ethertype=ETHERTYPES[version], payload=ip + body)


def tunnelled(packet: Packet, size: int, kind: str, version: int, checked: bool) -> tuple[bytes, list[bytes]]:
    """The message of a GSO packet in a tunnel, and the frames that it is on a wire."""
    inner = gso(packet, size)
    flags, gso_type, header_length, _, start, offset = VNET.unpack_from(inner)
    ends, ident = (packet.destination, packet.source), 65_534
    outer = wrap(inner[VNET.size :], kind, version, checked, ident, ends)
    moved = len(outer) - len(inner) + VNET.size
    vnet = VNET.pack(flags, gso_type, header_length + moved, size, start + moved, offset)
    return vnet + outer, [wrap(each, kind, version, checked, ident + n, ends) for n, each in enumerate(segment(inner))]


def read(message: bytes, known: dict[bytes, Offloaded]) -> list[bytes]:
    """What a message is on a wire."""
    if message in known:
        return list(known[message].segments)
    return [complete(message)] if VNET.unpack_from(message)[1] == GSO_NONE else segment(message)


def on_wire(frame: bytes) -> list[bytes]:
    return list(frame.segments) if isinstance(frame, Offloaded) else [frame]


@st.composite
def sent(draw: st.DrawFn, destinations: list[int], source: int) -> tuple[bytes, bytes]:
    """A message, and the frame that the model has for it."""
    protocol, version = draw(st.sampled_from([TCP, TCP, UDP])), draw(st.sampled_from([4, 6]))
    size = draw(st.sampled_from([7, 100, 1_400]))
    fields: dict[str, Any] = {"options": draw(st.sampled_from([b"", bytes(12)]))} if protocol == TCP else {}
    packet = Packet(
        version=version,
        protocol=protocol,
        destination=draw(st.sampled_from(destinations)),
        source=source,
        tags=draw(st.sampled_from([b"", b"", tag(5)])),
        ident=draw(st.sampled_from([1, 65_530])),
        seq=draw(st.sampled_from([0, (1 << 32) - 50])),
        flags=draw(st.sampled_from([ACK, ACK | PSH, ACK | FIN | PSH, ACK | CWR])),
        **fields,
    )
    what = draw(st.sampled_from(["plain", "pending", "gso", "gso", "tunnel"]))
    if what in ("plain", "pending"):
        message = packet.but(payload=bytes(range(draw(st.integers(0, 99)))), pending=what == "pending").message()
        return message, complete(message)
    length = draw(st.integers(size + 1, 9 * size))
    packet = packet.but(payload=bytes(n * 7 % 251 for n in range(length)))
    if what == "gso":
        message = gso(packet, size)
        return message, Offloaded(message[VNET.size :], segment(message))
    kind, outer = draw(st.sampled_from([VXLAN, GRE, IPIP])), draw(st.sampled_from([4, 6]))
    message, segments = tunnelled(packet.but(tags=b""), size, kind, outer, draw(st.booleans()))
    return message, Offloaded(message[VNET.size :], segments)
