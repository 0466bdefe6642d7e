"""The frames of a hostile pod that plays another, or wants to hear another's frames."""

from __future__ import annotations

from functools import cache

import arp_nd_frames as make
from arp_nd_frames import IPV4, IPV6, A, B, C, tagged
from frames import GROUP, ethernet
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

VICTIM, PEER, HOSTILE = range(3)
BROADCAST = "ff:ff:ff:ff:ff:ff"


def claims(mac: str, ip: str, *, source: str = "") -> list[Packet]:
    """All the ways to say that an address is at a MAC, to all and to the peer."""
    if ":" not in ip:
        return [
            make.arp(1, mac, ip, ip, source=source),
            make.arp(2, mac, ip, ip, source=source),
            make.arp(1, mac, ip, IPV4[1], source=source),
            make.arp(1, mac, ip, IPV4[1], to=B, source=source),
            make.arp(2, mac, ip, IPV4[1], to=B, source=source),
            make.arp(1, mac, ip, "10.0.0.99", source=source),
        ]
    frames = [
        make.na(mac, ip),
        make.na(mac, ip, r=1, o=0),
        make.na(mac, ip, to=B, to_ip=IPV6[1], s=1),
        make.ns(mac, ip, IPV6[1]),
        make.ns(mac, ip, IPV6[1], unicast_to=B),
        make.ns(mac, ip, "fd00::99"),
    ]
    for frame in frames:
        frame.src = source or mac
    return frames


def data(mac: str, ip: str, to: str = B) -> Packet:
    header = IPv6(src=ip, dst=IPV6[1]) if ":" in ip else IP(src=ip, dst=IPV4[1])
    return Ether(src=mac, dst=to) / header / UDP() / b"forged"


def attacks(family: int) -> dict[str, list[Packet]]:
    ips, free, free6 = IPV4 if family == 4 else IPV6, "10.0.0.200" if family == 4 else "fd00::c8", "fd00::c8"
    probe = make.arp(1, A, "0.0.0.0", free) if family == 4 else make.dad(A, free)
    return {
        "the victim's address at the hostile MAC": claims(C, ips[0]),
        "a free address at the victim's MAC": claims(A, free),
        "the hostile address at the victim's MAC": claims(A, ips[2]),
        "the victim's address at the victim's MAC": claims(A, ips[0]),
        "the peer's address at the victim's MAC": claims(A, ips[1]),
        "the victim's address in IPv6's clothes": [
            make.na(C, f"::ffff:{IPV4[0]}"),
            make.ns(C, f"::ffff:{IPV4[0]}", free6),
        ],
        "another MAC inside than outside": claims(A, ips[0], source=C) + claims(C, ips[0], source=A),
        "probes from the victim's MAC": [probe],
        "data from the victim": [data(A, ips[0]), data(A, ips[0], BROADCAST)],
        "data from the victim's MAC": [data(A, free), data(A, ips[2], BROADCAST), data(A, "0.0.0.0", BROADCAST)],
        "data from the victim's address": [data(C, ips[0]), data(C, ips[0], BROADCAST)],
        "no IP from the victim's MAC": [Ether(ethernet(GROUP, int(A.replace(":", ""), 16)))],
        "claim, then use": [*claims(A, free), data(A, free), data(A, free, BROADCAST)],
    }


def disguises(frame: Packet, vids: tuple[int, ...]) -> list[bytes]:
    """The same frame in the victim's VLAN, in one of another inner tag, and with tags that a kernel strips."""
    same = [tagged(frame, *vids), tagged(frame, *vids, tpid=0x88A8)] if vids else [tagged(frame), tagged(frame, 0)]
    if len(vids) == 2:
        same += [tagged(frame, vids[0]), tagged(frame, vids[0], vids[1] + 1), tagged(frame, vids[0], 0)]
    elif vids:
        same += [tagged(frame, *vids, 0), tagged(frame, *vids, 9), tagged(frame, 0, *vids)]
    return same


@cache
def attack_frames(family: int, attack: str, vids: tuple[int, ...]) -> list[bytes]:
    return [frame for packet in attacks(family)[attack] for frame in disguises(packet, vids)]
