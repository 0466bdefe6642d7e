"""The life of a binding, in memory: when it begins, is doubted and ends."""

from __future__ import annotations

import logging
from typing import Any

import arp_nd_frames as make
import pytest
from arp_nd_frames import IPV4, IPV6, A, B, C, tagged
from frames import GROUP, ethernet
from hostile import Net, SimulatedPod
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from fastbridge import ConfigError, Guard, Message, Neighbours, Policy, Punt, Switch, Verdict, Wants, parse_policy
from fastbridge.arp_nd import read

OLD, NEW, OTHER = range(3)
FAMILIES = pytest.mark.parametrize("family", [4, 6])
STACKS = pytest.mark.parametrize("vids", [(), (5,), (100, 7)], ids=str)


def net(policy: str, family: int = 4, vids: tuple[int, ...] = ()) -> Net:
    ips = IPV4 if family == 4 else IPV6
    return Net(policy, [SimulatedPod(mac, ip, vids) for mac, ip in zip((A, B, C), ips, strict=True)])


def move(around: Net, *, announce: bool = True) -> str:
    """The address of OLD is NEW's from now on."""
    old, new = around.pods[OLD], around.pods[NEW]
    ip, old.ip, new.ip = old.ip, "fd00::f1" if ":" in old.ip else "10.0.0.251", old.ip
    if announce:
        around.send(NEW, new.announcement())
    return ip


def owner(around: Net, ip: str) -> tuple[str, str] | None:
    return next(((n.port, str(n.mac)) for n in around.switch.neighbours if str(n.ip) == ip), None)


def questions(around: Net, pod: int, since: int) -> int:
    """How often the switch has asked a pod."""
    return len([frame for frame in around.pods[pod].heard[since:] if not frame[0] & 1])


@STACKS
@FAMILIES
@pytest.mark.parametrize("policy", ["guard", "guard,suppress", "guard,direct", "guard,ratelimit=50"])
def test_an_announced_address_moves_within_two_seconds(policy: str, family: int, vids: tuple[int, ...]) -> None:
    around = net(policy, family, vids)
    assert around.reaches(OTHER, OLD)
    ip = move(around)
    assert owner(around, ip) == (str(OLD), A)
    before = [len(pod.heard) for pod in around.pods]
    around.pass_time(2)
    assert owner(around, ip) == (str(NEW), B)
    assert questions(around, OLD, before[OLD]) == 6
    # What nobody was to hear before is heard by all now, so caches are mended.
    assert around.pods[NEW].announcement() in around.pods[OTHER].heard[before[OTHER] :]
    assert around.reaches(OTHER, NEW)
    assert around.reaches(NEW, OTHER)


@STACKS
@FAMILIES
@pytest.mark.parametrize("policy", ["suppress", "direct", "guard", "guard,suppress", "guard,direct"])
def test_an_address_that_moves_without_a_word_is_found_when_it_is_asked_for(
    policy: str, family: int, vids: tuple[int, ...]
) -> None:
    around = net(policy, family, vids)
    ip = move(around, announce=False)
    around.pods[OTHER].believes.clear()
    around.send(OTHER, around.pods[OTHER].question(ip))
    around.pass_time(2)
    assert owner(around, ip) == (str(NEW), B)
    assert around.pods[OTHER].believes[ip] == B
    assert around.reaches(OTHER, NEW)


@FAMILIES
def test_a_station_that_moves_takes_its_mac_along(family: int) -> None:
    """As a virtual machine does, or the virtual MAC of VRRP."""
    around = net("guard", family)
    assert around.reaches(OTHER, OLD)
    old, new = around.pods[OLD], around.pods[NEW]
    ip = old.ip
    new.mac, new.ip, old.mac, old.ip = A, ip, "02:00:00:00:00:99", "10.0.0.99"
    around.send(NEW, new.announcement())
    around.pass_time(2)
    assert owner(around, ip) == (str(NEW), A)
    assert around.reaches(OTHER, NEW)
    assert around.reaches(NEW, OTHER)
    entry = around.switch.fdb.lookup(A)
    assert entry is not None
    assert entry.port == str(NEW)


def test_an_answer_keeps_the_binding(caplog: pytest.LogCaptureFixture) -> None:
    around = net("guard")
    lie = bytes(make.arp(1, C, IPV4[0], IPV4[0]))
    around.send(OTHER, lie)
    around.pass_time(30)
    assert owner(around, IPV4[0]) == (str(OLD), A)
    assert lie not in around.pods[NEW].heard
    assert [r.message for r in caplog.records] == [f"{IPV4[0]} is {A} on 0, and {C} on 2 claims it"]


def test_an_owner_that_gives_way_a_moment_later_is_asked_again() -> None:
    """VRRP's new master claims before the old one has given the address up."""
    around = net("guard")
    around.send(NEW, bytes(make.arp(1, B, IPV4[0], IPV4[0])))
    around.pass_time(0.25)
    assert owner(around, IPV4[0]) == (str(OLD), A)
    move(around, announce=False)
    around.pass_time(3)
    assert owner(around, IPV4[0]) == (str(NEW), B)


def test_a_binding_that_ended_is_told(caplog: pytest.LogCaptureFixture) -> None:
    around = net("guard", vids=(100, 7))
    move(around)
    around.pass_time(2)
    assert f"{IPV4[0]} at {A} vlan 100.7 is gone from 0: it left 6 questions unanswered" in caplog.messages


@FAMILIES
def test_a_mac_that_is_heard_is_there_though_its_addresses_are_silent(family: int) -> None:
    """It talks of other things, and by guard nobody else can talk in its name."""
    around = net("guard", family)
    victim = around.pods[OLD]
    ip, victim.answers = victim.ip, False
    free = "10.0.0.200" if family == 4 else "fd00::c8"
    around.send(OTHER, bytes(make.arp(1, A, free, free) if family == 4 else make.na(A, free)))
    for _ in range(40):
        around.send(OLD, ethernet(GROUP, int(A.replace(":", ""), 16)))
        around.pass_time(0.25)
    assert owner(around, ip) == (str(OLD), A)


def test_static_entries_are_not_doubted() -> None:
    around = net("guard")
    around.switch.neighbours.add(IPV4[0], A, OLD)
    around.pods[OLD].answers = False
    before = len(around.pods[OLD].heard)
    for packet in make.arp(1, B, IPV4[0], IPV4[0]), make.arp(1, A, "10.0.0.200", "10.0.0.200"):
        around.send(NEW, bytes(packet))
        around.pass_time()
    assert questions(around, OLD, before) == 0
    assert owner(around, IPV4[0]) == (str(OLD), A)
    around.switch.process(NEW, [bytes(Ether(src=A, dst=C) / IP(src="10.0.0.200", dst=IPV4[2]) / UDP())])
    assert around.switch.counters().ports[str(NEW)].dropped["source_guard"] == 1


def test_a_static_entry_takes_the_mac_from_who_had_it_first() -> None:
    """Also when it comes later; and when it goes, the MAC is free."""
    around = net("guard")
    table: Neighbours = around.switch.neighbours
    table.add("10.0.0.77", B, OLD)
    holder = table.holder(0, make.mac(B))
    assert holder is not None
    assert (holder.port, holder.static) == (OLD, True)
    frame = bytes(Ether(src=B, dst="02:00:00:00:00:99") / IP(src="0.0.0.0", dst=IPV4[2]) / UDP())
    around.switch.process(NEW, [])
    assert around.switch.process(NEW, [frame]) == []
    assert len(around.switch.process(OLD, [frame])) == 2
    table.remove("10.0.0.77")
    around.switch.process(NEW, [])
    assert around.switch.process(OLD, [frame]) == []
    assert len(around.switch.process(NEW, [frame])) == 2


class DeafToAnswers(Policy):
    """Wants what is sent to all alone, so that no answer to the switch is shown to it."""

    wants = Wants(arp_group=Punt.TAKE)

    def decide(self, message: Message, neighbours: Neighbours) -> Verdict | None:
        return None


def test_who_cannot_be_heard_is_not_asked() -> None:
    around = net("guard")
    around.switch.set_policy(DeafToAnswers(), OLD)
    before = len(around.pods[OLD].heard)
    around.send(NEW, bytes(make.arp(1, B, IPV4[0], IPV4[0])))
    around.pass_time()
    assert questions(around, OLD, before) == 0
    assert owner(around, IPV4[0]) == (str(OLD), A)


def test_a_pod_may_change_its_own_mac() -> None:
    """Nobody else loses by it: so do VRRP's masters, and interfaces made anew."""
    around = net("guard")
    changed = bytes(make.arp(1, "02:00:00:00:00:99", IPV4[0], IPV4[0]))
    around.send(OLD, changed)
    assert changed in around.pods[OTHER].heard
    assert owner(around, IPV4[0]) == (str(OLD), "02:00:00:00:00:99")
    for mac in A, "02:00:00:00:00:99":
        frame = bytes(Ether(src=mac, dst=C) / IP(src=IPV4[0], dst=IPV4[2]) / UDP())
        assert around.switch.process(OLD, [frame]) == [(OTHER, frame)]
        assert around.switch.process(NEW, [frame]) == []


@pytest.mark.parametrize(
    ("outer", "inner", "passes"), [(100, 7, False), (100, 8, True), (100, 0, True), (101, 7, True)]
)
def test_an_address_is_bound_in_its_whole_vlan_stack(outer: int, inner: int, passes: bool) -> None:
    """The same address may be somebody else's behind another inner tag; a MAC may not, as the FDB knows the outer."""
    around = net("guard", vids=(100, 7))
    frame = Ether(src="02:00:00:00:00:77", dst="02:00:00:00:00:99") / IP(src=IPV4[0], dst=IPV4[1]) / UDP()
    assert bool(around.switch.process(NEW, [tagged(frame, outer, inner)])) == passes
    frame.src = A
    assert bool(around.switch.process(NEW, [tagged(frame, outer, inner)])) == (outer == 101)


def test_bindings_go_with_a_change_and_not_with_the_table() -> None:
    """However many there are, the core is told of the one that changes."""
    around = net("guard")
    for n in range(2000):
        around.switch.neighbours.add(f"10.1.{n >> 8}.{n & 255}", 0x02_00_00_01_00_00 + n, OTHER)
    around.switch.process(OLD, [])
    told: list[Any] = []
    bindings: Any = around.switch._policing.bindings

    class Told:
        def bind(self, rows: list[Any]) -> None:
            told.extend(rows)

    bindings._guard = Told()
    around.send(OLD, bytes(make.arp(1, A, "10.0.0.201", "10.0.0.201")))
    around.switch.neighbours.remove("10.0.0.201")
    around.switch.process(OLD, [])
    mac, ip = int(A.replace(":", ""), 16), b"\xff" + bytes(11) + b"\x0a\x00\x00\xc9"
    assert told == [(OLD, 0, mac, ip), (OLD, 0, 0, ip), (-1, 0, mac, ip), (-1, 0, 0, ip)]


def test_a_router_may_forward_what_others_have_sent() -> None:
    around = net("guard")
    foreign = bytes(Ether(src=C, dst=B) / IP(src="192.0.2.1", dst=IPV4[1]) / UDP())
    known = bytes(Ether(src=C, dst=B) / IP(src=IPV4[0], dst=IPV4[1]) / UDP())
    assert around.switch.process(OTHER, [foreign, known]) == [(NEW, foreign)]
    around.switch.set_policy("guard=router", OTHER)
    assert around.switch.process(OTHER, [foreign, known]) == [(NEW, foreign), (NEW, known)]
    stolen = bytes(Ether(src=A, dst=B) / IP(src=IPV4[0], dst=IPV4[1]) / UDP())
    assert around.switch.process(OTHER, [stolen, bytes(make.arp(2, C, IPV4[0], IPV4[1], to=B))]) == []


def test_who_routes_is_not_strict() -> None:
    assert str(parse_policy("guard=router")) == "guard=router"
    with pytest.raises(ConfigError, match="strict"):
        Guard(strict=True, routes=True)


def test_the_first_drops_of_a_port_are_told_with_the_way_out(caplog: pytest.LogCaptureFixture) -> None:
    around = net("guard")
    caplog.set_level(logging.WARNING)
    for _ in range(3):
        around.switch.process(OTHER, [bytes(Ether(src=C, dst=B) / IP(src=IPV4[0], dst=IPV4[1]) / UDP())] * 5)
        around.switch.tick()
    (told,) = [message for message in caplog.messages if "source guard" in message]
    assert "5 frames of port 2" in told
    assert "guard=router" in told


def test_a_port_that_is_removed_takes_its_bindings_along() -> None:
    """Its index may be another's next."""
    switch: Any = Switch.in_memory(3, policy="guard")
    claim = bytes(make.arp(1, A, IPV4[0], IPV4[0]))
    switch.process(0, [claim])
    switch._remove_member(0)
    data = bytes(Ether(src=A, dst="02:00:00:00:00:99") / IP(src=IPV4[0], dst=IPV4[1]) / UDP())
    assert len(switch.process(1, [data])) == 1
    assert read(0, claim).sender_mac == make.mac(A)
