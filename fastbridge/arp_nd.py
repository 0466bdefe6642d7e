"""ARP and ND, read and written.

IP and MAC addresses are bytes here, as on the wire: this code runs for each punted frame. read() takes any bytes and
never raises. A message is MALFORMED, with the reason, when it breaks a rule that RFC 826, 4861 or 4862 tells receivers
to check. So is a message that no honest sender emits but some receivers believe: addresses that no station has, a
link-layer address given twice, ND behind extension headers (RFC 6980, 7113).
"""

from __future__ import annotations

import enum
import struct
from ipaddress import ip_address
from typing import NamedTuple

from .errors import ConfigError

ROUTER, SOLICITED, OVERRIDE = 0x80, 0x40, 0x20  # flags of a neighbour advertisement (RFC 4861 §4.4)
OPTIONS = 0x01  # not from the wire: a solicitation has more options than the sender's link-layer address

BROADCAST = b"\xff" * 6
NO_MAC, NO_IPV4, NO_IPV6 = bytes(6), bytes(4), bytes(16)
ALL_NODES, ALL_NODES_MAC = bytes.fromhex("ff020000000000000000000000000001"), bytes.fromhex("333300000001")
_SOLICITED_NODE = bytes.fromhex("ff0200000000000000000001ff")  # and 24 bits of the target (RFC 4291 §2.7.1)

_ARP, _IPV6 = b"\x08\x06", b"\x86\xdd"
_TAGS = frozenset((b"\x81\x00", b"\x88\xa8"))  # 802.1Q, 802.1ad
_ARP_START = _ARP + bytes.fromhex("0001080006 04")  # EtherType; Ethernet, IPv4 and the lengths of their addresses
_REQUEST, _REPLY = b"\x00\x01", b"\x00\x02"
_ARP_BODY = struct.Struct("!2s6s4s6s4s")  # operation, sender's MAC and IP, target's MAC and IP

_ICMPV6, _NS, _NA, _SLLA, _TLLA = 58, 135, 136, 1, 2
_FRAGMENT, _EXTENSIONS = 44, frozenset((0, 43, 44, 60))  # hop-by-hop, routing, fragment, destination options
_ND_READ = struct.Struct("!HBB16s16sBB2xB3x16s")  # from the payload length to the target
_ND_WRITE = struct.Struct("!16s16sBxHB3x16sBB6s")  # from the source on, with one link-layer address option
_IPV6_START = bytes.fromhex("600000000020 3a ff")  # version 6, 32 bytes of ICMPv6, hop limit 255

# A solicitation or advertisement is a few dozen bytes and never fragmented (RFC 6980), so it fits the smallest
# IPv6 MTU; the bound keeps a hostile frame from costing more than some µs.
_ND_SHORTEST, _ND_LONGEST = 24, 1280 - 40

_NO_STATION_IPV4 = frozenset((0, 127, *range(224, 240)))  # by first byte: this network, loopback, multicast
_NO_STATION_IPV6 = frozenset((NO_IPV6, bytes(15) + b"\x01"))


class Kind(enum.Enum):
    """What an ARP or ND message is for."""

    ARP_REQUEST = "arp request"
    ARP_REPLY = "arp reply"
    ARP_PROBE = "arp probe"  #: asks whether an address is in use and claims none (RFC 5227 §1.1)
    ARP_ANNOUNCEMENT = "arp announcement"  #: gratuitous request or reply: the target is the sender's own IP
    NS = "neighbour solicitation"  #: address resolution, or whether a neighbour is still there
    NS_DAD = "duplicate address detection"  #: from :: (RFC 4862 §5.4.2)
    NA = "neighbour advertisement"  #: an answer
    NA_UNSOLICITED = "unsolicited advertisement"
    MALFORMED = "malformed"
    OTHER = "other"  #: neither ARP request or reply, nor neighbour solicitation or advertisement


class Message(NamedTuple):
    """One ARP or ND frame as read."""

    kind: Kind
    ingress: int  #: index of the port it came from
    vlan: int  #: VID of the outer tag, 0 untagged; of two tags the inner VID is in the next 12 bits
    eth_source: bytes
    eth_destination: bytes
    sender_mac: bytes | None  #: the MAC that it gives for sender_ip; None: it gives none
    sender_ip: bytes | None  #: the IP that its sender claims (in an advertisement the target); None: it claims none
    target_ip: bytes | None  #: the IP that it is about
    flags: int  #: ROUTER | SOLICITED | OVERRIDE of an advertisement, OPTIONS of a solicitation
    frame: bytes
    header_length: int  #: of the Ethernet header with its tags: 14, 18 or 22
    problem: str | None = None  #: the fault of a MALFORMED one

    @property
    def to_group(self) -> bool:
        """Whether its destination MAC address is multicast or broadcast."""
        return bool(self.eth_destination[0] & 1)

    @property
    def tags(self) -> bytes:
        """Its VLAN tags as on the wire, for other frames of this VLAN."""
        return self.frame[12 : self.header_length - 2]

    def __str__(self) -> str:
        problem = f" ({self.problem})" if self.problem else ""
        sender = "" if self.sender_ip is None else f" from {ip_address(self.sender_ip)}"
        target = "" if self.target_ip is None else f" about {ip_address(self.target_ip)}"
        mac = (self.sender_mac or self.eth_source).hex(":")
        return f"{self.kind.value}{problem}{sender} at {mac}{target}{vlan_text(self.vlan)}"


# Names of a module are quicker to look up than members of an enum.
_ARP_REQUEST, _ARP_REPLY, _ARP_PROBE, _ARP_ANNOUNCEMENT = list(Kind)[:4]
_KIND_NS, _KIND_NS_DAD, _KIND_NA, _KIND_NA_UNSOLICITED, _MALFORMED, _OTHER = list(Kind)[4:]


def read(ingress: int, frame: bytes) -> Message:
    """Read a frame that came from a port (index), with up to two VLAN tags."""
    length, vlan = 14, 0
    ethertype = frame[12:14]
    if ethertype in _TAGS:
        vlan = int.from_bytes(frame[14:16], "big") & 0xFFF
        length, ethertype = 18, frame[16:18]
        if ethertype in _TAGS:
            inner = int.from_bytes(frame[18:20], "big") & 0xFFF
            vlan = vlan | inner << 12 if vlan else inner  # a priority tag (VID 0) names no VLAN
            length, ethertype = 22, frame[20:22]
    if ethertype == _ARP:
        return _read_arp(ingress, vlan, frame, length)
    if ethertype == _IPV6:
        return _read_ipv6(ingress, vlan, frame, length)
    return _unread(ingress, vlan, frame, length, None)


def _unread(ingress: int, vlan: int, frame: bytes, length: int, problem: str | None) -> Message:
    kind = _MALFORMED if problem else _OTHER
    return Message(kind, ingress, vlan, frame[6:12], frame[:6], None, None, None, 0, frame, length, problem)


def _read_arp(ingress: int, vlan: int, frame: bytes, length: int) -> Message:
    if len(frame) < length + 28:
        return _unread(ingress, vlan, frame, length, "truncated")
    if frame[length - 2 : length + 6] != _ARP_START:
        return _unread(ingress, vlan, frame, length, "not between Ethernet and IPv4 addresses")
    operation, mac, sender, _, target = _ARP_BODY.unpack_from(frame, length + 6)
    claim: bytes | None = sender
    if operation == _REQUEST:
        kind = _ARP_REQUEST
        if sender == NO_IPV4:
            kind, claim = _ARP_PROBE, None
    elif operation == _REPLY:
        kind = _ARP_REPLY
    else:
        return _unread(ingress, vlan, frame, length, None)
    if mac[0] & 1 or mac == NO_MAC:
        return _unread(ingress, vlan, frame, length, "no station has the sender's MAC")
    if claim:
        if claim[0] in _NO_STATION_IPV4 or claim == b"\xff\xff\xff\xff":
            return _unread(ingress, vlan, frame, length, "no station has the sender's IP")
        if claim == target:
            kind = _ARP_ANNOUNCEMENT
    return Message(kind, ingress, vlan, frame[6:12], frame[:6], mac, claim, target, 0, frame, length)


def _read_ipv6(ingress: int, vlan: int, frame: bytes, length: int) -> Message:
    """Neighbour solicitations and advertisements by the rules of RFC 4861 §7.1."""
    if len(frame) < length + 40 + _ND_SHORTEST:
        return _unread(ingress, vlan, frame, length, _hidden_nd(frame, length))
    size, header, hops, source, destination, icmp_type, code, flags, target = _ND_READ.unpack_from(frame, length + 4)
    if header != _ICMPV6 or (icmp_type != _NS and icmp_type != _NA):
        return _unread(ingress, vlan, frame, length, _hidden_nd(frame, length))
    end = length + 40 + size
    if hops != 255 or code or not _ND_SHORTEST <= size <= _ND_LONGEST or end > len(frame) or frame[length] >> 4 != 6:
        return _unread(ingress, vlan, frame, length, "wrong IP version, hop limit, code or length")
    # The sum of 16-bit words is, modulo 65535, that of the bytes as one number, since 65536 ≡ 1 (RFC 1071).
    if (int.from_bytes(frame[length + 8 : end], "big") + size + _ICMPV6) % 65535:
        return _unread(ingress, vlan, frame, length, "wrong checksum")
    mac, more, problem = None, 0, None
    if size > _ND_SHORTEST:
        mac, more, problem = _read_options(frame[length + 64 : end], _SLLA if icmp_type == _NS else _TLLA)
    claim: bytes | None
    if icmp_type == _NS:
        kind, claim, flags = _KIND_NS, source, more
        if source == NO_IPV6:
            kind, claim = _KIND_NS_DAD, None
            if mac or not destination.startswith(_SOLICITED_NODE):
                problem = "duplicate address detection that tells a MAC or is not to a solicited-node address"
    else:
        kind, claim = _KIND_NA if flags & SOLICITED else _KIND_NA_UNSOLICITED, target
        if flags & SOLICITED and destination[0] == 0xFF:
            problem = "solicited, yet to a group"
    if target[0] == 0xFF or source[0] == 0xFF or claim in _NO_STATION_IPV6:
        problem = "no station has the sender's or target's IP"
    if problem:
        return _unread(ingress, vlan, frame, length, problem)
    return Message(kind, ingress, vlan, frame[6:12], frame[:6], mac, claim, target, flags, frame, length)


def _read_options(options: bytes, wanted: int) -> tuple[bytes | None, int, str | None]:
    """The link-layer address; OPTIONS when there are other options; the problem, if there is one."""
    mac: bytes | None = None
    more = at = 0
    while at < len(options):
        if len(options) - at < 8 or not 0 < options[at + 1] * 8 <= len(options) - at:
            return None, 0, "an option has length 0 or runs over the end"
        if options[at] == wanted:
            if mac or options[at + 1] != 1:
                return None, 0, "a link-layer address given twice or not of 6 bytes"
            mac = options[at + 2 : at + 8]
            if mac[0] & 1 or mac == NO_MAC:
                return None, 0, "no station has the sender's MAC"
        else:
            more = OPTIONS
        at += options[at + 1] * 8
    return mac, more, None


def _hidden_nd(frame: bytes, length: int) -> str | None:
    """The problem, when a solicitation or advertisement may be cut off, or stand behind extension headers."""
    if len(frame) < length + 40:
        return "truncated"
    header, at = frame[length + 6], length + 40
    while header in _EXTENSIONS and at + 8 <= len(frame):
        if header == _FRAGMENT and frame[at + 2] | frame[at + 3] >> 3:
            return None  # a later fragment starts anywhere
        header, at = frame[at], at + (8 if header == _FRAGMENT else 8 + 8 * frame[at + 1])
    if header in _EXTENSIONS or (header == _ICMPV6 and at >= len(frame)):
        return "truncated"
    if header == _ICMPV6 and frame[at] in (_NS, _NA):
        return "truncated" if at == length + 40 else "behind extension headers"
    return None


def arp_reply(request: Message, owner_mac: bytes) -> bytes:
    """The owner's answer to a request, or to a probe (RFC 826), with the request's tags."""
    asker, target = _asked(request)
    start = request.frame[12 : request.header_length - 2] + _ARP_START + _REPLY
    return b"".join((asker, owner_mac, start, owner_mac, target, asker, request.sender_ip or NO_IPV4))


def neighbour_advertisement(solicitation: Message, owner_mac: bytes, *, router: bool, override: bool = True) -> bytes:
    """The owner's answer to a solicitation (RFC 4861 §7.2.4), with the solicitation's tags.

    The answer to duplicate address detection goes to all nodes, without the solicited flag: the address is taken.
    """
    asker, target = _asked(solicitation)
    flags = (ROUTER if router else 0) | (OVERRIDE if override else 0)
    destination = solicitation.sender_ip
    if destination is None:
        asker, destination = ALL_NODES_MAC, ALL_NODES
    else:
        flags |= SOLICITED
    return _nd_frame(asker, owner_mac, solicitation.tags, target, destination, (_NA, flags, target, _TLLA, owner_mac))


def arp_request_to(owner_mac: bytes, owner_ip: bytes, own_mac: bytes, tags: bytes = b"") -> bytes:
    """Ask the owner alone whether it is still there; a sender IP of 0.0.0.0 claims nothing."""
    start = tags + _ARP_START + _REQUEST
    return b"".join((owner_mac, own_mac, start, own_mac, NO_IPV4, NO_MAC, owner_ip))


def neighbour_solicitation_to(owner_mac: bytes, owner_ip: bytes, own_mac: bytes, tags: bytes = b"") -> bytes:
    """Ask the owner alone whether it is still there, from the link-local address of `own_mac`."""
    message = _NS, 0, owner_ip, _SLLA, own_mac
    return _nd_frame(owner_mac, own_mac, tags, link_local(own_mac), owner_ip, message)


def gratuitous_arp(mac: bytes, ip: bytes, tags: bytes = b"") -> bytes:
    """Announce to all that an IPv4 address is at `mac` (RFC 5227 §2.3)."""
    return b"".join((BROADCAST, mac, tags + _ARP_START + _REQUEST, mac, ip, NO_MAC, ip))


def unsolicited_na(mac: bytes, ip: bytes, *, router: bool = False, tags: bytes = b"") -> bytes:
    """Announce to all that an IPv6 address is at `mac` (RFC 4861 §7.2.6)."""
    message = _NA, OVERRIDE | (ROUTER if router else 0), ip, _TLLA, mac
    return _nd_frame(ALL_NODES_MAC, mac, tags, ip, ALL_NODES, message)


def link_local(mac: bytes) -> bytes:
    """The link-local IPv6 address that modified EUI-64 makes of a MAC address (RFC 4291 appendix A)."""
    return b"".join((b"\xfe\x80", bytes(6), bytes((mac[0] ^ 2,)), mac[1:3], b"\xff\xfe", mac[3:]))


def vlan_tags(vlan: int) -> bytes:
    """The tags of a frame of this VLAN (as in Message.vlan): none, 802.1Q, or 802.1Q in 802.1ad."""
    if vlan >> 12:
        return struct.pack("!4H", 0x88A8, vlan & 0xFFF, 0x8100, vlan >> 12)
    return struct.pack("!2H", 0x8100, vlan) if vlan else b""


def vlan_text(vlan: int) -> str:
    """For people: " vlan 5"; with two tags " vlan 5.7"; nothing for untagged frames."""
    return f" vlan {vlan & 0xFFF}.{vlan >> 12}" if vlan >> 12 else f" vlan {vlan}" if vlan else ""


def _asked(request: Message) -> tuple[bytes, bytes]:
    """The MAC address of the asker, and the IP that it asks for."""
    if request.target_ip is None:
        raise ConfigError(f"{request}: this message asks nothing; answer a request or a solicitation")
    return request.sender_mac or request.eth_source, request.target_ip


def _nd_frame(
    eth_destination: bytes,
    eth_source: bytes,
    tags: bytes,
    source: bytes,
    destination: bytes,
    message: tuple[int, int, bytes, int, bytes],
) -> bytes:
    icmp_type, flags, target, option, mac = message
    body = _ND_WRITE.pack(source, destination, icmp_type, 0, flags, target, option, 1, mac)
    checksum = -(int.from_bytes(body, "big") + 32 + _ICMPV6) % 65535
    start = tags + _IPV6 + _IPV6_START
    return b"".join((eth_destination, eth_source, start, body[:34], checksum.to_bytes(2, "big"), body[36:]))
