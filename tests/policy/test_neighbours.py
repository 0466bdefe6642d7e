"""The neighbour table: learning, moving, conflicts, ageing, capacity."""

from __future__ import annotations

import ipaddress
from collections import Counter

import arp_nd_frames as make
import pytest
from arp_nd_frames import IPV4, IPV6, A, B, C, mac, tagged
from clock import Clock
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from fastbridge import ConfigError, MacAddress, arp_nd
from fastbridge.arp_nd import Kind, Message, read
from fastbridge.policy.neighbour_entry import Change, Claim, Conflict
from fastbridge.policy.neighbours import Neighbours


@pytest.fixture
def table(clock: Clock) -> Neighbours:
    return Neighbours(clock=clock, name_of=lambda port: f"pod{port}")


def hear(table: Neighbours, port: int, frame: Packet | bytes) -> Change | None:
    return table.observe(read(port, bytes(frame)))


def where(table: Neighbours, ip: str, vlan: int = 0) -> tuple[str, int] | None:
    entry = table.lookup(vlan, ipaddress.ip_address(ip).packed)
    return entry and (entry.mac.hex(":"), entry.port)


@pytest.mark.parametrize(
    ("frame", "ip"),
    [
        (make.arp(1, A, IPV4[0], IPV4[1]), IPV4[0]),
        (make.arp(2, A, IPV4[0], IPV4[1], to=B), IPV4[0]),
        (make.arp(1, A, IPV4[0], IPV4[0]), IPV4[0]),
        (make.arp(2, A, IPV4[0], IPV4[0]), IPV4[0]),
        (make.ns(A, IPV6[0], IPV6[1]), IPV6[0]),
        (make.na(A, IPV6[0], to=B, to_ip=IPV6[1], s=1), IPV6[0]),
        (make.na(A, IPV6[0]), IPV6[0]),
    ],
)
@pytest.mark.parametrize("vids", [(), (5,), (7, 5)])
def test_learns_what_is_claimed(table: Neighbours, frame: Packet, ip: str, vids: tuple[int, ...]) -> None:
    message = read(1, tagged(frame, *vids))
    assert table.observe(message) is Change.NEW
    assert table.observe(message) is Change.REFRESHED
    assert where(table, ip, message.vlan) == (A, 1)
    assert where(table, ip, 99) is None
    (entry,) = table
    assert (entry.ip, entry.mac, entry.port) == (ipaddress.ip_address(ip), MacAddress(A), "pod1")
    assert (entry.age, entry.source, entry.static, entry.vlan) == (0, message.kind.value, False, message.vlan)
    assert f"{ip}{arp_nd.vlan_text(message.vlan)} → {A} on pod1 ({message.kind.value}, 0.0 s)" == str(entry)


@pytest.mark.parametrize(
    "frame",
    [
        make.arp(1, A, "0.0.0.0", IPV4[0]),  # a probe
        make.dad(A, IPV6[0]),
        make.arp(1, "ff:ff:ff:ff:ff:ff", IPV4[0], IPV4[1]),  # malformed
        Ether(src=A, dst=B) / IPv6(src=IPV6[0], dst=IPV6[1], hlim=255) / ICMPv6ND_NS(tgt=IPV6[1]),  # tells no MAC
        Ether(src=A, dst=B, type=0x88B5) / b"data",
    ],
)
def test_learns_nothing_else(table: Neighbours, frame: Packet) -> None:
    assert hear(table, 1, frame) is None
    assert len(table) == 0


def test_advertisement_without_address_refreshes_only(table: Neighbours, clock: Clock) -> None:
    bare = Ether(src=A, dst=B) / IPv6(src=IPV6[0], dst=IPV6[1], hlim=255) / ICMPv6ND_NA(tgt=IPV6[0], S=1, R=1, O=0)
    assert hear(table, 1, bare) is None
    hear(table, 1, make.ns(A, IPV6[0], IPV6[1]))
    clock.now += 30
    assert hear(table, 1, bare) is Change.REFRESHED
    assert hear(table, 2, bare) is None  # from elsewhere it tells nothing
    clock.now += 59
    assert where(table, IPV6[0]) == (A, 1)


def test_flags_are_those_the_owner_last_advertised(table: Neighbours) -> None:
    def flags() -> tuple[bool | None, bool]:
        entry = table.lookup(0, ipaddress.ip_address(IPV6[0]).packed)
        assert entry
        return entry.router, entry.override

    hear(table, 1, make.ns(A, IPV6[0], IPV6[1]))
    assert flags() == (None, True)  # a solicitation does not say
    hear(table, 1, make.na(A, IPV6[0], r=1, o=0))
    assert flags() == (True, False)
    hear(table, 1, make.ns(A, IPV6[0], IPV6[1]))
    assert flags() == (True, False)
    assert hear(table, 2, make.ns(A, IPV6[0], IPV6[1])) is Change.MOVED
    assert flags() == (True, False)
    hear(table, 2, make.ns(B, IPV6[0], IPV6[1]))
    assert flags() == (None, True)  # another owner
    hear(table, 2, make.na(B, IPV6[0]))
    assert flags() == (False, True)


def test_station_moves(table: Neighbours) -> None:
    hear(table, 1, make.arp(1, A, IPV4[0], IPV4[1]))
    assert hear(table, 2, make.arp(1, A, IPV4[0], IPV4[0])) is Change.MOVED
    assert where(table, IPV4[0]) == (A, 2)
    assert not table.conflicts
    assert table.flush([1]) == 0
    assert table.flush([2]) == 1


def test_conflict_names_both_sides_and_the_last_claim_counts(clock: Clock) -> None:
    told: list[Conflict] = []
    table = Neighbours(clock=clock, on_conflict=told.append, name_of=lambda port: f"pod{port}")
    hear(table, 1, make.arp(1, A, IPV4[0], IPV4[1]))
    assert hear(table, 2, make.arp(2, B, IPV4[0], IPV4[1])) is Change.CONFLICT
    assert where(table, IPV4[0]) == (B, 2)
    conflict = Conflict(
        clock.now, 0, ipaddress.ip_address(IPV4[0]), Claim(MacAddress(A), "pod1"), Claim(MacAddress(B), "pod2")
    )
    assert told == list(table.conflicts) == [conflict]
    assert str(conflict) == f"{IPV4[0]} is {A} on pod1, and {B} on pod2 claims it"


def test_a_lasting_conflict_is_reported_every_ten_seconds(clock: Clock) -> None:
    told: list[Conflict] = []
    table = Neighbours(clock=clock, on_conflict=told.append)
    for _ in range(80):  # 20 s
        hear(table, 1, make.arp(1, A, IPV4[0], IPV4[1]))
        hear(table, 2, make.arp(1, B, IPV4[0], IPV4[1]))
        clock.now += 0.25
    assert table.conflict_count == 159
    assert len(told) == 2


@pytest.mark.slow
def test_conflicts_kept_are_bounded(table: Neighbours) -> None:
    for i in range(1000):
        ip = f"10.1.{i >> 8}.{i & 255}"
        hear(table, 1, make.arp(1, A, ip, IPV4[1]))
        hear(table, 2, make.arp(1, B, ip, IPV4[1]))
    assert len(table.conflicts) == 256
    assert table.conflict_count == 1000


def test_advertisement_without_override_changes_no_address(table: Neighbours) -> None:
    hear(table, 1, make.na(A, IPV6[0]))
    assert hear(table, 2, make.na(B, IPV6[0], o=0)) is Change.CONFLICT
    assert where(table, IPV6[0]) == (A, 1)
    assert hear(table, 2, make.na(B, IPV6[0], o=1)) is Change.CONFLICT
    assert where(table, IPV6[0]) == (B, 2)


def test_contest_reports_and_changes_nothing(clock: Clock) -> None:
    told: list[Conflict] = []
    table = Neighbours(clock=clock, on_conflict=told.append)
    forged = read(2, bytes(make.arp(2, B, IPV4[0], IPV4[1])))
    table.contest(forged)
    table.contest(read(2, bytes(make.dad(A, IPV6[0]))))
    assert not told
    hear(table, 1, make.arp(1, A, IPV4[0], IPV4[1]))
    table.contest(forged)
    table.contest(forged)
    assert (len(told), table.conflict_count) == (1, 2)
    assert where(table, IPV4[0]) == (A, 1)


def test_static_entries_stay(table: Neighbours, clock: Clock) -> None:
    table.add(IPV4[0], A, 1)
    table.add(IPV6[0], A, 1, source="plan", router=True)
    clock.now += 1e6
    assert hear(table, 1, make.arp(1, A, IPV4[0], IPV4[1])) is Change.REFRESHED
    assert hear(table, 2, make.arp(1, B, IPV4[0], IPV4[1])) is Change.CONFLICT
    assert hear(table, 2, make.arp(1, A, IPV4[0], IPV4[1])) is Change.CONFLICT  # even a move
    assert hear(table, 2, make.na(B, IPV6[0])) is Change.CONFLICT
    assert hear(table, 1, make.na(A, IPV6[0], r=0)) is Change.REFRESHED
    assert where(table, IPV4[0]) == where(table, IPV6[0]) == (A, 1)
    entry = table.lookup(0, ipaddress.ip_address(IPV6[0]).packed)
    assert entry
    assert (entry.router, entry.source) == (True, "plan")
    assert table.sweep() == table.flush() == table.flush([1]) == 0
    assert table.due_for_refresh() == []
    assert [str(e) for e in table] == [f"{IPV4[0]} → {A} on pod1 (static)", f"{IPV6[0]} → {A} on pod1 (plan)"]
    assert table.flush([1], static=True) == 2


def test_static_replaces_learned_and_is_replaced(table: Neighbours) -> None:
    hear(table, 1, make.arp(1, A, IPV4[0], IPV4[1]))
    table.add(IPV4[0], B, 2)
    assert where(table, IPV4[0]) == (B, 2)
    table.add(ipaddress.ip_address(IPV4[0]), MacAddress(C), 3)
    assert where(table, IPV4[0]) == (C, 3)
    assert table.remove(IPV4[0])
    assert not table.remove(IPV4[0])
    assert hear(table, 1, make.arp(1, A, IPV4[0], IPV4[1])) is Change.NEW


def test_entries_expire(table: Neighbours, clock: Clock) -> None:
    hear(table, 1, make.arp(1, A, IPV4[0], IPV4[1]))
    clock.now += 59.9
    hear(table, 2, make.arp(1, B, IPV4[1], IPV4[0]))
    assert len(table) == 2
    clock.now += 0.1
    assert where(table, IPV4[0]) is None
    assert [str(e.ip) for e in table] == [IPV4[1]]
    assert table.sweep() == 1
    clock.now += 60
    assert hear(table, 3, make.arp(1, C, IPV4[1], IPV4[0])) is Change.NEW  # no conflict with the dead
    assert not table.conflicts


def test_never_ageing(clock: Clock) -> None:
    table = Neighbours(ageing=None, clock=clock)
    hear(table, 1, make.arp(1, A, IPV4[0], IPV4[1]))
    clock.now += 1e9
    assert where(table, IPV4[0]) == (A, 1)
    assert table.due_for_refresh() == []
    assert table.sweep() == 0


def test_owners_are_asked_before_their_entry_expires(table: Neighbours, clock: Clock) -> None:
    hear(table, 1, tagged(make.arp(1, A, IPV4[0], IPV4[1]), 5))
    hear(table, 2, make.ns(B, IPV6[1], IPV6[0]))
    asked: Counter[int] = Counter()
    for _ in range(70):
        clock.now += 1
        for neighbour in table.due_for_refresh():
            asked[neighbour.port] += 1
            question = read(0, neighbour.question(mac(C)))
            assert question.eth_destination == neighbour.mac
            assert (question.target_ip, question.vlan) == (neighbour.ip, neighbour.vlan)
        if clock.now == 1045:  # one of them answers
            hear(table, 1, tagged(make.arp(2, A, IPV4[0], "0.0.0.0", to=C), 5))
    assert asked == {1: 2, 2: 4}  # at 40, 45; at 40, 45, 50, 55
    assert where(table, IPV4[0], 5) is not None
    assert where(table, IPV6[1]) is None


def test_announcements(table: Neighbours) -> None:
    hear(table, 1, tagged(make.arp(1, A, IPV4[0], IPV4[1]), 5, tpid=0x88A8))
    hear(table, 1, make.na(A, IPV6[0], r=1))
    kinds = []
    for neighbour in table.live():
        message = read(0, neighbour.announcement())
        kinds.append(message.kind)
        assert (message.vlan, message.sender_ip, message.sender_mac) == (neighbour.vlan, neighbour.ip, neighbour.mac)
        assert message.tags == neighbour.tags
    assert kinds == [Kind.ARP_ANNOUNCEMENT, Kind.NA_UNSOLICITED]


def announce(i: int, port: int) -> Message:
    return read(port, bytes(arp_nd.gratuitous_arp(mac(A), bytes([10, 1, i >> 8, i & 255]))))


def test_a_port_out_of_room_loses_its_own_oldest(clock: Clock) -> None:
    table = Neighbours(per_port=2, clock=clock)
    for i in (1, 2, 11, 12):
        table.observe(announce(i, 1 if i < 10 else 2))
    table.observe(announce(1, 1))  # now 2 is the oldest
    assert table.observe(announce(3, 1)) is Change.NEW
    assert [str(e.ip) for e in table] == ["10.1.0.1", "10.1.0.3", "10.1.0.11", "10.1.0.12"]
    assert table.observe(announce(11, 1)) is Change.MOVED
    assert [str(e.ip) for e in table if e.port == "1"] == ["10.1.0.3", "10.1.0.11"]


def test_a_full_table_takes_nothing_from_others(clock: Clock) -> None:
    table = Neighbours(capacity=3, clock=clock)
    for i in (1, 2, 3):
        table.observe(announce(i, 1))
    assert table.observe(announce(4, 2)) is None
    assert (len(table), table.refused) == (3, 1)
    assert table.observe(announce(5, 1)) is Change.NEW
    assert [str(e.ip) for e in table] == ["10.1.0.2", "10.1.0.3", "10.1.0.5"]
    assert table.observe(announce(5, 2)) is Change.MOVED
    with pytest.raises(ConfigError, match="full"):
        table.add("10.0.0.9", A, 1)
    table.add("10.1.0.5", A, 1)  # it is there already


@pytest.mark.parametrize(
    ("ip", "station", "vlan", "complaint"),
    [
        ("10.0.0.300", A, 0, "not an IP address"),
        ("224.0.0.1", A, 0, "not a unicast"),
        ("::", A, 0, "not a unicast"),
        ("127.0.0.1", A, 0, "not a unicast"),
        ("10.0.0.1", "ff:ff:ff:ff:ff:ff", 0, "unicast MAC"),
        ("10.0.0.1", 0, 0, "unicast MAC"),
        ("10.0.0.1", "nonsense", 0, "MAC address"),
        ("10.0.0.1", A, 4095, "VLAN id 4095"),
        ("10.0.0.1", A, -1, "VLAN id -1"),
    ],
)
def test_wrong_entries(table: Neighbours, ip: str, station: str | int, vlan: int, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        table.add(ip, station, 1, vlan)
    assert len(table) == 0


def test_wrong_tables() -> None:
    for ageing in (0, -1, float("nan")):
        with pytest.raises(ConfigError, match="more than 0 s"):
            Neighbours(ageing=ageing)
    with pytest.raises(ConfigError, match="1 entry"):
        Neighbours(capacity=0)
    with pytest.raises(ConfigError, match="1 entry"):
        Neighbours(per_port=0)


events = st.tuples(
    st.sampled_from(["hear", "hear", "hear", "hear", "static", "remove", "flush", "sweep", "wait", "refresh"]),
    st.integers(0, 5),
    st.integers(0, 2),
    st.integers(0, 3),
)


@given(st.lists(events, max_size=60), st.integers(1, 6), st.integers(1, 4))
def test_any_history_keeps_within_its_bounds(
    history: list[tuple[str, int, int, int]], capacity: int, most: int
) -> None:
    clock = Clock()
    table = Neighbours(10, capacity, most, clock=clock)
    stations = [mac(A), mac(B), mac(C)]
    for what, i, station, port in history:
        ip = ipaddress.ip_address(f"10.1.0.{i + 1}")
        if what == "hear":
            message = read(port, arp_nd.gratuitous_arp(stations[station], ip.packed))
            change = table.observe(message)
            entry = table.lookup(0, ip.packed)
            assert entry is not None or change is None
            if entry is not None and not entry.static:
                assert (entry.mac, entry.port, entry.seen) == (stations[station], port, clock.now)
        elif what == "static":
            known = any(n.ip == ip.packed for n in table.live())
            table.sweep()
            if known or len(table) < capacity:
                table.add(ip, MacAddress(stations[station]), port)
            else:
                with pytest.raises(ConfigError, match="full"):
                    table.add(ip, MacAddress(stations[station]), port)
        elif what == "remove":
            table.remove(ip)
            assert table.lookup(0, ip.packed) is None
        elif what == "flush":
            table.flush([port])
            assert all(e.static for e in table.live() if e.port == port)
        elif what == "sweep":
            table.sweep()
        elif what == "wait":
            clock.now += i
        else:
            assert all(n.ip for n in table.due_for_refresh())
        live = table.live()
        assert len(live) <= capacity
        assert max(Counter(n.port for n in live if not n.static).values(), default=0) <= most
        assert all(table.lookup(n.vlan, n.ip) is n for n in live)
