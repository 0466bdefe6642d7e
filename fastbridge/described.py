"""Frames, from words.

Makes the frame that a line such as "arp who-has 10.0.0.2 tell 10.0.0.1" describes, as tcpdump would print it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from .addresses import MacAddress
from .errors import ConfigError

IpAddress = IPv4Address | IPv6Address

#: What can be described.
FORMS = (
    "arp who-has IP tell IP",
    "arp reply IP is-at MAC",
    "nd who-has IP tell IP",
    "nd IP is-at MAC",
    "icmp IP > IP",
    "udp IP > IP",
)
_BROADCAST = MacAddress((1 << 48) - 1)
_IPV4, _ARP, _IPV6, _EXPERIMENT = 0x0800, 0x0806, 0x86DD, 0x88B5
_PORT = 9  # UDP's "discard"
_SHORTEST = 60  # an Ethernet frame without FCS


class Said(NamedTuple):
    """What one form says."""

    ethertype: int
    source: IpAddress | MacAddress | None
    destination: IpAddress | MacAddress | None
    body: Callable[[MacAddress], bytes]  #: by the source MAC address


def describe(
    text: str,
    find: Callable[[IpAddress], MacAddress | None],
    *,
    src: str | None = None,
    dst: str | None = None,
    vlan: int = 0,
    ethertype: int | None = None,
) -> bytes:
    """The frame that a text of FORMS describes; an empty text: one that only has the addresses below.

    find: who has an IP address, as far as it is known. src, dst: MAC addresses in place of those found or implied.
    Raises ConfigError.
    """
    if not 0 <= vlan <= 4094:
        raise ConfigError(f"VLAN id {vlan} is outside 0 … 4094")
    said = _read(text) if text.strip() else Said(_EXPERIMENT, None, None, lambda source: b"")
    source = _resolve(said.source, src, "--src", find)
    destination = _resolve(said.destination, dst, "--dst", find)
    tag = struct.pack("!HH", 0x8100, vlan) if vlan else b""
    kind = struct.pack("!H", said.ethertype if ethertype is None else ethertype)
    return (destination.packed + source.packed + tag + kind + said.body(source)).ljust(_SHORTEST, b"\0")


def _resolve(
    wanted: IpAddress | MacAddress | None,
    given: str | None,
    option: str,
    find: Callable[[IpAddress], MacAddress | None],
) -> MacAddress:
    if given is not None:
        return MacAddress(given)
    if isinstance(wanted, MacAddress):
        return wanted
    if wanted is None:
        raise ConfigError(f"the frame's addresses are not known: give {option} MAC")
    found = find(wanted)
    if found is None:
        raise ConfigError(f"no neighbour has {wanted} (`neigh show` lists them): give its MAC address by {option}")
    return found


def _read(text: str) -> Said:
    words = text.lower().replace(",", " ").split()
    line = " ".join(words)
    if match := re.fullmatch(r"arp (?:request )?who-has (\S+) tell (\S+)", line):
        wanted, asker = _ips(4, *match.groups())
        return Said(_ARP, asker, _BROADCAST, lambda source: _arp(1, source, asker, MacAddress(0), wanted))
    if match := re.fullmatch(r"arp reply (\S+) is-at (\S+)", line):
        (owner,), mac = _ips(4, match[1]), MacAddress(match[2])
        return Said(_ARP, mac, _BROADCAST, lambda source: _arp(2, mac, owner, _BROADCAST, owner))
    if match := re.fullmatch(r"nd who-has (\S+) tell (\S+)", line):
        wanted, asker = _ips(6, *match.groups())
        group = IPv6Address(b"\xff\x02" + bytes(9) + b"\x01\xff" + wanted.packed[13:])
        to = MacAddress(b"\x33\x33" + group.packed[12:])
        return Said(_IPV6, asker, to, lambda source: _nd(135, 0, asker, group, wanted, b"\x01\x01" + source.packed))
    if match := re.fullmatch(r"nd (\S+) is-at (\S+)", line):
        (owner,), mac = _ips(6, match[1]), MacAddress(match[2])
        nodes, to = IPv6Address("ff02::1"), MacAddress("33:33:00:00:00:01")
        return Said(_IPV6, mac, to, lambda source: _nd(136, 0x20, owner, nodes, owner, b"\x02\x01" + mac.packed))
    if match := re.fullmatch(r"(icmp|udp) (\S+) ?> ?(\S+)", line):
        source, destination = _ip(match[2]), _ip(match[3])
        if source.version != destination.version:
            raise ConfigError(f"{source} and {destination} are of different IP versions")
        packet = _packet(match[1], source, destination)
        return Said(_IPV4 if source.version == 4 else _IPV6, source, _to(destination), lambda mac: packet)
    raise ConfigError(f"{text!r} describes no frame; write hexadecimal digits, or one of: {'; '.join(FORMS)}")


def _to(ip: IpAddress) -> IpAddress | MacAddress:
    """The destination's address, or the MAC address of a group."""
    if isinstance(ip, IPv4Address):
        if ip == IPv4Address("255.255.255.255"):
            return _BROADCAST
        return MacAddress(0x01005E << 24 | int(ip) & 0x7FFFFF) if ip.is_multicast else ip
    return MacAddress(b"\x33\x33" + ip.packed[12:]) if ip.is_multicast else ip


def _ip(text: str) -> IpAddress:
    try:
        return ip_address(text)
    except ValueError:
        raise ConfigError(f"{text!r} is not an IP address; write it as 10.0.0.1 or fd00::1") from None


def _ips(version: int, *texts: str) -> list[IpAddress]:
    ips = [_ip(text) for text in texts]
    for ip in ips:
        if ip.version != version:
            raise ConfigError(f"{ip} is not an IPv{version} address: ARP asks for IPv4, nd for IPv6")
    return ips


def _arp(operation: int, mac: MacAddress, ip: IpAddress, target_mac: MacAddress, target: IpAddress) -> bytes:
    start = struct.pack("!HHBBH", 1, _IPV4, 6, 4, operation)
    return start + mac.packed + ip.packed + target_mac.packed + target.packed


def _nd(kind: int, flags: int, source: IpAddress, to: IpAddress, target: IpAddress, option: bytes) -> bytes:
    return _ipv6(58, 255, source, to, struct.pack("!BBHB3x", kind, 0, 0, flags) + target.packed + option)


def _packet(protocol: str, source: IpAddress, destination: IpAddress) -> bytes:
    text = b"fastbridge"
    if protocol == "udp":
        number, payload = 17, struct.pack("!HHHH", _PORT, _PORT, 8 + len(text), 0) + text
    elif source.version == 4:
        number, payload = 1, struct.pack("!BBHHH", 8, 0, 0, 1, 1) + text
        payload = payload[:2] + _checksum(payload) + payload[4:]
    else:
        number, payload = 58, struct.pack("!BBHHH", 128, 0, 0, 1, 1) + text
    if source.version == 6:
        return _ipv6(number, 64, source, destination, payload)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, number, 0) + source.packed
    head += destination.packed
    return head[:10] + _checksum(head) + head[12:] + payload


def _ipv6(protocol: int, hops: int, source: IpAddress, destination: IpAddress, payload: bytes) -> bytes:
    at = 6 if protocol == 17 else 2  # where UDP and ICMPv6 have their checksum
    ends = source.packed + destination.packed
    found = _checksum(ends + struct.pack("!II", len(payload), protocol) + payload)
    payload = payload[:at] + (found if found != b"\0\0" else b"\xff\xff") + payload[at + 2 :]
    return struct.pack("!IHBB", 6 << 28, len(payload), protocol, hops) + ends + payload


def _checksum(data: bytes) -> bytes:
    """The Internet checksum (RFC 1071)."""
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)
