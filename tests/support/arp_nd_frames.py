"""ARP and ND frames, encoded by scapy: an independent opinion on their bytes."""

from __future__ import annotations

from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet

MACS = ["02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03"]
IPV4 = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
IPV6 = ["fd00::1", "fd00::2", "fd00::3"]
A, B, C = MACS


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def tagged(frame: Packet, *vids: int, tpid: int = 0x8100) -> bytes:
    """The same frame with VLAN tags, the outer one of this TPID."""
    ether, payload = frame.copy(), frame.payload
    ether.remove_payload()
    ethertype = frame.type
    for vid in reversed(vids):
        payload, ethertype = Dot1Q(vlan=vid, type=ethertype) / payload, 0x8100
    ether.type = tpid if vids else ethertype
    return bytes(ether / payload)


def arp(
    op: int, sender: str, sender_ip: str, target_ip: str, *, to: str = "ff:ff:ff:ff:ff:ff", source: str = ""
) -> Packet:
    target = to if op == 2 and not to.startswith("ff") else "00:00:00:00:00:00"
    return Ether(src=source or sender, dst=to) / ARP(op=op, hwsrc=sender, psrc=sender_ip, hwdst=target, pdst=target_ip)


def solicited_node(ip: str) -> tuple[str, str]:
    """The group addresses of a solicitation for `ip`, for the fd00::N of these tests."""
    last = int(ip.rpartition(":")[2], 16)
    return f"33:33:ff:00:00:{last:02x}", f"ff02::1:ff00:{last:x}"


def ns(sender: str, sender_ip: str, target: str, *, unicast_to: str = "", options: Packet | None = None) -> Packet:
    """A solicitation; `options` replace the source link-layer address."""
    eth, group = solicited_node(target)
    frame = Ether(src=sender, dst=unicast_to or eth) / IPv6(
        src=sender_ip, dst=target if unicast_to else group, hlim=255
    )
    return frame / ICMPv6ND_NS(tgt=target) / (options or ICMPv6NDOptSrcLLAddr(lladdr=sender))


def dad(sender: str, target: str) -> Packet:
    eth, group = solicited_node(target)
    return Ether(src=sender, dst=eth) / IPv6(src="::", dst=group, hlim=255) / ICMPv6ND_NS(tgt=target)


def na(sender: str, target: str, *, to: str = "", to_ip: str = "ff02::1", r: int = 0, s: int = 0, o: int = 1) -> Packet:
    frame = Ether(src=sender, dst=to or "33:33:00:00:00:01") / IPv6(src=target, dst=to_ip, hlim=255)
    return frame / ICMPv6ND_NA(tgt=target, R=r, S=s, O=o) / ICMPv6NDOptDstLLAddr(lladdr=sender)
