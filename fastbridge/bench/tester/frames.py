"""Frames of a stream.

Each stream has its frames as templates: the bytes before the trailing zeros, and a length. Many stations behind a port
need no templates, because the generator counts their addresses in place. Lengths here are without FCS.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface
from itertools import islice
from math import gcd, lcm
from typing import Any

from fastbridge.arp_nd import ALL_NODES, ALL_NODES_MAC, BROADCAST, NO_MAC, link_local, neighbour_solicitation_to
from fastbridge.errors import BenchError
from fastbridge.lab.pods import Pod

from .offer import FCS, Stream

ETHERTYPE = b"\x88\xb5"  #: IEEE 802 local experimental: no kernel answers it
UDP_PORT = 40009  #: the tester keeps a socket there, so that no pod answers "port unreachable"
FIRST_FLOW = 49152  #: source port of the first flow (RFC 6335 §6: dynamic ports)
MOST_TEMPLATES = 1 << 16
_IPV4, _ARP_REQUEST = b"\x08\x00", bytes.fromhex("0806 0001 0800 0604 0001")
_UDP = 17


@dataclass(frozen=True)
class AddressRange:
    """Addresses first to first+count-1 of a port."""

    own: bytes  #: address 0
    behind: bytes  #: the first three bytes of address n
    first: int
    count: int

    def described(self) -> list[Any]:
        """For the agent, as JSON."""
        return [self.own.hex(), self.behind.hex(), self.first, self.count]


@dataclass(frozen=True)
class LanePlan:
    """One stream, ready for the generator."""

    port: int
    templates: Sequence[tuple[bytes, int]]
    sources: AddressRange | None = None  #: None: the addresses in the templates
    targets: Sequence[AddressRange] = ()

    def described(self) -> dict[str, Any]:
        """For the agent, as JSON."""
        return {
            "frames": [(start.hex(), length) for start, length in self.templates],
            "sources": self.sources and self.sources.described(),
            "targets": [targets.described() for targets in self.targets],
        }


def station_mac(pod_mac: bytes, port: int, number: int) -> bytes:
    """MAC address `number` of a port. Number 0 is the pod's own; the others are locally administered."""
    return b"\x12" + port.to_bytes(2, "big") + number.to_bytes(3, "big") if number else pod_mac


def address_range(pods: Sequence[Pod], port: int, first: int, count: int) -> AddressRange:
    """A range of addresses of a port."""
    return AddressRange(pods[port].mac.packed, station_mac(b"", port, 1), first, count)


def plan(stream: Stream, pods: Sequence[Pod]) -> LanePlan:
    """The frames of `stream`. Raise BenchError if a pod lacks an address that they need."""
    make = {"ethernet": _ethernet, "udp": _udp, "arp": _arp, "nd": _nd}[stream.kind]
    templates = list(islice(make(stream, pods), MOST_TEMPLATES + 1))
    if len(templates) > MOST_TEMPLATES:
        raise BenchError(f"more than {MOST_TEMPLATES} different frames in a stream: fewer sizes, destinations or flows")
    sources = targets = None
    if stream.sources > 1:
        sources = address_range(pods, stream.source, stream.first, stream.sources)
    if stream.targets > 1 or (stream.kind == "ethernet" and len(stream.destinations) > 1):
        targets = tuple(address_range(pods, port, stream.first, stream.targets) for port in stream.destinations)
    return LanePlan(stream.source, templates, sources, targets or ())


def announcement(pods: Sequence[Pod], port: int, first: int, count: int) -> LanePlan:
    """Frames from each address of a range to itself.

    A switch learns the address, then finds the destination on the ingress port. So it floods nothing.
    """
    addresses = address_range(pods, port, first, count)
    mac = station_mac(addresses.own, port, first)
    counted = (addresses, (addresses,)) if count > 1 else (None, ())
    return LanePlan(port, [(mac + mac + ETHERTYPE, 60)], *counted)


def _source(stream: Stream, pods: Sequence[Pod]) -> bytes:
    return station_mac(pods[stream.source].mac.packed, stream.source, stream.first)


def _destinations(stream: Stream, pods: Sequence[Pod], group: bytes) -> list[tuple[bytes, Pod | None]]:
    """MAC address of each destination, and its pod."""
    if not stream.destinations:
        return [(group, None)]
    found = [(pods[port], port) for port in stream.destinations]
    return [(station_mac(pod.mac.packed, port, stream.first), pod) for pod, port in found]


def _ethernet(stream: Stream, pods: Sequence[Pod]) -> Iterator[tuple[bytes, int]]:
    # Frame n goes to destination n % destinations with size n % sizes. With a common divisor d of the two counts, d
    # rounds of sizes follow each other. Each round begins one size later, so every destination gets every size.
    header = _destinations(stream, pods, BROADCAST)[0][0] + _source(stream, pods) + ETHERTYPE
    rounds = gcd(len(stream.sizes), max(1, len(stream.destinations)))
    for turn in range(rounds):
        for size in (*stream.sizes[turn:], *stream.sizes[:turn]):
            yield header, size - FCS


def _udp(stream: Stream, pods: Sequence[Pod]) -> Iterator[tuple[bytes, int]]:
    # All destinations get one size and flow before the next, so each destination gets every size and flow.
    if stream.flows > (1 << 16) - FIRST_FLOW:
        raise BenchError(f"{stream.flows} flows: there are only {(1 << 16) - FIRST_FLOW} source ports")
    source, ip = _source(stream, pods), _ipv4(pods[stream.source])
    destinations = [
        (mac, _ipv4(pod).packed if pod else b"\xff" * 4) for mac, pod in _destinations(stream, pods, BROADCAST)
    ]
    for turn in range(lcm(len(stream.sizes), stream.flows)):
        length = max(stream.sizes[turn % len(stream.sizes)] - FCS, 42)
        for mac, address in destinations:
            port = FIRST_FLOW + turn % stream.flows
            yield mac + source + _IPV4 + udp_datagram(ip.packed, address, port, length - 14), length


def _arp(stream: Stream, pods: Sequence[Pod]) -> Iterator[tuple[bytes, int]]:
    source, interface = _own_source(stream, pods), _ipv4(pods[stream.source])
    nobody = interface.network.broadcast_address - 1 - stream.source
    asked = _ARP_REQUEST + source + interface.packed + NO_MAC + nobody.packed
    for size in stream.sizes:
        for mac, _ in _destinations(stream, pods, BROADCAST):
            yield mac + source + asked, max(size - FCS, 14 + 28)


def _nd(stream: Stream, pods: Sequence[Pod]) -> Iterator[tuple[bytes, int]]:
    source = _own_source(stream, pods)
    for size in stream.sizes:
        for mac, pod in _destinations(stream, pods, ALL_NODES_MAC):
            nobody = link_local(station_mac(b"", stream.source, (1 << 24) - 1))
            frame = neighbour_solicitation_to(mac, nobody, source)
            if pod is None:
                frame = _to_all_nodes(frame)
            yield frame, max(size - FCS, len(frame))


def _to_all_nodes(frame: bytes) -> bytes:
    """The same solicitation to IPv6 destination ff02::1, with the right checksum (RFC 8200 §8.1)."""
    body = frame[22:38] + ALL_NODES + frame[54:56] + bytes(2) + frame[58:]
    checksum = _checksum(body + struct.pack("!II", len(frame) - 54, 58))
    return frame[:38] + ALL_NODES + frame[54:56] + checksum + frame[58:]


def udp_datagram(source: bytes, destination: bytes, port: int, length: int) -> bytes:
    """Headers, with checksums, of an IPv4 packet of `length` bytes with a UDP datagram of zeros (RFC 791, 768)."""
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, length, 0, 0x4000, 64, _UDP, 0, source, destination)
    header = header[:10] + _checksum(header) + header[12:]
    udp = struct.pack("!HHH", port, UDP_PORT, length - 20)
    checksum = _checksum(source + destination + struct.pack("!HH", _UDP, length - 20) + udp)
    return header + udp + (checksum if any(checksum) else b"\xff\xff")


def _checksum(data: bytes) -> bytes:
    # Modulo 65535, the sum of 16-bit words equals the bytes read as one number, since 65536 ≡ 1 (RFC 1071).
    return (65535 - int.from_bytes(data, "big") % 65535).to_bytes(2, "big")


def _own_source(stream: Stream, pods: Sequence[Pod]) -> bytes:
    if stream.sources > 1:
        raise BenchError(f"{stream.kind} frames name their sender: a stream of them has one source")
    return _source(stream, pods)


def _ipv4(pod: Pod) -> IPv4Interface:
    if pod.ipv4 is None:
        raise BenchError(f"{pod.name} has no IPv4 address")
    return pod.ipv4
