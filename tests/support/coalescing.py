"""Runs of frames that can be coalesced, made and drawn, and the judge of the result."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from frames import GROUP, tag
from hypothesis import strategies as st
from segmentation import (
    ACK,
    CWR,
    DF,
    ECE,
    FIN,
    GSO_NONE,
    MF,
    PSH,
    RST,
    SYN,
    URG,
    VNET,
    Packet,
    add,
    put,
    segment,
)
from segmentation import TCP as PROTOCOL_TCP
from segmentation import UDP as PROTOCOL_UDP

from fastbridge import Switch
from fastbridge.switch.live import MemorySwitch

SENDER, NEAR, FAR, UNKNOWN = 0x02_00_00_00_00_01, 0x02_00_00_00_00_02, 0x02_00_00_00_00_03, 0x02_00_00_00_00_99
TAGS = [b"", tag(5), tag(5, priority=3), tag(5, tpid=0x88A8), tag(100, tpid=0x88A8) + tag(7)]
PLAIN = VNET.pack(0, GSO_NONE, 0, 0, 0, 0)
QUIET = b"timestamp" + bytes(3)  # 12 bytes of TCP options


def switch(coalesce: bool = True) -> MemorySwitch:
    """NEAR behind port 1 and FAR behind port 2, in every VLAN there is here."""
    made = Switch.in_memory(3, ageing=None, coalesce=coalesce)
    for vlan in 0, 5, 100:
        made.fdb.add(NEAR, "1", vlan=vlan)
        made.fdb.add(FAR, "2", vlan=vlan)
    return made


def spans(messages: list[bytes]) -> list[int]:
    """Send messages through a merging switch; returns how many frames each leaving message to NEAR carries."""
    merging, plain = switch(), switch(coalesce=False)
    got = [e.frame for e in merging.wire(0, messages)]
    wanted = [e.frame for e in plain.wire(0, messages)]
    assert wanted == messages
    return compare(wanted, got)


def compare(wanted: list[bytes], got: list[bytes]) -> list[int]:
    """The messages `got`, segmented, are the messages `wanted`, checksums completed; returns the length of each run."""
    left = [frame for message in wanted for frame in ([message] if is_gso(message) else segment(message))]
    lengths = []
    for message in got:
        made = [message] if is_gso(message) and message in left[:1] else segment(message)
        originals, left = left[: len(made)], left[len(made) :]
        assert made == originals or masked(made) == masked(originals)
        if len(made) == 1:
            assert message in wanted  # untouched, pending checksum and all
        lengths.append(len(made))
    assert not left
    return lengths


def is_gso(message: bytes) -> bool:
    return VNET.unpack_from(message)[1] != GSO_NONE


def masked(frames: list[bytes]) -> list[bytes]:
    """Frames without the IPv4 ID, where nobody may look at it: DF is set, and it is always the same (RFC 6864)."""
    out, seen = [], set()
    for frame in frames:
        at = frame.index(b"\x08\x00", 12) + 2
        assert struct.unpack_from("!H", frame, at + 6) == (DF,)
        assert add(frame[at : at + 20]) == 0xFFFF
        seen.add(frame[at + 4 : at + 6])
        out.append(put(put(frame, at + 4, 0), at + 10, 0))
    assert len(seen) in (1, len(frames))
    return out


def flow(count: int, size: int = 100, **fields: Any) -> list[Packet]:
    """A run as a stack sends it."""
    base = Packet(destination=NEAR, source=SENDER, **fields)
    return [
        base.but(payload=bytes([n % 256]) * size, seq=base.seq + n * size, ident=base.ident + n) for n in range(count)
    ]


def messages(packets: list[Packet]) -> list[bytes]:
    return [packet.message() for packet in packets]


ALONE, ENDS = [2, 1, 3], [3, 3]
FRAGMENT_OFFSET = 0x0001

# What is changed in the third of six frames, and which runs are left then.
ANY = {
    "TTL": ({"ttl": 63}, ALONE),
    "TOS": ({"tos": 4}, ALONE),
    "ECN: congestion experienced": ({"tos": 3}, ALONE),
    "address": ({"address": 2}, ALONE),
    "ports": ({"ports": (5_000, 6_001)}, ALONE),
    "empty": ({"payload": b""}, ALONE),
    "padding": ({"padding": b"\0"}, ALONE),
    "pending": ({"pending": True}, ALONE),
    "tag": ({"tags": tag(5)}, ALONE),
}
ONLY_IPV4 = {
    "may be fragmented": ({"fragment": 0}, ALONE),
    "first fragment": ({"fragment": DF | MF}, ALONE),
    "later fragment": ({"fragment": FRAGMENT_OFFSET}, ALONE),
    "reserved bit": ({"fragment": DF | 0x8000}, ALONE),
    "IP options": ({"ip_options": b"\x01\x01\x01\x00"}, ALONE),
    "ID": ({"ident": 99}, ALONE),
}
ONLY_IPV6 = {"flow label": ({"label": 1}, ALONE)}
ONLY_TCP = {
    "PSH": ({"flags": ACK | PSH}, ENDS),
    "FIN": ({"flags": ACK | FIN}, ENDS),
    "SYN": ({"flags": ACK | SYN}, ALONE),
    "RST": ({"flags": ACK | RST}, ALONE),
    "URG": ({"flags": ACK | URG, "urgent": 1}, ALONE),
    "urgent pointer": ({"urgent": 1}, ALONE),
    "CWR": ({"flags": ACK | CWR}, ALONE),
    "ECE": ({"flags": ACK | ECE}, ALONE),
    "no ACK": ({"flags": 0}, ALONE),
    "acknowledgement": ({"ack": 78}, ALONE),
    "window": ({"window": 501}, ALONE),
    "options": ({"options": QUIET}, ALONE),
    "sequence": ({"seq": 1_000}, ALONE),
    "again": ({"seq": 100}, ALONE),
}


@dataclass
class Sender:
    """A flow that goes on sending."""

    packet: Packet
    size: int
    fixed_id: bool

    def send(self, size: int, **fields: Any) -> Packet:
        made = self.packet.but(payload=bytes(n * 7 % 256 for n in range(size)), **fields)
        self.packet = self.packet.but(
            seq=self.packet.seq + size, ident=self.packet.ident if self.fixed_id else self.packet.ident + 1
        )
        return made


senders = st.builds(
    lambda size, fixed_id, **fields: Sender(Packet(source=SENDER, **fields), size, fixed_id),
    st.sampled_from([1, 7, 100, 1_400]),
    st.booleans(),
    version=st.sampled_from([4, 6]),
    protocol=st.sampled_from([PROTOCOL_TCP, PROTOCOL_UDP]),
    destination=st.sampled_from([NEAR, NEAR, NEAR, FAR, UNKNOWN, GROUP]),
    tags=st.sampled_from([b"", b"", *TAGS]),
    ident=st.sampled_from([0, 65_530]),
    fragment=st.sampled_from([DF, DF, 0]),
    seq=st.sampled_from([0, (1 << 32) - 300]),
    options=st.sampled_from([b"", QUIET]),
    pending=st.booleans(),
    ports=st.sampled_from([(5_000, 6_000), (7, 8)]),
)
oddities = st.sampled_from(
    [table[name][0] for table in (ANY, ONLY_IPV4, ONLY_IPV6, ONLY_TCP) for name in table if name != "empty"]
)
flips = st.tuples(st.integers(0, 90), st.integers(1, 255))


@st.composite
def traffic(draw: st.DrawFn) -> list[bytes]:
    """Bursts of some flows, now and then with something odd: a field, a flipped bit anywhere, a cut-off end."""
    flows = draw(st.lists(senders, min_size=1, max_size=3))
    out: list[bytes] = []
    for _ in range(draw(st.integers(1, 12))):
        sender = draw(st.sampled_from(flows))
        count = draw(st.sampled_from([1, 2, 3, 5, 10]))
        kind = draw(st.sampled_from(["plain", "plain", "plain", "short", "odd", "flip", "cut"]))
        where = draw(st.integers(0, count - 1))
        for n in range(count):
            odd = kind if n == where else "plain"
            size = draw(st.integers(0, sender.size + 1)) if odd == "short" else sender.size
            message = sender.send(size, **(draw(oddities) if odd == "odd" else {})).message()
            if odd == "flip":
                at, bits = draw(flips)
                at %= len(message)
                message = message[:at] + bytes([message[at] ^ bits]) + message[at + 1 :]
            out.append(message[: draw(st.integers(VNET.size, len(message)))] if odd == "cut" else message)
    return out
