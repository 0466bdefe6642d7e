"""Coalescing, in memory: what leaves, segmented, is what came in; runs end where the kernel's GRO ends them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from coalescing import (
    ANY,
    FAR,
    NEAR,
    ONLY_IPV4,
    ONLY_IPV6,
    ONLY_TCP,
    PLAIN,
    QUIET,
    SENDER,
    TAGS,
    UNKNOWN,
    Sender,
    compare,
    flow,
    is_gso,
    messages,
    senders,
    spans,
    switch,
    traffic,
)
from effort import examples
from frames import GROUP, ethernet
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from segmentation import (
    DF,
    NEEDS_CSUM,
    TCPV4,
    TCPV6,
    UDP_L4,
    VNET,
    add,
    put,
    segment,
)
from segmentation import TCP as PROTOCOL_TCP
from segmentation import UDP as PROTOCOL_UDP

from fastbridge import Switch

every_kind = pytest.mark.parametrize(
    ("version", "protocol"),
    [(v, p) for v in (4, 6) for p in (PROTOCOL_TCP, PROTOCOL_UDP)],
    ids=lambda value: str(value),
)
pending = pytest.mark.parametrize("pending", [False, True], ids=["complete", "pending"])


@every_kind
@pending
@pytest.mark.parametrize("tags", TAGS, ids=lambda tags: tags.hex() or "untagged")
def test_a_run_leaves_as_one(version: int, protocol: int, pending: bool, tags: bytes) -> None:
    sent = messages(flow(10, version=version, protocol=protocol, pending=pending, tags=tags))
    made = switch()
    (only,) = made.process_offloaded(0, sent)
    flags, gso_type, header_length, size, start, _ = VNET.unpack_from(only.frame)
    headers = 14 + len(tags) + (20 if version == 4 else 40)
    assert (flags, size, start) == (NEEDS_CSUM, 100, headers)
    assert gso_type == (UDP_L4 if protocol == PROTOCOL_UDP else TCPV4 if version == 4 else TCPV6)
    assert header_length == headers + (8 if protocol == PROTOCOL_UDP else 20)
    assert spans(sent) == [10]
    port = made.counters().ports["1"]
    assert (port.tx_frames, port.tx_bytes, port.coalesced) == (10, sum(map(len, sent)) - 10 * VNET.size, 9)


@every_kind
def test_scapy_agrees(version: int, protocol: int) -> None:
    """Frames of another encoder, and their checksums."""
    layers = []
    for n in range(5):
        ip = (
            IP(src="10.1.0.1", dst="10.1.0.2", id=9 + n, flags="DF") if version == 4 else IPv6(src="fd::1", dst="fd::2")
        )
        options = [("Timestamp", (5, 6)), ("NOP", None), ("NOP", None)]
        transport = TCP(seq=1000 + 7 * n, flags="A", options=options) if protocol == PROTOCOL_TCP else UDP()
        layers.append(Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01") / Dot1Q(vlan=5) / ip / transport)
    frames = [bytes(layer / bytes([n] * 7)) for n, layer in enumerate(layers)]
    assert spans([PLAIN + frame for frame in frames]) == [5]
    (only,) = switch().process_offloaded(0, [PLAIN + frame for frame in frames])
    assert segment(only.frame) == frames


def wrong_byte(at: int) -> Callable[[bytes], bytes]:
    return lambda message: message[:at] + bytes([message[at] ^ 0x10]) + message[at + 1 :]


IPV4_AT = VNET.size + 14


def changes() -> list[Any]:
    cases = []
    for version in 4, 6:
        for protocol in PROTOCOL_TCP, PROTOCOL_UDP:
            table = ANY | (ONLY_IPV4 if version == 4 else ONLY_IPV6) | (ONLY_TCP if protocol == PROTOCOL_TCP else {})
            cases += [
                pytest.param(version, protocol, *case, id=f"{version} {protocol} {n}") for n, case in table.items()
            ]
    return cases


@pytest.mark.parametrize(("version", "protocol", "change", "left"), changes())
def test_what_ends_a_run(version: int, protocol: int, change: dict[str, Any], left: list[int]) -> None:
    packets = flow(6, version=version, protocol=protocol)
    packets[2] = packets[2].but(**change)
    assert spans(messages(packets)) == left


@every_kind
def test_sizes(version: int, protocol: int) -> None:
    def of(*sizes: int) -> list[int]:
        packets, seq = [], 0
        for n, (size, packet) in enumerate(
            zip(sizes, flow(len(sizes), version=version, protocol=protocol), strict=True)
        ):
            packets.append(packet.but(payload=bytes([n]) * size, seq=seq))
            seq += size
        return spans(messages(packets))

    assert of(100) == [1]
    assert of(100, 99) == [2]
    assert of(99, 100) == [1, 1]
    assert of(100, 100, 1, 1, 100) == [3, 1, 1]
    assert of(100, 100, 50, 100, 100) == [3, 2]
    assert of(1, 1, 1) == [3]
    assert of(*[100] * 150) == [64, 64, 22]
    most = (65_535 - (20 if version == 4 else 40) - (8 if protocol == PROTOCOL_UDP else 20)) // 1_400
    assert of(*[1_400] * 60) == [most, 60 - most]
    assert of(0, 0, 0) == [1, 1, 1]
    # An IP packet of 65,535 bytes, and what would be one byte more.
    room = 65_535 - (20 if version == 4 else 40) - (8 if protocol == PROTOCOL_UDP else 20)
    piece, rest = divmod(room, 9)
    assert of(*[piece] * 9, rest) == ([10] if rest else [9, 1])
    assert of(*[piece] * 9, rest + 1) == [9, 1]


def test_numbers_wrap() -> None:
    assert spans(messages(flow(6, seq=(1 << 32) - 250, ident=65_533))) == [6]


@pytest.mark.parametrize("protocol", [PROTOCOL_TCP, PROTOCOL_UDP])
def test_ipv4_ids(protocol: int) -> None:
    def of(idents: list[int], fragment: int) -> list[int]:
        packets = flow(len(idents), protocol=protocol, fragment=fragment)
        return spans(messages([p.but(ident=i) for p, i in zip(packets, idents, strict=True)]))

    assert of([0, 0, 0, 0], DF) == [4]
    assert of([7, 7, 8, 9], DF) == [2, 2]
    assert of([7, 8, 8, 8], DF) == [2, 2]
    assert of([7, 8, 9], 0) == [3]
    assert of([7, 7, 7], 0) == [1, 1, 1]  # each may be fragmented, so its ID counts
    assert of([9, 8, 7], DF) == [1, 1, 1]
    assert of([1, 3, 5], 0) == [1, 1, 1]


@every_kind
@pending
@pytest.mark.parametrize("place", range(4))
def test_a_wrong_checksum_stays_wrong(version: int, protocol: int, pending: bool, place: int) -> None:
    """Whether the checksum or what it covers is wrong, wherever in a run: the frame leaves as it came."""
    good = messages(flow(4, version=version, protocol=protocol, pending=pending))
    transport = IPV4_AT + (20 if version == 4 else 40)
    spots = [transport + (16 if protocol == PROTOCOL_TCP else 6)]
    if not pending:
        spots += [len(good[0]) - 1, transport + (20 if protocol == PROTOCOL_TCP else 8)]
    if version == 4:
        spots += [IPV4_AT + 10, IPV4_AT + 11]
    alone = {0: [1, 3], 1: [1, 1, 2], 2: [2, 1, 1], 3: [3, 1]}[place]
    for spot in spots:
        sent = [*good[:place], wrong_byte(spot)(good[place]), *good[place + 1 :]]
        assert spans(sent) == alone


def test_no_checksum_at_all() -> None:
    """UDP over IPv4 may go without (0): segmentation would make one."""
    at = IPV4_AT + 20 + 6
    assert spans([put(m, at, 0) for m in messages(flow(3, protocol=PROTOCOL_UDP))]) == [1, 1, 1]
    # Not even where 0 happens to be what the sum would be.
    packets = flow(3, 4, protocol=PROTOCOL_UDP)
    sums = [struct.unpack_from("!H", m, at)[0] for m in messages(packets)]
    fitting = [
        p.but(payload=p.payload[:2] + struct.pack("!H", add(p.payload[2:] + struct.pack("!H", c))))
        for p, c in zip(packets, sums, strict=True)
    ]
    sent = messages(fitting)
    assert [m[at : at + 2] for m in sent] == [b"\xff\xff"] * 3
    assert spans(sent) == [3]
    assert spans([put(m, at, 0) for m in sent]) == [1, 1, 1]


@pytest.mark.parametrize("vnet", [(1, 0, 0, 0, 30, 16), (1, 0, 0, 0, 34, 6), (1, 0, 0, 0, 65_535, 65_535)])
def test_a_checksum_pending_elsewhere(vnet: tuple[int, ...]) -> None:
    sent = [VNET.pack(*vnet) + m[VNET.size :] for m in messages(flow(3, pending=True))]
    assert spans(sent) == [1, 1, 1]


def test_gso_frames_pass_between() -> None:
    """A GSO frame is left as it is, and what is around it does not join over it."""
    packets = flow(9, pending=True)
    (whole,) = switch().process_offloaded(0, messages(packets[3:6]))
    out = switch().process_offloaded(0, [*messages(packets[:3]), whole.frame, *messages(packets[6:])])
    assert [is_gso(e.frame) for e in out] == [True] * 3
    assert out[1] == whole
    assert [f for e in out for f in segment(e.frame)] == [f for m in messages(packets) for f in segment(m)]


def test_order_between_flows() -> None:
    """Two flows between the same ports: only what follows immediately is merged."""
    one, two = messages(flow(6)), messages(flow(6, ports=(7, 8)))
    assert spans([one[0], two[0], one[1], two[1]]) == [1, 1, 1, 1]
    assert spans([*one[:3], *two[:3], *one[3:], *two[3:]]) == [3, 3, 3, 3]


def test_flows_to_different_ports_do_not_mind_each_other() -> None:
    far = [p.but(destination=FAR) for p in flow(4)]
    mixed = [m for pair in zip(messages(flow(4)), messages(far), strict=True) for m in pair]
    assert [(e.port, is_gso(e.frame)) for e in switch().process_offloaded(0, mixed)] == [(1, True), (2, True)]


@pytest.mark.parametrize("destination", [UNKNOWN, GROUP])
def test_floods_are_left_alone(destination: int) -> None:
    sent = [p.but(destination=destination).message() for p in flow(3)]
    assert switch().process_offloaded(0, sent) == [(port, message) for port in (1, 2) for message in sent]


def test_the_flag_is_the_ports_own() -> None:
    made = switch()
    made.set_flags("1", coalesce=False)
    assert (made.flags("1").coalesce, made.flags("2").coalesce) == (False, True)
    sent = messages(flow(3))
    assert [e.frame for e in made.process_offloaded(0, sent)] == sent
    made.set_flags("1", coalesce=True)
    assert len(made.process_offloaded(0, sent)) == 1
    assert not Switch.in_memory(2).flags(0).coalesce


def test_process_is_frame_for_frame_and_the_trace_shows_each() -> None:
    made = switch()
    frames = [m[VNET.size :] for m in messages(flow(5))]
    with made.trace() as trace:
        assert made.process(0, frames) == [(1, frame) for frame in frames]
        made.process_offloaded(0, [PLAIN + frame for frame in frames])
        assert [event.frame for event in trace.read()] == frames * 2
    assert made.counters().ports["1"].coalesced == 8


def test_bad_messages() -> None:
    made = switch()
    with pytest.raises(ValueError, match="256"):
        made.process_offloaded(0, [PLAIN + bytes(60)] * 257)
    with pytest.raises(ValueError, match="vnet header"):
        made.process_offloaded(0, [bytes(9)])
    with pytest.raises(TypeError):
        made.process_offloaded(0, ["frame"])  # type: ignore[list-item]
    assert made.counters().total.rx_frames == 0
    assert made.process_offloaded(0, [PLAIN, PLAIN + bytes(13)]) == []
    assert made.counters().total.dropped["runt"] == 2


# -- any traffic -----------------------------------------------------------------------------------------


@given(traffic())
@settings(max_examples=examples(600))
def test_any_traffic(sent: list[bytes]) -> None:
    merging, plain = switch(), switch(coalesce=False)
    got, wanted = merging.process_offloaded(0, sent), plain.process_offloaded(0, sent)
    for port in 0, 1, 2:
        compare([e.frame for e in wanted if e.port == port], [e.frame for e in got if e.port == port])
    after, before = merging.counters(), plain.counters()
    for name, port in after.ports.items():
        assert port.coalesced == before.ports[name].tx_frames - sum(e.port == int(name) for e in got)
        assert (port.tx_frames, port.tx_bytes) == (before.ports[name].tx_frames, before.ports[name].tx_bytes)


@given(st.lists(senders, min_size=1, max_size=3), st.integers(2, 70))
@settings(max_examples=examples(200))
def test_nothing_mergeable_is_left(flows: list[Sender], count: int) -> None:
    """Bursts as stacks send them leave as few frames as the limits allow."""
    for sender in flows:
        sent = [sender.send(sender.size).message() for _ in range(count)]
        unique = sender.packet.destination in (NEAR, FAR)
        packet = sender.packet
        may = unique and (packet.version == 6 or not sender.fixed_id or packet.fragment == DF)
        overhead = 60 + 20
        fit = min(64, (65_535 - overhead) // sender.size)
        got = switch().process_offloaded(0, sent)
        if may:
            assert len(got) <= -(-count // fit)
        elif not unique:
            assert len(got) == 2 * count


@given(st.binary(max_size=200), st.binary(max_size=80))
@settings(max_examples=examples(300))
def test_any_bytes_after_a_mac_header(junk: bytes, more: bytes) -> None:
    """Headers of all lengths and contents, twice in a row so that they may match."""
    for ethertype in 0x0800, 0x86DD, 0x8100:
        one = PLAIN + ethernet(NEAR, SENDER, ethertype=ethertype, payload=junk)
        plain, merging = switch(coalesce=False), switch()
        batch = [one, one, one + more, one]
        compare(
            [e.frame for e in plain.process_offloaded(0, batch)], [e.frame for e in merging.process_offloaded(0, batch)]
        )


def test_every_cut() -> None:
    """Two equal frames cut at each length: no read beyond the end, no merge of what is not whole."""
    for version in 4, 6:
        for protocol in PROTOCOL_TCP, PROTOCOL_UDP:
            whole = messages(flow(2, 5, version=version, protocol=protocol, options=QUIET))
            for length in range(VNET.size + 14, len(whole[0])):
                cut = [m[:length] for m in whole]
                assert [e.frame for e in switch().process_offloaded(0, cut)] == cut


def test_runs_are_in_order() -> None:
    """What carries a number arrives by number, however it was merged."""
    packets = flow(120, 8, protocol=PROTOCOL_UDP)
    numbered = [p.but(payload=struct.pack("!Q", n), ttl=64 - n // 17 % 2) for n, p in enumerate(packets)]
    out = [f for e in switch().process_offloaded(0, messages(numbered)) for f in segment(e.frame)]
    numbers = [struct.unpack("!Q", frame[-8:])[0] for frame in out]
    assert numbers == list(range(120))
    assert all(a < b for a, b in pairwise(numbers))
