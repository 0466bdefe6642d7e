"""Headers: the offsets that the kernel reads in an untagged frame, and the first bytes of a pair's frames."""

from __future__ import annotations

from .hand import IPV4, Pair

HEADER_BYTES = 14
IPV4_SOURCE, IPV6_SOURCE = HEADER_BYTES + 12, HEADER_BYTES + 8
IPV6_NEXT_HEADER, ICMPV6_TYPE = HEADER_BYTES + 6, HEADER_BYTES + 40


def header_of(pair: Pair) -> bytes:
    """The first 14 bytes of a pair's frames."""
    return pair.destination.to_bytes(6, "big") + pair.source.to_bytes(6, "big") + pair.ethertype.to_bytes(2, "big")


def ip_of(pair: Pair) -> bytes:
    """A pair's IP address in a key: 16 bytes, an IPv4 address first; or none."""
    return pair.ip[12:] + bytes(12) if pair.ip and pair.ethertype == IPV4 else pair.ip


def read_pair(ingress: int, header: bytes, ip: bytes) -> Pair:
    """The pair with this header and this IP address, as `ip_of` gives it."""
    destination, source, ethertype = (int.from_bytes(part, "big") for part in (header[:6], header[6:12], header[12:]))
    if ip and ethertype == IPV4:
        ip = b"\xff" + bytes(11) + ip[:4]
    return Pair(ingress, destination, source, ethertype, ip)
