"""Frames, in words.

Says in one line what a frame is about, from its header of ARP (RFC 826), ICMP (RFC 792), neighbour discovery
(RFC 4861), TCP or UDP.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from .addresses import MacAddress

_ECHO = {8: "echo request", 0: "echo reply"}
_ECHO6 = {128: "echo request", 129: "echo reply"}
_TAGS = (0x8100, 0x88A8)
_TCP, _UDP = 6, 17
_FLAGS = ("FIN", "SYN", "RST")  # from bit 0 on: those by which connections begin and end


class Dissected(NamedTuple):
    """What a frame is about."""

    protocol: str
    text: str
    chatter: bool = False  #: a kernel's own housekeeping: it answers nobody


class Header(NamedTuple):
    """The Ethernet header."""

    destination: MacAddress
    source: MacAddress

    @property
    def kind(self) -> str:
        """The kind of destination."""
        if self.destination == (1 << 48) - 1:
            return "broadcast"
        return "multicast" if self.destination.is_group else "unicast"


def header(frame: bytes) -> Header:
    """The addresses of a frame of at least 14 bytes."""
    return Header(MacAddress(frame[:6]), MacAddress(frame[6:12]))


def dissect(frame: bytes) -> Dissected:
    """Say what a frame of at least 14 bytes is about; it may be cut short anywhere."""
    ethertype, body, tags = int.from_bytes(frame[12:14], "big"), frame[14:], ""
    try:
        while ethertype in _TAGS:
            tci, ethertype = struct.unpack_from("!HH", body)
            tags, body = f"{tags}VLAN {tci & 0xFFF}, ", body[4:]
        reader = {0x0806: _arp, 0x0800: _ipv4, 0x86DD: _ipv6}.get(ethertype)
        found = reader(body) if reader else Dissected(f"{ethertype:#06x}", f"{len(body)} bytes")
    except struct.error:
        found = Dissected(f"{ethertype:#06x}", "cut short")
    return found._replace(text=tags + found.text)


def _arp(body: bytes) -> Dissected:
    operation, mac, sender, _, target = struct.unpack_from("!6xH6s4s6s4s", body)
    asker, wanted = IPv4Address(sender), IPv4Address(target)
    if asker == wanted:
        return Dissected("ARP", f"announcement: {asker} is at {MacAddress(mac)}", chatter=True)
    if operation == 1:
        return Dissected("ARP", f"request: who has {wanted}? tell {asker}")
    return Dissected("ARP", f"reply: {asker} is at {MacAddress(mac)}")


def _ipv4(body: bytes) -> Dissected:
    first, fragment, protocol, source, destination = struct.unpack_from("!B5xHxB2x4s4s", body)
    ends = f"{IPv4Address(source)} > {IPv4Address(destination)}"
    if protocol in (_TCP, _UDP) and not fragment & 0x1FFF:
        return _transport(protocol, body[(first & 0xF) * 4 :], str(IPv4Address(source)), str(IPv4Address(destination)))
    if protocol != 1:
        return Dissected("IPv4", f"protocol {protocol}, {ends}")
    kind = struct.unpack_from("!B", body, (first & 0xF) * 4)[0]
    return Dissected("ICMP", f"{_ECHO.get(kind, f'type {kind}')}, {ends}")


def _ipv6(body: bytes) -> Dissected:
    protocol, source, destination = struct.unpack_from("!6xBx16s16s", body)
    offset = 40
    if protocol == 0:  # hop-by-hop options: multicast reports have them
        protocol, length = struct.unpack_from("!BB", body, offset)
        offset += 8 * (length + 1)
    ends = f"{IPv6Address(source)} > {IPv6Address(destination)}"
    if protocol in (_TCP, _UDP):
        return _transport(protocol, body[offset:], f"[{IPv6Address(source)}]", f"[{IPv6Address(destination)}]")
    if protocol != 58:
        return Dissected("IPv6", f"protocol {protocol}, {ends}")
    return _icmpv6(body[offset:], IPv6Address(source), ends)


def _transport(protocol: int, segment: bytes, source: str, destination: str) -> Dissected:
    here, there = struct.unpack_from("!HH", segment)
    ends = f"{source}:{here} > {destination}:{there}"
    if protocol == _UDP:
        return Dissected("UDP", ends)
    (bits,) = struct.unpack_from("!B", segment, 13)
    return Dissected("TCP", " ".join([ends, *(name for bit, name in enumerate(_FLAGS) if bits >> bit & 1)]))


def _icmpv6(message: bytes, source: IPv6Address, ends: str) -> Dissected:
    kind = struct.unpack_from("!B", message)[0]
    if kind in (135, 136):
        target = IPv6Address(struct.unpack_from("!8x16s", message)[0])
        if kind == 135 and source.is_unspecified:
            return Dissected("ND", f"solicitation: does anybody else have {target}?", chatter=True)
        if kind == 135:
            return Dissected("ND", f"solicitation: who has {target}? tell {source}")
        link_layer = message[26:32] if message[24:26] == b"\x02\x01" and len(message) >= 32 else None
        return Dissected("ND", f"advertisement: {target}" + (f" is at {MacAddress(link_layer)}" if link_layer else ""))
    if kind in (133, 143):
        return Dissected("ICMPv6", {133: "router solicitation", 143: "multicast listener report"}[kind], chatter=True)
    return Dissected("ICMPv6", f"{_ECHO6.get(kind, f'type {kind}')}, {ends}")
