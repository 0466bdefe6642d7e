"""Frames from words and from files: scapy and tcpdump's own forms are the judges."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastbridge.addresses import MacAddress
from fastbridge.described import IpAddress, describe
from fastbridge.errors import ConfigError
from fastbridge.pcap import frame_of

ether = pytest.importorskip("scapy.layers.l2")

MACS = {
    ip_address(ip): MacAddress(mac)
    for ip, mac in {
        "10.0.0.1": "02:00:00:00:00:01",
        "10.0.0.2": "02:00:00:00:00:02",
        "fd00::1": "02:00:00:00:00:01",
        "fd00::2": "02:00:00:00:00:02",
    }.items()
}


def find(ip: IpAddress) -> MacAddress | None:
    return MACS.get(ip)


CASES = {
    "arp who-has 10.0.0.2 tell 10.0.0.1": "ARP who has 10.0.0.2 says 10.0.0.1",
    "ARP, Request who-has 10.0.0.2 tell 10.0.0.1": "ARP who has 10.0.0.2 says 10.0.0.1",
    "arp reply 10.0.0.2 is-at 02:00:00:00:00:09": "ARP is at 02:00:00:00:00:09 says 10.0.0.2",
    "nd who-has fd00::2 tell fd00::1": "ICMPv6ND_NS / ICMPv6 Neighbor Discovery Option - Source Link-Layer Address",
    "nd fd00::2 is-at 02:00:00:00:00:09": "ICMPv6ND_NA / ICMPv6 Neighbor Discovery Option - Destination Link-Layer",
    "icmp 10.0.0.1 > 10.0.0.2": "IP / ICMP 10.0.0.1 > 10.0.0.2 echo-request",
    "icmp 10.0.0.1>224.0.0.251": "IP / ICMP 10.0.0.1 > 224.0.0.251 echo-request",
    "icmp fd00::1 > fd00::2": "ICMPv6 Echo Request",
    "udp 10.0.0.1 > 255.255.255.255": "IP / UDP 10.0.0.1:discard > 255.255.255.255:discard",
    "udp fd00::1 > ff02::1": "IPv6 / UDP fd00::1:discard > ff02::1:discard",
}


@pytest.mark.parametrize("text", CASES)
def test_it_is_the_frame_that_the_words_say(text: str) -> None:
    import scapy.layers.inet6  # noqa: F401 - so that scapy knows IPv6

    octets = describe(text, find)
    packet = ether.Ether(octets)
    assert CASES[text] in packet.summary()
    assert packet.src in ("02:00:00:00:00:01", "02:00:00:00:00:09")
    built = packet.copy()
    for layer in ("IP", "ICMP", "UDP", "ICMPv6ND_NS", "ICMPv6ND_NA", "ICMPv6EchoRequest"):
        if layer in built:
            for checksum in ("chksum", "cksum"):
                if checksum in built[layer].fields and not (layer == "UDP" and built[layer].chksum == 0):
                    del built[layer].fields[checksum]
    assert bytes(built) == octets  # with scapy's checksums


@pytest.mark.parametrize(
    ("ip", "mac"),
    [("10.0.0.2", "02:00:00:00:00:02"), ("224.1.2.3", "01:00:5e:01:02:03"), ("255.255.255.255", "ff:ff:ff:ff:ff:ff")],
)
def test_where_it_goes(ip: str, mac: str) -> None:
    assert describe(f"icmp 10.0.0.1 > {ip}", find)[:6] == MacAddress(mac).packed


def test_given_addresses_tag_and_ethertype() -> None:
    octets = describe("", find, src="02:00:00:00:00:0a", dst="02:00:00:00:00:0b", vlan=7, ethertype=0x88CC)
    assert octets[:18].hex() == "02000000000b02000000000a8100000788cc"
    assert len(octets) == 60
    other = describe("icmp 10.0.0.9 > 10.0.0.8", find, src="02:00:00:00:00:0a", dst="02:00:00:00:00:0b")
    assert other[:12].hex() == "02000000000b02000000000a"


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ("ping 10.0.0.1", {}, "one of: arp who-has"),
        ("icmp 10.0.0.1 > 10.0.0.77", {}, "no neighbour has 10.0.0.77"),
        ("icmp 10.0.0.1 > fd00::1", {}, "different IP versions"),
        ("icmp 10.0.0 > 10.0.0.1", {}, "'10.0.0' is not an IP address"),
        ("arp who-has fd00::1 tell fd00::2", {}, "not an IPv4 address"),
        ("nd who-has 10.0.0.1 tell fd00::2", {}, "not an IPv6 address"),
        ("", {"src": "02:00:00:00:00:01"}, "give --dst MAC"),
        ("", {"src": "02", "dst": "02:00:00:00:00:01"}, "not a MAC address"),
        ("icmp 10.0.0.1 > 10.0.0.2", {"vlan": 4095}, "outside 0 … 4094"),
    ],
)
def test_a_wrong_request(text: str, options: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        describe(text, find, **options)


FRAMES = [bytes([2, 0, 0, 0, 0, n]) + bytes(range(n, n + 60)) for n in range(5)]


@pytest.mark.parametrize("kind", ["pcap", "pcapng"])
@pytest.mark.parametrize("nano", [False, True])
def test_a_frame_of_a_file(tmp_path: Path, kind: str, nano: bool) -> None:
    from scapy.utils import PcapNgWriter, PcapWriter

    path = tmp_path / f"some.{kind}"
    writer = PcapNgWriter(str(path)) if kind == "pcapng" else PcapWriter(str(path), nano=nano)
    for frame in FRAMES:
        writer.write(ether.Ether(frame))
    writer.close()
    assert [frame_of(path, number) for number in range(1, 6)] == FRAMES
    with pytest.raises(ConfigError, match="has 5 frames: there is no frame 6"):
        frame_of(path, 6)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_pcapng_of_both_byte_orders_and_simple_blocks(tmp_path: Path, order: str) -> None:
    def block(kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        size = struct.pack(f"{order}I", len(body) + 12)
        return struct.pack(f"{order}I", kind) + size + body + size

    path = tmp_path / "file"
    section = block(0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1))
    interface = block(1, struct.pack(f"{order}HHI", 1, 0, 0))
    simple = block(3, struct.pack(f"{order}I", len(FRAMES[1])) + FRAMES[1])
    other = block(0x0BAD, b"of somebody else")
    enhanced = block(6, struct.pack(f"{order}IIIII", 0, 0, 0, len(FRAMES[2]), len(FRAMES[2])) + FRAMES[2])
    path.write_bytes((section + interface + other + simple + enhanced) * 2)
    assert [frame_of(path, number) for number in (1, 2, 3, 4)] == [FRAMES[1], FRAMES[2]] * 2


@given(st.text("arpndicmhos-wtel>0123456789.:x ", max_size=60))
def test_any_words(text: str) -> None:
    try:
        assert len(describe(text, find, src="02:00:00:00:00:01", dst="02:00:00:00:00:02")) >= 60
    except ConfigError as error:
        assert "\n" not in str(error)


GOOD = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)


@given(st.binary(max_size=80), st.integers(0, 140), st.booleans())
def test_any_bytes_in_a_file(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int, next_generation: bool
) -> None:
    """Broken anywhere, a file gives a frame or one clear line."""
    section = bytes.fromhex("0a0d0d0a1c0000004d3c2b1a01000000ffffffffffffffff1c000000")
    blocks = (
        section + struct.pack("<IIHHII", 1, 20, 1, 0, 0, 20) + struct.pack("<IIIIIII", 6, 36, 0, 0, 0, 4, 4) + bytes(8)
    )
    whole = blocks if next_generation else GOOD + struct.pack("<IIII", 0, 0, 60, 60) + bytes(60)
    path = tmp_path_factory.getbasetemp() / "noise"
    path.write_bytes(whole[:at] + noise + whole[at + len(noise) :])
    try:
        assert isinstance(frame_of(path, 1), bytes)
    except ConfigError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "neither a pcap nor a pcapng"),
        (b"hello, I am text", "neither a pcap nor a pcapng"),
        (GOOD[:10], "ends in the middle"),
        (GOOD, "has 0 frames"),
        (GOOD + bytes(8), "ends in the middle"),
        (GOOD + struct.pack("<IIII", 0, 0, 60, 1500) + bytes(60), "cut to 60 of 1500 bytes"),
        (GOOD + struct.pack("<IIII", 0, 0, 1 << 30, 1 << 30), "broken"),
        (GOOD[:20] + struct.pack("<I", 113) + struct.pack("<IIII", 0, 0, 4, 4) + bytes(4), "not an Ethernet frame"),
        (bytes.fromhex("0a0d0d0a1c0000004d3c2b1a") + bytes(16) + struct.pack("<II", 6, 12) + bytes(4), "broken"),
    ],
)
def test_a_broken_file(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=says):
        frame_of(path, 1)
