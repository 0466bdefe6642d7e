"""Packets made by hand, and the frames that TSO and USO cut a GSO frame into, from the documents alone.

struct virtio_net_hdr is that of the virtio specification 1.2, §5.1.6; what a segment is to look like follows from its
"driver requirements: packet transmission" and from RFC 791, 1071, 8200, 9293 and 768.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Any

from frames import ethernet

VNET = struct.Struct("=BBHHHH")  # flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
NEEDS_CSUM, GSO_NONE, TCPV4, TCPV6, UDP_L4 = 1, 0, 1, 4, 5
TCP, UDP = 6, 17
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))
DF, MF = 0x4000, 0x2000
CHECK_OFFSET = {TCP: 16, UDP: 6}


def add(data: bytes) -> int:
    """The ones' complement sum of RFC 1071."""
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def put(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + struct.pack("!H", value & 0xFFFF) + data[at + 2 :]


@dataclass(frozen=True)
class Packet:
    """A TCP segment or UDP datagram of one flow. Fields that are not given are the flow's."""

    version: int = 4
    protocol: int = TCP
    payload: bytes = b""
    destination: int = 0
    source: int = 0
    tags: bytes = b""
    ident: int = 0
    fragment: int = DF
    ttl: int = 64
    tos: int = 0
    label: int = 0
    address: int = 1
    ip_options: bytes = b""
    ports: tuple[int, int] = (5_000, 6_000)
    seq: int = 0
    ack: int = 77
    window: int = 500
    flags: int = ACK
    urgent: int = 0
    options: bytes = b""
    pending: bool = False
    padding: bytes = b""

    def but(self, **fields: Any) -> Packet:
        return replace(self, **fields)

    def header(self) -> bytes:
        """TCP's or UDP's, its checksum 0."""
        if self.protocol == UDP:
            return struct.pack("!HHHH", *self.ports, 8 + len(self.payload), 0)
        offset = (20 + len(self.options)) // 4 << 12
        fixed = (*self.ports, self.seq % (1 << 32), self.ack, offset | self.flags, self.window, 0, self.urgent)
        return struct.pack("!HHIIHHHH", *fixed) + self.options

    def ip(self, length: int) -> bytes:
        if self.version == 6:
            first = 6 << 28 | self.tos << 20 | self.label
            addresses = b"\xfd" + bytes(14) + bytes([self.address]) + b"\xfd" + bytes(14) + b"\x99"
            return struct.pack("!IHBB", first, length, self.protocol, self.ttl) + addresses
        words = (20 + len(self.ip_options)) // 4
        made = struct.pack(
            "!BBHHHBBH4s4s",
            0x40 | words,
            self.tos,
            4 * words + length,
            self.ident % (1 << 16),
            self.fragment,
            self.ttl,
            self.protocol,
            0,
            bytes([10, 0, 0, self.address]),
            bytes([10, 0, 0, 99]),
        )
        made += self.ip_options
        return put(made, 10, ~add(made))

    def message(self) -> bytes:
        """Vnet header and frame, as a veth pair's end hands it over."""
        header = self.header()
        ip = self.ip(len(header) + len(self.payload))
        pseudo = pseudo_header(ip, self.version, self.protocol, len(header) + len(self.payload))
        check = CHECK_OFFSET[self.protocol]
        if self.pending:
            header = put(header, check, add(pseudo))
        else:
            header = put(header, check, finish(add(pseudo + header + self.payload), self.protocol))
        ethertype = 0x0800 if self.version == 4 else 0x86DD
        body = ip + header + self.payload + self.padding
        frame = ethernet(self.destination, self.source, self.tags, ethertype=ethertype, payload=body)
        start = 14 + len(self.tags) + len(ip)
        vnet = (NEEDS_CSUM, GSO_NONE, 0, 0, start, check) if self.pending else (0, GSO_NONE, 0, 0, 0, 0)
        return VNET.pack(*vnet) + frame


def finish(total: int, protocol: int) -> int:
    """The checksum of a sum; UDP has 0xffff for 0 (RFC 768)."""
    check = ~total & 0xFFFF
    return 0xFFFF if protocol == UDP and check == 0 else check


def pseudo_header(ip: bytes, version: int, protocol: int, length: int) -> bytes:
    if version == 4:
        return ip[12:20] + struct.pack("!HH", protocol, length)
    return ip[8:40] + struct.pack("!IHH", length, 0, protocol)


def complete(message: bytes) -> bytes:
    """The frame of a message without GSO. A pending checksum is computed."""
    flags, gso_type, _, _, start, offset = VNET.unpack_from(message)
    frame = message[VNET.size :]
    assert gso_type == GSO_NONE
    if not flags & NEEDS_CSUM or start + offset + 2 > len(frame):
        return frame
    return put(frame, start + offset, finish(add(frame[start:]), UDP if offset == CHECK_OFFSET[UDP] else TCP))


def segment(message: bytes) -> list[bytes]:
    """The frames that a message becomes on the wire, checksums computed."""
    flags, gso_type, header_length, size, start, offset = VNET.unpack_from(message)
    if gso_type == GSO_NONE:
        return [complete(message)]
    frame = message[VNET.size :]
    protocol = UDP if gso_type == UDP_L4 else TCP
    assert gso_type in (TCPV4, TCPV6, UDP_L4)
    assert (flags, offset) == (NEEDS_CSUM, CHECK_OFFSET[protocol])
    network = 14
    while frame[network - 2 : network] in (b"\x81\x00", b"\x88\xa8"):
        network += 4
    version = frame[network] >> 4
    assert frame[network - 2 : network] == (b"\x08\x00" if version == 4 else b"\x86\xdd")
    assert gso_type in (TCPV4 if version == 4 else TCPV6, UDP_L4)
    assert start == network + (20 if version == 4 else 40)
    header = frame[start : start + (8 if protocol == UDP else (frame[start + 12] >> 4) * 4)]
    assert header_length == start + len(header)
    payload = frame[header_length:]
    ip = frame[network:start]
    check_whole(ip, header, payload, version, protocol)
    assert len(payload) > size
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)]
    assert len(pieces) <= 64
    made = []
    for n, piece in enumerate(pieces):
        own_ip, own = ip, header
        length = len(header) + len(piece)
        if version == 4:
            own_ip = put(put(put(ip, 2, 20 + length), 4, struct.unpack_from("!H", ip, 4)[0] + n), 10, 0)
            own_ip = put(own_ip, 10, ~add(own_ip))
        else:
            own_ip = put(ip, 4, length)
        if protocol == UDP:
            own = put(own, 4, length)
        else:
            seq = (struct.unpack_from("!I", header, 4)[0] + n * size) % (1 << 32)
            bits = header[13] & ~(0 if n == len(pieces) - 1 else FIN | PSH) & ~(CWR if n else 0)
            own = header[:4] + struct.pack("!I", seq) + header[8:13] + bytes([bits]) + header[14:]
        own = put(own, offset, 0)
        total = add(pseudo_header(own_ip, version, protocol, length) + own + piece)
        made.append(frame[:network] + own_ip + put(own, offset, finish(total, protocol)) + piece)
    return made


def check_whole(ip: bytes, header: bytes, payload: bytes, version: int, protocol: int) -> None:
    """A GSO frame's own headers are those of one large packet, its checksum pending."""
    length = len(header) + len(payload)
    if version == 4:
        assert ip[0] == 0x45
        assert struct.unpack_from("!H", ip, 2) == (20 + length,)
        assert add(ip) == 0xFFFF
    else:
        assert struct.unpack_from("!H", ip, 4) == (length,)
    assert length + len(ip) <= 65_535
    if protocol == UDP:
        assert struct.unpack_from("!H", header, 4) == (length,)
    pseudo = add(pseudo_header(ip, version, protocol, length))
    assert struct.unpack_from("!H", header, CHECK_OFFSET[protocol]) == (pseudo,)
