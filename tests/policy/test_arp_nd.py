"""Every kind of ARP and ND message, against scapy as an independent encoder and decoder."""

from __future__ import annotations

import ipaddress
import struct

import arp_nd_frames as make
import pytest
from arp_nd_frames import IPV4, IPV6, A, B, C, mac, tagged
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6NDOptUnknown,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP, Dot1AD, Ether
from scapy.packet import Packet, Raw

from fastbridge import ConfigError, arp_nd
from fastbridge.arp_nd import OPTIONS, OVERRIDE, ROUTER, SOLICITED, Kind, read


def packed(ip: str) -> bytes:
    return ipaddress.ip_address(ip).packed


# (frame, kind, sender MAC told, IP claimed, IP it is about, flags)
GOOD = {
    "request": (make.arp(1, A, IPV4[0], IPV4[1]), Kind.ARP_REQUEST, A, IPV4[0], IPV4[1], 0),
    "unicast request": (make.arp(1, A, IPV4[0], IPV4[1], to=B), Kind.ARP_REQUEST, A, IPV4[0], IPV4[1], 0),
    "reply": (make.arp(2, B, IPV4[1], IPV4[0], to=A), Kind.ARP_REPLY, B, IPV4[1], IPV4[0], 0),
    "broadcast reply": (make.arp(2, B, IPV4[1], IPV4[0]), Kind.ARP_REPLY, B, IPV4[1], IPV4[0], 0),
    "probe": (make.arp(1, A, "0.0.0.0", IPV4[1]), Kind.ARP_PROBE, A, None, IPV4[1], 0),
    "gratuitous request": (make.arp(1, A, IPV4[0], IPV4[0]), Kind.ARP_ANNOUNCEMENT, A, IPV4[0], IPV4[0], 0),
    "gratuitous reply": (make.arp(2, A, IPV4[0], IPV4[0]), Kind.ARP_ANNOUNCEMENT, A, IPV4[0], IPV4[0], 0),
    "other source": (make.arp(1, A, IPV4[0], IPV4[1], source=C), Kind.ARP_REQUEST, A, IPV4[0], IPV4[1], 0),
    "solicitation": (make.ns(A, IPV6[0], IPV6[1]), Kind.NS, A, IPV6[0], IPV6[1], 0),
    "is it there": (make.ns(A, IPV6[0], IPV6[1], unicast_to=B), Kind.NS, A, IPV6[0], IPV6[1], 0),
    "nonce": (
        make.ns(A, IPV6[0], IPV6[1], options=ICMPv6NDOptUnknown(type=14, len=1, data=b"123456")),
        Kind.NS,
        None,
        IPV6[0],
        IPV6[1],
        OPTIONS,
    ),
    "nonce and address": (
        make.ns(A, IPV6[0], IPV6[1]) / ICMPv6NDOptUnknown(type=14, len=2, data=b"12345678901234"),
        Kind.NS,
        A,
        IPV6[0],
        IPV6[1],
        OPTIONS,
    ),
    "detection": (make.dad(A, IPV6[0]), Kind.NS_DAD, None, None, IPV6[0], 0),
    "advertisement": (
        make.na(B, IPV6[1], to=A, to_ip=IPV6[0], s=1),
        Kind.NA,
        B,
        IPV6[1],
        IPV6[1],
        SOLICITED | OVERRIDE,
    ),
    "router": (
        make.na(B, IPV6[1], to=A, to_ip=IPV6[0], r=1, s=1, o=0),
        Kind.NA,
        B,
        IPV6[1],
        IPV6[1],
        ROUTER | SOLICITED,
    ),
    "unsolicited": (make.na(B, IPV6[1], r=1), Kind.NA_UNSOLICITED, B, IPV6[1], IPV6[1], ROUTER | OVERRIDE),
    "advertisement without address": (
        Ether(src=B, dst=A) / IPv6(src=IPV6[1], dst=IPV6[0], hlim=255) / ICMPv6ND_NA(tgt=IPV6[1], R=0, S=1, O=0),
        Kind.NA,
        None,
        IPV6[1],
        IPV6[1],
        SOLICITED,
    ),
}


@pytest.mark.parametrize("vids", [(), (5,), (0,), (7, 5)], ids=["untagged", "tagged", "priority", "two tags"])
@pytest.mark.parametrize("case", GOOD)
def test_reads(case: str, vids: tuple[int, ...]) -> None:
    encoded, kind, sender, claim, target, flags = GOOD[case]
    frame = tagged(encoded, *vids, tpid=0x88A8 if len(vids) == 2 else 0x8100) + bytes(8)  # with padding
    message = read(3, frame)
    assert message.kind is kind
    assert message.problem is None
    assert message.ingress == 3
    assert message.vlan == (7 | 5 << 12 if len(vids) == 2 else sum(vids))
    assert (message.eth_source, message.eth_destination) == (mac(encoded.src), mac(encoded.dst))
    assert message.sender_mac == (sender and mac(sender))
    assert message.sender_ip == (claim and packed(claim))
    assert message.target_ip == packed(target)
    assert message.flags == flags
    assert message.frame is frame
    assert message.header_length == 14 + 4 * len(vids)
    assert message.tags == frame[12 : 12 + 4 * len(vids)]
    assert kind.value in str(message)
    assert target in str(message)


def _bad_nd(hlim: int = 255, code: int = 0, target: str = IPV6[1], **change: object) -> Packet:
    frame = make.ns(A, IPV6[0], IPV6[1])
    frame[IPv6].hlim, frame[ICMPv6ND_NS].code, frame[ICMPv6ND_NS].tgt = hlim, code, target
    for field, value in change.items():
        frame[IPv6].setfieldval(field, value)
    return frame


def _option(length: int, data: bytes = b"", kind: int = 1) -> Packet:
    return make.ns(A, IPV6[0], IPV6[1], options=Raw(bytes([kind, length]) + data))


def _arp(**change: object) -> Packet:
    frame = make.arp(1, A, IPV4[0], IPV4[1])
    for field, value in change.items():
        frame[ARP].setfieldval(field, value)
    return frame


_NS_BEHIND = ICMPv6ND_NS(tgt=IPV6[1]) / ICMPv6NDOptSrcLLAddr(lladdr=A)
_TO_B = Ether(src=A, dst=B) / IPv6(src=IPV6[0], dst=IPV6[1], hlim=255)

MALFORMED = {
    "cut ARP": bytes(make.arp(1, A, IPV4[0], IPV4[1]))[:41],
    "only an EtherType": bytes(make.arp(1, A, IPV4[0], IPV4[1]))[:14],
    "hardware type": _arp(hwtype=6),
    "protocol type": _arp(ptype=0x86DD),
    "hardware length": _arp(hwlen=8),
    "protocol length": _arp(plen=16),
    "group MAC": _arp(hwsrc="ff:ff:ff:ff:ff:ff"),
    "no MAC": _arp(hwsrc="00:00:00:00:00:00"),
    "broadcast IP": _arp(psrc="255.255.255.255"),
    "multicast IP": _arp(psrc="224.0.0.1"),
    "loopback IP": _arp(psrc="127.0.0.1"),
    "reply from nobody": _arp(op=2, psrc="0.0.0.0"),
    "routed": _bad_nd(hlim=254),
    "code": _bad_nd(code=1),
    "checksum": bytes(make.ns(A, IPV6[0], IPV6[1]))[:-1] + b"\xee",
    "multicast target": _bad_nd(target="ff02::1"),
    "multicast source": _bad_nd(src="ff02::1"),
    "loopback source": _bad_nd(src="::1"),
    "longer than the frame": _bad_nd(plen=40),
    "too short": bytes(make.dad(A, IPV6[0]))[:-1],
    "payload length too short": bytes(make.dad(A, IPV6[0])).replace(b"\x00\x18\x3a", b"\x00\x10\x3a"),
    "cut in the IPv6 header": bytes(make.dad(A, IPV6[0]))[:50],
    "too long": make.ns(A, IPV6[0], IPV6[1], options=Raw(bytes([253, 160]) + bytes(1278))),
    "IP version": bytes(make.dad(A, IPV6[0]))[:14] + b"\x40" + bytes(make.dad(A, IPV6[0]))[15:],
    "option of length 0": _option(0, bytes(6)),
    "option runs over": _option(2, bytes(6)),
    "option of one byte": _option(1, bytes(6)) / Raw(b"\x01"),
    "option not of Ethernet": _option(2, bytes(14)),
    "two addresses": _option(1, mac(A)) / ICMPv6NDOptSrcLLAddr(lladdr=B),
    "group address": _option(1, b"\xff" * 6),
    "address 0": _option(1, bytes(6)),
    "detection with address": make.dad(A, IPV6[0]) / ICMPv6NDOptSrcLLAddr(lladdr=A),
    "detection to one": Ether(src=A, dst=B) / IPv6(src="::", dst=IPV6[1], hlim=255) / ICMPv6ND_NS(tgt=IPV6[1]),
    "solicited to all": make.na(B, IPV6[1], s=1),
    "nobody's advertisement": make.na(B, "::"),
    "behind options": _TO_B / IPv6ExtHdrDestOpt() / _NS_BEHIND,
    "behind two headers": _TO_B / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / _NS_BEHIND,
    "in a fragment": _TO_B / IPv6ExtHdrFragment(m=1) / _NS_BEHIND,
    "cut behind options": bytes(_TO_B / IPv6ExtHdrDestOpt() / _NS_BEHIND)[: 14 + 40 + 8],
    "cut in options": bytes(_TO_B / IPv6ExtHdrDestOpt() / _NS_BEHIND)[: 14 + 40 + 4],
}


@pytest.mark.parametrize("vids", [(), (5,), (7, 5)])
@pytest.mark.parametrize("case", MALFORMED)
def test_malformed(case: str, vids: tuple[int, ...]) -> None:
    bad = MALFORMED[case]
    frame = bytes(bad)
    frame = frame[:12] + b"".join(struct.pack("!HH", 0x8100, vid) for vid in vids) + frame[12:]
    message = read(0, frame)
    assert message.kind is Kind.MALFORMED
    assert message.problem
    assert message.problem in str(message)
    assert (message.sender_mac, message.sender_ip, message.target_ip) == (None, None, None)
    assert message.eth_source == mac(A) or case in ("solicited to all", "nobody's advertisement")


OTHER = {
    "reverse ARP": _arp(op=3),
    "echo": _TO_B / ICMPv6EchoRequest(),
    "short echo": bytes(_TO_B / ICMPv6EchoRequest())[:58],
    "router advertisement": _TO_B / ICMPv6ND_RA(),
    "echo behind options": _TO_B / IPv6ExtHdrDestOpt() / ICMPv6EchoRequest(),
    "later fragment": _TO_B / IPv6ExtHdrFragment(offset=5, nh=58) / Raw(b"\x87" + bytes(40)),
    "UDP": Ether(src=A, dst=B) / IPv6(nh=17) / Raw(bytes(40)),
    "IPv4": Ether(src=A, dst=B, type=0x0800) / Raw(bytes(40)),
    "three tags": tagged(make.arp(1, A, IPV4[0], IPV4[1]), 1, 2, 3),
    "nothing": b"",
    "runt": bytes(13),
}


@pytest.mark.parametrize("case", OTHER)
def test_other(case: str) -> None:
    message = read(0, bytes(OTHER[case]))
    assert message.kind is Kind.OTHER
    assert message.problem is None
    assert str(message).startswith("other")


good_frames = st.sampled_from([bytes(case[0]) for case in GOOD.values()])
tag_bytes = st.sampled_from([b"", b"\x81\x00\x00\x05", b"\x88\xa8\x00\x07\x81\x00\x00\x05"])


@st.composite
def damaged_frames(draw: st.DrawFn) -> bytes:
    """A good frame with tags, some bytes changed, then cut or lengthened."""
    frame = bytearray(draw(good_frames))
    frame[12:12] = draw(tag_bytes)
    for at, value in draw(st.lists(st.tuples(st.integers(0, len(frame) - 1), st.integers(0, 255)), max_size=4)):
        frame[at] = value
    return bytes(frame[: draw(st.integers(0, len(frame)))] if draw(st.booleans()) else frame + draw(st.binary()))


@given(damaged_frames() | st.binary(max_size=120) | st.binary(max_size=80).map(lambda tail: bytes(12) + tail))
def test_read_takes_any_bytes(frame: bytes) -> None:
    message = read(1, frame)
    assert str(message)
    assert (message.problem is not None) == (message.kind is Kind.MALFORMED)
    if message.kind not in (Kind.MALFORMED, Kind.OTHER):
        assert message.target_ip is not None
        assert len(message.target_ip) == (4 if message.kind.value.startswith("arp") else 16)
        assert message.sender_ip is None or len(message.sender_ip) == len(message.target_ip)
        assert message.sender_mac is None or not message.sender_mac[0] & 1


macs = st.binary(min_size=6, max_size=6).map(lambda b: bytes([b[0] & 0xFE | 2]) + b[1:])
ipv4s = st.binary(min_size=3, max_size=3).map(lambda b: b"\x0a" + b)
ipv6s = st.binary(min_size=15, max_size=15).map(lambda b: b"\xfd" + b)


def text(address: bytes) -> str:
    return address.hex(":") if len(address) == 6 else str(ipaddress.ip_address(address))


def decode(frame: bytes) -> Packet:
    """What scapy reads; and scapy computes the same bytes again when it makes the lengths and checksums itself."""
    packet = Ether(frame)
    again = packet.copy()
    if IPv6 in again:
        again[IPv6].plen = None
        for layer in (ICMPv6ND_NA, ICMPv6ND_NS):
            if layer in again:
                again[layer].cksum = None
    assert bytes(again) == frame
    return packet


@given(macs, macs, ipv4s, ipv4s, tag_bytes)
def test_arp_reply(asker: bytes, owner: bytes, asker_ip: bytes, owner_ip: bytes, tags: bytes) -> None:
    request = bytes(make.arp(1, text(asker), text(asker_ip), text(owner_ip)))
    message = read(0, request[:12] + tags + request[12:] + bytes(18))
    frame = arp_nd.arp_reply(message, owner)
    assert len(frame) == 42 + len(tags)
    assert frame[12 : 12 + len(tags)] == tags
    packet = decode(frame)
    assert (packet.src, packet.dst) == (text(owner), text(asker))
    reply = packet[ARP]
    assert (reply.hwtype, reply.ptype, reply.hwlen, reply.plen, reply.op) == (1, 0x0800, 6, 4, 2)
    assert (reply.hwsrc, reply.psrc, reply.hwdst, reply.pdst) == tuple(map(text, (owner, owner_ip, asker, asker_ip)))
    back = read(1, frame)
    assert (back.vlan, back.sender_mac, back.sender_ip) == (message.vlan, owner, owner_ip)


def test_reply_to_a_probe_says_the_address_is_taken() -> None:
    reply = Ether(arp_nd.arp_reply(read(0, bytes(GOOD["probe"][0])), mac(B)))[ARP]
    assert (reply.op, reply.hwsrc, reply.psrc, reply.hwdst, reply.pdst) == (2, B, IPV4[1], A, "0.0.0.0")


@given(macs, macs, ipv6s, ipv6s, tag_bytes, st.booleans(), st.booleans(), st.booleans())
def test_neighbour_advertisement(
    asker: bytes,
    owner: bytes,
    asker_ip: bytes,
    owner_ip: bytes,
    tags: bytes,
    router: bool,
    override: bool,
    tells_mac: bool,
) -> None:
    question = Ether(src=text(asker), dst="33:33:ff:00:00:01") / IPv6(
        src=text(asker_ip), dst="ff02::1:ff00:1", hlim=255
    )
    question /= ICMPv6ND_NS(tgt=text(owner_ip))
    request = bytes(question / ICMPv6NDOptSrcLLAddr(lladdr=text(asker)) if tells_mac else question)
    message = read(0, request[:12] + tags + request[12:])
    frame = arp_nd.neighbour_advertisement(message, owner, router=router, override=override)
    assert len(frame) == 86 + len(tags)
    packet = decode(frame)
    assert (packet.src, packet.dst) == (text(owner), text(asker))
    ip, answer = packet[IPv6], packet[ICMPv6ND_NA]
    assert (ip.version, ip.hlim, ip.plen, ip.nh, ip.src, ip.dst) == (6, 255, 32, 58, text(owner_ip), text(asker_ip))
    assert (answer.tgt, answer.R, answer.S, answer.O) == (text(owner_ip), router, 1, override)
    assert packet[ICMPv6NDOptDstLLAddr].lladdr == text(owner)
    back = read(1, frame)
    assert (back.kind, back.vlan, back.sender_mac, back.sender_ip) == (Kind.NA, message.vlan, owner, owner_ip)


def test_advertisement_that_defends_an_address() -> None:
    message = read(0, bytes(make.dad(A, IPV6[1])))
    packet = decode(arp_nd.neighbour_advertisement(message, mac(B), router=False))
    answer = packet[ICMPv6ND_NA]
    assert (packet.dst, packet[IPv6].dst) == ("33:33:00:00:00:01", "ff02::1")
    assert (answer.tgt, answer.S, answer.O) == (IPV6[1], 0, 1)


@pytest.mark.parametrize("case", ["cut ARP", "option of length 0"])
def test_only_a_question_can_be_answered(case: str) -> None:
    message = read(0, bytes(MALFORMED[case]))
    with pytest.raises(ConfigError, match="this message asks nothing"):
        arp_nd.arp_reply(message, mac(A))
    with pytest.raises(ConfigError, match="this message asks nothing"):
        arp_nd.neighbour_advertisement(message, mac(A), router=False)


@given(macs, macs, ipv4s, tag_bytes)
def test_arp_request_to_one(owner: bytes, own: bytes, owner_ip: bytes, tags: bytes) -> None:
    packet = decode(arp_nd.arp_request_to(owner, owner_ip, own, tags))
    request = packet[ARP]
    assert (packet.src, packet.dst, request.op) == (text(own), text(owner), 1)
    assert (request.hwsrc, request.psrc, request.pdst) == (text(own), "0.0.0.0", text(owner_ip))
    assert read(0, bytes(packet)).kind is Kind.ARP_PROBE


@given(macs, macs, ipv6s, tag_bytes)
def test_neighbour_solicitation_to_one(owner: bytes, own: bytes, owner_ip: bytes, tags: bytes) -> None:
    packet = decode(arp_nd.neighbour_solicitation_to(owner, owner_ip, own, tags))
    ip, solicitation = packet[IPv6], packet[ICMPv6ND_NS]
    assert (packet.src, packet.dst, ip.hlim) == (text(own), text(owner), 255)
    assert (ip.src, ip.dst, solicitation.tgt) == (text(arp_nd.link_local(own)), text(owner_ip), text(owner_ip))
    assert packet[ICMPv6NDOptSrcLLAddr].lladdr == text(own)
    message = read(0, bytes(packet))
    assert (message.kind, message.to_group, message.sender_mac) == (Kind.NS, False, own)


@given(macs, ipv4s, tag_bytes)
def test_gratuitous_arp(owner: bytes, ip: bytes, tags: bytes) -> None:
    packet = decode(arp_nd.gratuitous_arp(owner, ip, tags))
    request = packet[ARP]
    assert (packet.dst, request.op, request.hwsrc) == ("ff:ff:ff:ff:ff:ff", 1, text(owner))
    assert request.psrc == request.pdst == text(ip)
    assert request.hwdst == "00:00:00:00:00:00"
    assert read(0, bytes(packet)).kind is Kind.ARP_ANNOUNCEMENT


@given(macs, ipv6s, tag_bytes, st.booleans())
def test_unsolicited_na(owner: bytes, ip: bytes, tags: bytes, router: bool) -> None:
    packet = decode(arp_nd.unsolicited_na(owner, ip, router=router, tags=tags))
    answer = packet[ICMPv6ND_NA]
    assert (packet.dst, packet[IPv6].src, packet[IPv6].dst) == ("33:33:00:00:00:01", text(ip), "ff02::1")
    assert (answer.tgt, answer.R, answer.S, answer.O) == (text(ip), router, 0, 1)
    assert packet[ICMPv6NDOptDstLLAddr].lladdr == text(owner)
    assert read(0, bytes(packet)).kind is Kind.NA_UNSOLICITED


def test_link_local_is_modified_eui_64() -> None:
    assert text(arp_nd.link_local(mac("00:1b:21:aa:bb:cc"))) == "fe80::21b:21ff:feaa:bbcc"


def test_tags_of_a_vlan() -> None:
    assert arp_nd.vlan_tags(0) == b""
    assert arp_nd.vlan_tags(5) == b"\x81\x00\x00\x05"
    assert Dot1AD in Ether(bytes(12) + arp_nd.vlan_tags(7 | 5 << 12) + b"\x08\x06")
    for vlan in (0, 5, 4094, 7 | 5 << 12):
        frame = arp_nd.gratuitous_arp(mac(A), packed(IPV4[0]), arp_nd.vlan_tags(vlan))
        assert read(0, frame).vlan == vlan
    assert [arp_nd.vlan_text(vlan) for vlan in (0, 5, 7 | 5 << 12)] == ["", " vlan 5", " vlan 7.5"]
