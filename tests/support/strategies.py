"""Random frames and random histories: small address pools, so that hits, moves and collisions really happen."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from frames import GROUP, TEST_ETHERTYPE, ethernet, tag
from hypothesis import strategies as st
from model import DEFAULT_FLAGS

STATIONS = [0x02_00_00_00_00_00 + n for n in range(1, 4)] + [0x00_00_00_00_00_01, 0xFE_FF_FF_FF_FF_FF]
GROUPS = [GROUP, 0x33_33_00_00_00_01, 0x01_00_5E_00_00_01]
LINK_LOCAL = [0x01_80_C2_00_00_00 | n for n in (0, 2, 3, 0xE, 0xF, 0x10)]  # the last one is just outside
VIDS = [0, 1, 5, 4094]


def weighted(*choices: tuple[int, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """One of several strategies, as often as its weight says. one_of() would take a strategy given twice for one."""
    wheel = [strategy for weight, strategy in choices for _ in range(weight)]
    return st.integers(0, len(wheel) - 1).flatmap(wheel.__getitem__)


stations = st.sampled_from(STATIONS)
vids = st.sampled_from(VIDS)
tags = st.builds(
    lambda vid, tpid, priority: tag(vid, tpid=tpid, priority=priority),
    vids | st.just(4095),
    st.sampled_from([0x8100, 0x88A8]),
    st.integers(0, 7),
)
good_frames = st.builds(
    lambda destination, source, stack, ethertype, payload: ethernet(
        destination, source, b"".join(stack), ethertype=ethertype, payload=payload
    ),
    weighted((3, stations), (2, st.sampled_from(GROUPS)), (1, st.sampled_from(LINK_LOCAL))),
    weighted((15, stations), (1, st.sampled_from([0, *GROUPS]))),
    weighted((4, st.just([])), (1, st.lists(tags, max_size=2))),
    weighted((9, st.just(TEST_ETHERTYPE)), (1, st.sampled_from([0x0000, 0x05DC, 0x8100, 0x88A8, 0x9100, 0xFFFF]))),
    st.binary(max_size=6),
)
cut_frames = st.builds(lambda frame, length: frame[:length], good_frames, st.integers(0, 20))
# Few flags off at a time, or nothing would go through.
flag_sets = st.builds(
    lambda off, on: frozenset(set(DEFAULT_FLAGS) - off | on),
    st.sets(st.sampled_from(DEFAULT_FLAGS), max_size=2),
    st.sets(st.sampled_from(["isolated", "hairpin", "locked"]), max_size=2),
)
storm_kinds = st.sampled_from(["broadcast", "multicast", "unicast"])
# Around a bucket's edges: fractions, less than one at once, intervals between two ns, and more than comes.
rates = st.sampled_from([0.5, 1, 3, 4, 7.3, 8, 32, 1e6, 1e9])
frames = weighted((10, good_frames), (1, cut_frames), (1, st.binary(max_size=24)))


@dataclass(frozen=True)
class Process:
    ingress: int
    frames: list[bytes]


@dataclass(frozen=True)
class Advance:
    """Time goes by, in eighths of a second: exact as float and as milliseconds."""

    eighths: int


@dataclass(frozen=True)
class Tick:
    pass


@dataclass(frozen=True)
class Add:
    mac: int
    port: int
    vid: int


@dataclass(frozen=True)
class Remove:
    mac: int
    vid: int


@dataclass(frozen=True)
class Flush:
    port: int | None


@dataclass(frozen=True)
class SetFlags:
    port: int
    flags: frozenset[str]


@dataclass(frozen=True)
class SetStormControl:
    port: int
    rates: dict[str, float]  # frames a second by kind; a kind that is not there has no limit


@dataclass(frozen=True)
class SetLink:
    port: int
    link: str


@dataclass(frozen=True)
class SetPolicy:
    port: int
    policy: str


@dataclass(frozen=True)
class AddNeighbour:
    ip: bytes
    mac: int
    port: int
    vlan: int


@dataclass(frozen=True)
class RemoveNeighbour:
    ip: bytes
    vlan: int


@dataclass(frozen=True)
class Sweep:
    """As a tick, without questions to neighbours."""


Step = (
    Process
    | Advance
    | Tick
    | Add
    | Remove
    | Flush
    | SetFlags
    | SetStormControl
    | SetLink
    | SetPolicy
    | AddNeighbour
    | RemoveNeighbour
    | Sweep
)


@dataclass(frozen=True)
class History:
    """A switch and what happens to it."""

    ports: int
    ageing: float | None
    capacity: int
    filter_link_local: bool
    steps: list[Step]
    damping: float = 0.0
    neighbour_ageing: float = 60.0


@st.composite
def histories(draw: st.DrawFn) -> History:
    ports = draw(st.integers(2, 5))
    port = st.integers(0, ports - 1)
    flags = st.builds(SetFlags, port, flag_sets)
    storm = st.builds(SetStormControl, port, st.dictionaries(storm_kinds, rates, max_size=3))
    step = weighted(
        (12, st.builds(Process, port, st.lists(frames, max_size=12))),
        (3, st.builds(Advance, st.integers(0, 20))),
        (1, st.builds(Tick)),
        (2, st.builds(Add, stations, port, vids)),
        (1, st.builds(Remove, stations, vids)),
        (1, st.builds(Flush, port | st.none())),
        (2, flags),
        (1, storm),
        (1, st.builds(SetLink, port, st.sampled_from(["up", "up", "down", "blocked"]))),
    )
    # Rules from the start: none, flags for each port, or two isolated ports, which chance seldom gives.
    isolated = [SetFlags(n, frozenset((*DEFAULT_FLAGS, "isolated"))) for n in (0, 1)]
    rules = draw(st.just([]) | st.lists(flags | storm, min_size=2, max_size=6) | st.just(isolated))
    return History(
        ports=ports,
        ageing=draw(st.sampled_from([300.0, None, 1.0, 0.125, 0])),
        # 1: the FDB is full and nobody may evict, as the model says; which entry is evicted, test_fdb.py covers
        capacity=draw(st.sampled_from([1024, 1024, 1])),
        filter_link_local=draw(st.booleans()),
        steps=rules + draw(st.lists(step, min_size=1, max_size=30)),
        damping=draw(st.sampled_from([0.0, 0.0, 0.125, 1.0, 60.0])),
    )


# ARP, ND and IP frames of a few stations that have, or claim, a few addresses.

HOSTS = STATIONS[:3]
IPV4 = [bytes((10, 0, 0, n)) for n in range(1, 4)]
IPV6 = [ip_address(f"fd00::{n}").packed for n in range(1, 4)]
MAPPED = ip_address("::ffff:10.0.0.1").packed  # an IPv6 address that must not be taken for an IPv4 one
STACKS = [(), (5,), (6,), (5, 7), (5, 8), (6, 7)]
ODD_STACKS = [(0,), (0, 5), (5, 0), (0, 0), (5, 7, 8)]

hosts = st.sampled_from(HOSTS)
ipv4 = weighted((12, st.sampled_from(IPV4)), (1, st.sampled_from([bytes(4), bytes((127, 0, 0, 1))])))
ipv6 = weighted((8, st.sampled_from(IPV6)), (2, st.just(MAPPED)), (1, st.just(bytes(16))))
destinations = weighted((2, hosts), (3, st.just(GROUP)), (1, st.just(0x33_33_00_00_00_01)))
policies = st.sampled_from(["guard", "guard", "guard=strict", "guard=router", "guard=router", "watch", "flood"])


def arp(operation: int, mac: int, sender: bytes, target: bytes) -> bytes:
    return struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + mac.to_bytes(6, "big") + sender + bytes(6) + target


def nd(kind: int, source: bytes, target: bytes, option: int | None, flags: int, extended: bool) -> bytes:
    """A solicitation (135) or an advertisement (136), its link-layer address (of 1, or 2) as option."""
    to = ip_address("ff02::1:ff00:0").packed[:13] + target[13:] if kind == 135 else ip_address("ff02::1").packed
    if flags & 0x40:
        to = IPV6[0]
    extra = b"" if option is None else bytes((kind - 134, 1)) + option.to_bytes(6, "big")
    body = struct.pack("!BBHB3x", kind, 0, 0, flags) + target + extra
    pseudo = source + to + struct.pack("!II", len(body), 58) + body
    total = sum(struct.unpack(f"!{len(pseudo) // 2}H", pseudo))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    body = body[:2] + struct.pack("!H", ~total & 0xFFFF) + body[4:]
    if extended:  # behind destination options, as no honest sender has it
        return (
            struct.pack("!IHBB", 6 << 28, len(body) + 8, 60, 255)
            + source
            + to
            + bytes((58, 0, 1, 4, 0, 0, 0, 0))
            + body
        )
    return struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + source + to + body


def ip_packet(source: bytes, payload: bytes) -> bytes:
    if len(source) == 4:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, 17, 0)
        return header + source + IPV4[1] + payload
    return struct.pack("!IHBB", 6 << 28, len(payload), 17, 64) + source + IPV6[1] + payload


@st.composite
def host_frames(draw: st.DrawFn, stacks: list[tuple[int, ...]]) -> bytes:
    """A frame of a host, honest or not, whole or cut, mostly with one of these VLAN stacks."""
    mac = draw(hosts)
    inside = draw(weighted((9, st.just(mac)), (1, hosts)))
    what = draw(st.sampled_from(["arp", "ns", "na", "data", "data"]))
    if what == "arp":
        ethertype, packet = 0x0806, arp(draw(st.sampled_from([1, 1, 2, 3])), inside, draw(ipv4), draw(ipv4))
    elif what == "data":
        source = draw(ipv4 | ipv6)
        ethertype, packet = 0x0800 if len(source) == 4 else 0x86DD, ip_packet(source, draw(st.binary(max_size=12)))
    else:
        option = draw(weighted((5, st.just(inside)), (1, st.none())))
        extended = draw(weighted((15, st.just(False)), (1, st.just(True))))
        source, target = draw(ipv6), draw(ipv6)
        flags = draw(st.sampled_from([0, 0x20, 0x20, 0x60, 0xA0])) if what == "na" else 0
        ethertype, packet = 0x86DD, nd(136 if what == "na" else 135, source, target, option, flags, extended)
    tags = b"".join(tag(vid) for vid in draw(weighted((12, st.sampled_from(stacks)), (1, st.sampled_from(ODD_STACKS)))))
    frame = ethernet(draw(destinations), mac, tags, ethertype=ethertype, payload=packet)
    return frame[: draw(st.integers(14, len(frame)))] if draw(st.integers(0, 19)) == 0 else frame


@st.composite
def guarded_histories(draw: st.DrawFn) -> History:
    """Hosts behind ports of all policies of the model. Few links go down, few flags change, and time ends bindings."""
    ports = draw(st.integers(2, 4))
    port = st.integers(0, ports - 1)
    address = st.sampled_from([*IPV4, *IPV6, MAPPED])
    first = draw(st.sampled_from([st.just("guard"), policies]))
    stacks = draw(st.just([()]) | st.just([(5, 7)]) | st.lists(st.sampled_from(STACKS), min_size=1, max_size=3))
    vlan = st.sampled_from([sum(vid << 12 * n for n, vid in enumerate(vids)) for vids in stacks])
    step = weighted(
        (16, st.builds(Process, port, st.lists(host_frames(stacks), max_size=6))),
        (1, st.builds(Process, port, st.lists(frames, max_size=4))),
        (3, st.builds(Advance, st.integers(0, 8))),
        (2, st.builds(Sweep)),
        (2, st.builds(SetPolicy, port, policies)),
        (2, st.builds(AddNeighbour, address, hosts, port, vlan)),
        (1, st.builds(RemoveNeighbour, address, vlan)),
        (1, st.builds(SetFlags, port, flag_sets)),
        (1, st.builds(SetLink, port, st.sampled_from(["up", "up", "down", "blocked"]))),
        (1, st.builds(SetStormControl, port, st.dictionaries(storm_kinds, rates, max_size=3))),
    )
    return History(
        ports=ports,
        ageing=300.0,
        capacity=1024,
        filter_link_local=False,
        steps=[SetPolicy(n, draw(first)) for n in range(ports)] + draw(st.lists(step, min_size=1, max_size=30)),
        neighbour_ageing=draw(st.sampled_from([60.0, 1.0, 0.5])),
    )
