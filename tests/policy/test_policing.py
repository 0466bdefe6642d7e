"""Policies carried out in memory: a frame goes in, the core hands it over, what the verdict says comes out."""

from __future__ import annotations

import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import arp_nd_frames as make
import pytest
from accounts import check_policy_fates
from arp_nd_frames import IPV4, IPV6, MACS, A, B, C, tagged
from clock import Clock
from effort import few
from frames import GROUP, ethernet
from live import eventually
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6NDOptDstLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from fastbridge import (
    Answer,
    ConfigError,
    Drop,
    Kind,
    MacAddress,
    Message,
    Neighbours,
    Policy,
    Punt,
    SendTo,
    StormControl,
    Suppress,
    Switch,
    Verdict,
    Wants,
)

QUEUE = 1024  # frames of one port that wait for a policy at most
Copies = list[tuple[int, bytes]]


def make_switch(policy: Policy | str, clock: Clock | None = None, vids: tuple[int, ...] = ()) -> Any:
    """A is behind port 0, B behind 1, C behind 2, and all of them have said so (in a VLAN)."""
    switch = Switch.in_memory(3, policy=policy, clock=clock or Clock())
    for port, (mac, ipv4, ipv6) in enumerate(zip(MACS, IPV4, IPV6, strict=True)):
        for frame in make.arp(1, mac, ipv4, ipv4), make.na(mac, ipv6):
            switch.process(port, [tagged(frame, *vids)])
    return switch


def flooded(ingress: int, frame: Packet | bytes) -> Copies:
    return [(port, bytes(frame)) for port in range(3) if port != ingress]


def counted(switch: Any) -> dict[str, int]:
    """What became of the frames handed over."""
    return {what: count for what, count in switch.counters().policy.items() if count}


def since(switch: Any, before: dict[str, int]) -> dict[str, int]:
    return dict(Counter(counted(switch)) - Counter(before))


def dropped(switch: Any, port: str) -> dict[str, int]:
    return {reason: count for reason, count in switch.counters().ports[port].dropped.items() if count}


ASKS_IPV4 = make.arp(1, A, IPV4[0], IPV4[1])
ASKS_IPV6 = make.ns(A, IPV6[0], IPV6[1])
ANSWER_IPV4 = make.arp(2, B, IPV4[1], IPV4[0], to=A)
ANSWER_IPV6 = make.na(B, IPV6[1], to=A, to_ip=IPV6[0], s=1)
QUESTIONS = pytest.mark.parametrize(
    ("question", "answer"), [(ASKS_IPV4, ANSWER_IPV4), (ASKS_IPV6, ANSWER_IPV6)], ids=["arp", "nd"]
)
TAGS = pytest.mark.parametrize("vids", [(), (0,), (5,), (100, 7)], ids=str)
USUAL = {
    "unknown": (make.arp(1, A, IPV4[0], "10.0.0.9"), [1, 2]),
    "unknown ipv6": (make.ns(A, IPV6[0], "fd00::9"), [1, 2]),
    "own address": (make.arp(1, A, IPV4[0], IPV4[0]), [1, 2]),
    "probe": (make.arp(1, A, "0.0.0.0", IPV4[1]), [1, 2]),
    "gratuitous reply": (make.arp(2, A, IPV4[0], IPV4[0]), [1, 2]),
    "reply": (make.arp(2, A, IPV4[0], IPV4[1], to=B), [1]),
    "unicast request": (make.arp(1, A, IPV4[0], IPV4[1], to=B), [1]),
    "unicast solicitation": (make.ns(A, IPV6[0], IPV6[1], unicast_to=B), [1]),
    "detection": (make.dad(A, IPV6[1]), [1, 2]),
    "advertisement": (make.na(A, IPV6[0], to=B, to_ip=IPV6[1], s=1), [1]),
    "unsolicited": (make.na(A, IPV6[0]), [1, 2]),
    "data": (ethernet(GROUP, 0x02_00_00_00_00_01), [1, 2]),
}


# What each policy makes of it.


@TAGS
@QUESTIONS
def test_suppress_answers_in_the_owners_name(question: Packet, answer: Packet, vids: tuple[int, ...]) -> None:
    switch = make_switch("suppress", vids=vids)
    before = counted(switch)
    assert switch.process(0, [tagged(question, *vids)]) == [(0, tagged(answer, *vids))]
    assert since(switch, before) == {"answered": 1}


@TAGS
@QUESTIONS
def test_direct_asks_the_owner_alone(question: Packet, answer: Packet, vids: tuple[int, ...]) -> None:
    switch = make_switch("direct", vids=vids)
    before = counted(switch)
    asked = tagged(question, *vids)
    assert switch.process(0, [asked]) == [(1, asked)]
    assert switch.process(1, [tagged(answer, *vids)]) == [(0, tagged(answer, *vids))]
    assert since(switch, before) == {"sent_to": 1}


@pytest.mark.parametrize("policy", ["suppress", "direct"])
@QUESTIONS
def test_vlans_are_apart(policy: str, question: Packet, answer: Packet) -> None:
    switch = make_switch(policy, vids=(5,))
    for vids in (), (6,), (5, 6):
        asked = tagged(question, *vids)
        assert switch.process(0, [asked]) == flooded(0, asked)


@pytest.mark.parametrize(
    "policy", ["flood", "suppress", "direct", "guard", "ratelimit=50", "guard,ratelimit=50,direct"]
)
@pytest.mark.parametrize("case", USUAL)
def test_the_rest_goes_its_usual_way(policy: str, case: str) -> None:
    frame, egress = USUAL[case]
    assert make_switch(policy).process(0, [bytes(frame)]) == [(port, bytes(frame)) for port in egress]


def test_flood_hands_nothing_over() -> None:
    switch = make_switch("flood")
    for frame in ASKS_IPV4, ASKS_IPV6:
        assert switch.process(0, [bytes(frame)]) == flooded(0, frame)
    assert switch.counters().total.consumed == 0
    assert list(switch.neighbours) == []
    assert counted(switch) == {}


def test_suppress_asks_the_owner_while_its_router_flag_is_unknown() -> None:
    switch = Switch.in_memory(3, policy="suppress")
    switch.process(1, [bytes(make.ns(B, IPV6[1], "fd00::9"))])  # B is known now, but has sent no advertisement
    assert switch.process(0, [bytes(ASKS_IPV6)]) == [(1, bytes(ASKS_IPV6))]
    advertised = bytes(make.na(B, IPV6[1], to=A, to_ip=IPV6[0], s=1, r=1))
    assert switch.process(1, [advertised]) == [(0, advertised)]
    assert switch.process(0, [bytes(ASKS_IPV6)]) == [(0, advertised)]


def test_an_announcement_passes_and_moves_the_neighbour() -> None:
    switch = make_switch("suppress")
    for frame in make.arp(1, B, IPV4[1], IPV4[1]), make.na(B, IPV6[1]):
        assert switch.process(2, [bytes(frame)]) == flooded(2, frame)
    assert {str(n.ip): n.port for n in switch.neighbours if n.mac == MacAddress(B)} == {IPV4[1]: "2", IPV6[1]: "2"}


def test_a_neighbour_on_the_asking_port_answers_itself() -> None:
    switch = make_switch("suppress")
    switch.process(0, [bytes(make.arp(1, B, IPV4[1], IPV4[1]))])
    assert switch.process(0, [bytes(ASKS_IPV4)]) == flooded(0, ASKS_IPV4)


SPOOFS = {
    "arp reply": make.arp(2, A, IPV4[1], IPV4[2], to=C),
    "gratuitous request": make.arp(1, A, IPV4[1], IPV4[1]),
    "gratuitous reply": make.arp(2, A, IPV4[1], IPV4[1]),
    "request": make.arp(1, A, IPV4[1], IPV4[2]),
    "unicast request": make.arp(1, A, IPV4[1], IPV4[2], to=C),
    "owner's MAC from another port": make.arp(2, B, IPV4[1], IPV4[2], to=C),
    "solicitation": make.ns(A, IPV6[1], IPV6[2]),
    "advertisement": make.na(A, IPV6[1], to=C, to_ip=IPV6[2], s=1),
    "unsolicited": make.na(A, IPV6[1]),
    "unsolicited, no override": make.na(A, IPV6[1], o=0),
}


@TAGS
@pytest.mark.parametrize("case", SPOOFS)
def test_guard_drops_spoofs_and_reports_both_sides(
    case: str, vids: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    switch = make_switch("guard", vids=vids)
    before, table = counted(switch), list(switch.neighbours)
    assert switch.process(0, [tagged(SPOOFS[case], *vids)] * 2) == []
    assert since(switch, before) == {"dropped:spoofed": 2}
    assert list(switch.neighbours) == table
    assert switch.neighbours.conflict_count == 2
    (conflict,) = switch.neighbours.conflicts
    assert (conflict.known.port, conflict.known.mac) == ("1", MacAddress(B))
    assert (conflict.claimed.port, conflict.claimed.mac) == ("0", MacAddress(B if "owner" in case else A))
    (record,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert f"is {B} on 1" in record.message
    assert "on 0 claims it" in record.message


@pytest.mark.parametrize("policy", ["guard", "guard,suppress"])
def test_a_priority_tag_before_the_vlan_tag_hides_nothing(policy: str) -> None:
    """A kernel takes VID 0 before VID 5 for VLAN 5 (__netif_receive_skb_core)."""
    switch = make_switch(policy, vids=(5,))
    assert switch.process(0, [tagged(SPOOFS["gratuitous reply"], 0, 5)]) == []


def test_guard_wants_the_frames_source_to_be_the_senders() -> None:
    switch = make_switch("guard")
    before = counted(switch)
    lies = [
        make.arp(2, A, IPV4[0], IPV4[1], to=B, source=C),
        make.arp(1, A, "0.0.0.0", IPV4[1], source=C),
        Ether(src=C, dst=B) / make.na(A, IPV6[0], to=B, to_ip=IPV6[1], s=1).payload,
    ]
    assert switch.process(0, [bytes(frame) for frame in lies]) == []
    assert since(switch, before) == {"dropped:l2_mismatch": 3}


@pytest.mark.parametrize("strict", [False, True])
def test_unbound_claims(strict: bool) -> None:
    switch = Switch.in_memory(3, policy="guard=strict" if strict else "guard")
    switch.trust(1, [(MacAddress(B), ip_address(ip)) for ip in (IPV4[1], IPV6[1])])
    for frame in ASKS_IPV4, ASKS_IPV6:
        assert switch.process(0, [bytes(frame)]) == ([] if strict else flooded(0, frame))
    assert counted(switch) == ({"dropped:unbound": 2} if strict else {"forwarded": 2})
    assert dropped(switch, "0") == {}  # ND is the policy's to judge, not the source guard's
    for frame in make.arp(1, B, IPV4[1], IPV4[0]), make.ns(B, IPV6[1], IPV6[0]), make.dad(B, "fd00::9"):
        assert switch.process(1, [bytes(frame)]) == flooded(1, frame)


def test_a_guarded_neighbour_may_be_claimed_once_it_is_silent(clock: Clock) -> None:
    switch = make_switch("guard", clock)
    spoof = bytes(SPOOFS["gratuitous request"])
    clock.now += 59.9
    assert switch.process(0, [spoof]) == []
    clock.now += 0.2
    assert switch.process(0, [spoof]) == flooded(0, spoof)
    assert switch.process(1, [bytes(make.arp(1, B, IPV4[1], IPV4[1]))]) == []


CUT_ARP = bytes(ASKS_IPV4)[:30]
CUT_ND = bytes(ASKS_IPV6)[:70]
LONG_OPTION = bytes(ASKS_IPV6)[:79] + b"\x05" + bytes(ASKS_IPV6)[80:]
NO_OPTION_LENGTH = bytes(ASKS_IPV6)[:79] + b"\x00" + bytes(ASKS_IPV6)[80:]
MALFORMED = {
    "arp cut": CUT_ARP,
    "arp empty": CUT_ARP[:14],
    "arp sizes": bytes(ASKS_IPV4)[:18] + b"\x08\x04" + bytes(ASKS_IPV4)[20:],
    "nd cut": CUT_ND,
    "nd checksum": bytes(ASKS_IPV6)[:56] + b"\x00\x00" + bytes(ASKS_IPV6)[58:],
    "nd hop limit": bytes(ASKS_IPV6)[:21] + b"\x40" + bytes(ASKS_IPV6)[22:],
    "option over the end": LONG_OPTION,
    "option of length 0": NO_OPTION_LENGTH,
}


@pytest.mark.parametrize("policy", ["flood", "suppress", "direct", "guard", "suppress,guard", "ratelimit=50"])
@pytest.mark.parametrize("case", MALFORMED)
def test_malformed(policy: str, case: str) -> None:
    switch = make_switch(policy)
    before, table = counted(switch), list(switch.neighbours)
    frame = MALFORMED[case]
    copies = switch.process(0, [frame])
    assert copies == ([] if "guard" in policy else flooded(0, frame))
    if "guard" in policy:
        assert since(switch, before) == {"dropped:malformed": 1}
    assert list(switch.neighbours) == table


EXTENSIONS = {
    "hop by hop": [IPv6ExtHdrHopByHop()],
    "destination options": [IPv6ExtHdrDestOpt()],
    "routing": [IPv6ExtHdrRouting()],
    "atomic fragment": [IPv6ExtHdrFragment()],
    "first fragment": [IPv6ExtHdrFragment(m=1)],
    "several": [IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(), IPv6ExtHdrRouting(), IPv6ExtHdrFragment()],
    "seven": [IPv6ExtHdrDestOpt() for _ in range(7)],
}
MANY_EXTENSIONS = {  # a kernel reads on, however many there are
    "eight": [IPv6ExtHdrDestOpt() for _ in range(8)],
    "forty": [IPv6ExtHdrDestOpt() for _ in range(40)],
}


@pytest.mark.parametrize("case", [*EXTENSIONS, *MANY_EXTENSIONS])
def test_nd_cannot_hide_from_guard_behind_extension_headers(case: str) -> None:
    switch = make_switch("guard")
    frame = Ether(src=A, dst=C) / IPv6(src=IPV6[0], dst=IPV6[2], hlim=255)
    for header in (EXTENSIONS | MANY_EXTENSIONS)[case]:
        frame /= header
    frame /= ICMPv6ND_NA(tgt=IPV6[1], S=1) / ICMPv6NDOptDstLLAddr(lladdr=A)
    assert switch.process(0, [bytes(frame)]) == []


# Rate limits: the core's own work.


def test_rate_limit(clock: Clock) -> None:
    """4 a second and 2 at once, ARP and ND apart, each port for itself, other traffic free."""
    switch = Switch.in_memory(3, policy="ratelimit=4:2", clock=clock)
    arp, nd, data = bytes(ASKS_IPV4), bytes(ASKS_IPV6), ethernet(GROUP, 0x02_00_00_00_00_01)
    assert switch.process(0, [arp, arp, arp, nd, nd, nd, *[data] * 9]) == [
        copy for frame in (arp, arp, nd, nd, *[data] * 9) for copy in flooded(0, frame)
    ]
    assert switch.process(1, [arp] * 3) == flooded(1, arp) * 2
    clock.now += 0.125
    assert switch.process(0, [arp, nd]) == []
    clock.now += 0.125
    assert switch.process(0, [arp, arp, nd, nd]) == flooded(0, arp) + flooded(0, nd)
    clock.now += 100
    assert len(switch.process(0, [arp] * 5)) == 4
    assert dropped(switch, "0") == {"rate_limited": 2 + 2 + 2 + 3}
    assert dropped(switch, "1") == {"rate_limited": 1}


def test_rate_limit_is_before_the_other_policies(clock: Clock) -> None:
    switch = make_switch("suppress,ratelimit=1:2", clock)
    before = counted(switch)
    clock.now += 10
    assert switch.process(0, [bytes(ASKS_IPV4)] * 5) == [(0, bytes(ANSWER_IPV4))] * 2
    assert since(switch, before) == {"answered": 2}
    assert dropped(switch, "0") == {"rate_limited": 3}


# Chains, own policies, other policies for some ports and from now on.


def test_guard_before_suppress_in_any_order() -> None:
    for text in "guard,suppress", "suppress,guard":
        switch = make_switch(text)
        assert switch.process(0, [bytes(SPOOFS["request"])]) == []
        assert switch.process(0, [bytes(ASKS_IPV4)]) == [(0, bytes(ANSWER_IPV4))]
        # A question for a known address, in a false name: an answer would go to the liar, so there is none.
        assert switch.process(0, [bytes(make.arp(1, A, IPV4[2], IPV4[1]))]) == []


class NoGossip(Policy):
    """As a user writes it."""

    wants = Wants(arp_group=Punt.TAKE)

    def decide(self, message: Message, neighbours: Neighbours) -> Verdict | None:
        return Drop("gossip") if message.kind is Kind.ARP_ANNOUNCEMENT else None


def test_own_policy_alone_and_in_a_chain() -> None:
    gossip = bytes(make.arp(1, A, IPV4[0], IPV4[0]))
    for policy in NoGossip(), NoGossip() | Suppress():
        switch = Switch.in_memory(3, policy=policy)
        switch.process(1, [bytes(make.arp(1, B, IPV4[1], IPV4[2]))])
        assert switch.process(0, [gossip]) == []
        question = bytes(ASKS_IPV4)
        answered = isinstance(policy, NoGossip)
        assert switch.process(0, [question]) == (flooded(0, question) if answered else [(0, bytes(ANSWER_IPV4))])
        assert counted(switch)["dropped:gossip"] == 1
        assert IPV4[1] in [str(n.ip) for n in switch.neighbours]


def test_one_port_has_its_own_policy() -> None:
    switch = make_switch("suppress")
    switch.set_policy("flood", "0")
    switch.set_policy("direct", 2)
    assert [str(switch.policy(port)) for port in (None, "0", "1", 2)] == ["suppress", "flood", "suppress", "direct"]
    assert switch.process(0, [bytes(ASKS_IPV4)]) == flooded(0, ASKS_IPV4)
    asks = bytes(make.arp(1, B, IPV4[1], IPV4[0]))
    assert switch.process(1, [asks]) == [(1, bytes(make.arp(2, A, IPV4[0], IPV4[1], to=B)))]
    asks = bytes(make.arp(1, C, IPV4[2], IPV4[0]))
    assert switch.process(2, [asks]) == [(0, asks)]


def test_the_policy_changes_while_frames_pass() -> None:
    switch = make_switch("suppress")
    switch.set_policy("guard", 1)
    question = bytes(ASKS_IPV4)
    for policy, copies in [
        ("flood", flooded(0, question)),
        ("direct", [(1, question)]),
        ("suppress", [(0, bytes(ANSWER_IPV4))]),
        ("ratelimit=0.001:1", flooded(0, question)),
        ("suppress", [(0, bytes(ANSWER_IPV4))]),  # and the limit is gone with its policy
    ]:
        switch.set_policy(policy)
        assert str(switch.policy(0)).startswith(policy.partition("=")[0])
        assert str(switch.policy(1)) == "guard"  # a port's own stays
        assert switch.process(0, [question]) == copies
    assert dropped(switch, "0") == {}


def test_no_policy() -> None:
    switch = Switch.in_memory(2)
    with pytest.raises(
        ConfigError, match=r"flood, suppress, direct, guard, guard=strict, guard=router, ratelimit=RATE"
    ):
        switch.set_policy("supress")
    with pytest.raises(ConfigError, match="not a policy"):
        switch.set_policy(object())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no port"):
        switch.set_policy("suppress", "eth7")
    assert str(switch.policy()) == "flood"


# Policies that fail.


class Faulty(Policy):
    """Does as it is told, and keeps what it was asked."""

    def __init__(self, verdict: object, fallback: str = "flood") -> None:
        self.verdict, self.fallback = verdict, fallback  # type: ignore[assignment]

    def decide(self, message: Message, neighbours: Neighbours) -> Verdict | None:
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict  # type: ignore[return-value]


@pytest.mark.parametrize("fallback", ["flood", "drop"])
def test_a_raising_policy(fallback: str, caplog: pytest.LogCaptureFixture) -> None:
    switch = Switch.in_memory(3, policy=Faulty(ZeroDivisionError("oh"), fallback) | Suppress())
    question = bytes(ASKS_IPV4)
    assert switch.process(0, [question] * 3) == (flooded(0, question) * 3 if fallback == "flood" else [])
    assert counted(switch) == {"failed": 3, "forwarded" if fallback == "flood" else "dropped:failed": 3}
    (record,) = caplog.records  # not one a frame
    assert record.levelno == logging.ERROR
    for part in "faulty", f"arp request from {IPV4[0]} at {A} about {IPV4[1]}":
        assert part in record.message
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)


WRONG: list[object] = ["flood", Drop]
WRONG_INSIDE: list[Any] = [
    Answer("text"),
    Answer(bytearray(60)),
    Answer(None),
    SendTo("1"),
    SendTo(-1),
    SendTo(1 << 40),
]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fallback", "verdict"),
    [
        *(("flood", verdict) for verdict in WRONG),
        *(("drop", verdict) for verdict in WRONG),
        *(("flood", verdict) for verdict in WRONG_INSIDE),
        *(("drop", verdict) for verdict in WRONG_INSIDE),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_wrong_verdict(verdict: object, fallback: str, caplog: pytest.LogCaptureFixture) -> None:
    switch = Switch.in_memory(3, policy=Faulty(verdict, fallback))
    question = bytes(ASKS_IPV4)
    assert switch.process(0, [question]) == (flooded(0, question) if fallback == "flood" else [])
    assert counted(switch)["failed"] == 1
    (record,) = caplog.records
    assert "faulty" in record.message
    assert IPV4[1] in record.message


def test_an_answer_to_a_port_that_is_not_there() -> None:
    switch = Switch.in_memory(3, policy=Faulty(SendTo(99)))
    assert switch.process(0, [bytes(ASKS_IPV4)]) == flooded(0, ASKS_IPV4)
    assert counted(switch) == {"failed": 1, "forwarded": 1}


@pytest.mark.parametrize("policy", ["suppress", "guard", "suppress,guard"])
def test_more_frames_than_the_queue_holds(policy: str) -> None:
    """All in one batch, so that nobody decides in between."""
    switch = make_switch(policy)
    before, missed = counted(switch), 100
    question = bytes(make.arp(1, A, IPV4[0], "10.0.0.9"))
    drops = "guard" in policy
    copies = switch.process(0, [question] * (QUEUE + missed))
    assert copies == flooded(0, question) * (QUEUE if drops else QUEUE + missed)
    assert since(switch, before)["forwarded"] == QUEUE
    assert dropped(switch, "0") == ({"punt_full": missed} if drops else {})
    assert switch.process(0, [bytes(ASKS_IPV4)]) == (
        flooded(0, ASKS_IPV4) if policy == "guard" else [(0, bytes(ANSWER_IPV4))]
    )


def test_frames_the_queue_had_no_room_for_are_counted() -> None:
    switch = make_switch("suppress")
    switch.process(0, [bytes(ASKS_IPV4)] * (QUEUE + 7))
    assert counted(switch)["missed"] == 7


def test_a_frame_too_long_to_be_handed_over_takes_the_fallback() -> None:
    for policy in "suppress", "guard":
        switch = make_switch(policy)
        frame = bytes(ASKS_IPV4).ljust(600, b"\0")
        assert switch.process(0, [frame]) == ([] if policy == "guard" else flooded(0, frame))


# What the switch itself sends.


class Sent:
    """Keeps what the switch is ordered to send."""

    def __init__(self, switch: Any) -> None:
        self.out, self.copies = switch._policing._out, []
        switch._policing._out = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self.out, name)

    def send(self, orders: Any) -> Copies:
        copies: Copies = self.out.send(orders)
        self.copies += copies
        return copies

    def take(self) -> Copies:
        copies, self.copies = self.copies, []
        return copies


@pytest.mark.parametrize("vids", [(), (5,)], ids=str)
def test_neighbours_are_asked_before_they_expire(clock: Clock, vids: tuple[int, ...]) -> None:
    switch = make_switch("suppress", clock, vids=vids)
    sent = Sent(switch)
    clock.now += 39
    switch.process(0, [tagged(make.arp(1, A, IPV4[0], IPV4[0]), *vids)])
    sent.take()
    switch.tick()
    assert sent.take() == []
    clock.now += 2
    switch.tick()
    asked = sent.take()
    # A's IPv4 address was just heard; the owners of all the others are asked, each on its own port.
    assert sorted(port for port, _ in asked) == [0, 1, 1, 2, 2]
    own = Ether(asked[0][1]).src
    question = Ether(src=own, dst=B) / ARP(op=1, hwsrc=own, psrc="0.0.0.0", pdst=IPV4[1])
    assert (1, tagged(question, *vids)) in asked
    before = switch.counters().ports["1"]
    assert switch.process(1, [tagged(make.arp(2, B, IPV4[1], "0.0.0.0", to=own), *vids)]) == []
    after = switch.counters().ports["1"]
    assert after.consumed - before.consumed == after.rx_frames - before.rx_frames == 1
    ages = {str(n.ip): n.age for n in switch.neighbours}
    assert (ages[IPV4[1]], ages[IPV4[2]]) == (0, 41)
    clock.now += 20  # B is still known; C has never answered and is asked for as at the beginning
    switch.tick()
    assert switch.process(0, [tagged(ASKS_IPV4, *vids)]) == [(0, tagged(ANSWER_IPV4, *vids))]
    lost = tagged(make.arp(1, A, IPV4[0], IPV4[2]), *vids)
    assert switch.process(0, [lost]) == flooded(0, lost)


def test_who_is_asked_by_nd_finds_the_way_back(clock: Clock) -> None:
    """A kernel that has no neighbour entry for the switch's own address asks for it before it answers."""
    switch = make_switch("suppress", clock)
    sent = Sent(switch)
    clock.now += 41
    switch.tick()
    (question,) = [Ether(frame) for port, frame in sent.take() if port == 1 and Ether(frame).type == 0x86DD]
    assert (question.dst, question[IPv6].dst) == (B, IPV6[1])
    own, own_ip = question.src, question[IPv6].src
    group = f"33:33:ff:{own[9:]}"
    solicitation = make.ns(B, IPV6[1], "fd00::9")
    solicitation.dst, solicitation[IPv6].dst = group, f"ff02::1:ff{own[9:11]}:{own[12:14]}{own[15:]}"
    solicitation["ICMPv6ND_NS"].tgt = own_ip
    answer = make.na(own, own_ip, to=B, to_ip=IPV6[1], s=1)
    assert switch.process(1, [bytes(solicitation)]) == [(1, bytes(answer))]
    assert switch.process(1, [bytes(make.na(B, IPV6[1], to=own, to_ip=own_ip, s=1))]) == []
    assert {str(n.ip): n.age for n in switch.neighbours}[IPV6[1]] == 0


def test_answers_to_the_switch_are_guarded_as_all_are(clock: Clock) -> None:
    switch = make_switch("guard", clock)
    sent = Sent(switch)
    clock.now += 41
    switch.tick()
    own = Ether(sent.take()[0][1]).src
    before = counted(switch)
    assert switch.process(0, [bytes(make.arp(2, A, IPV4[1], "0.0.0.0", to=own))]) == []
    assert since(switch, before) == {"dropped:spoofed": 1}
    assert {str(n.ip): n.port for n in switch.neighbours}[IPV4[1]] == "1"


def test_answers_to_the_switch_are_rate_limited_as_all_are(clock: Clock) -> None:
    """Its address is no secret to who was asked from it."""
    switch = make_switch("suppress,ratelimit=1:2", clock)
    sent = Sent(switch)
    clock.now += 41
    switch.tick()
    own = Ether(sent.take()[0][1]).src
    switch.process(0, [bytes(make.arp(2, A, IPV4[0], "0.0.0.0", to=own))] * 5)
    assert dropped(switch, "0") == {"rate_limited": 3}


def test_nobody_is_asked_on_a_port_whose_policy_needs_no_neighbours(clock: Clock) -> None:
    switch = make_switch("suppress", clock)
    switch.set_policy("flood", 1)
    sent = Sent(switch)
    clock.now += 41
    switch.tick()
    assert sorted(port for port, _ in sent.take()) == [0, 0, 2, 2]


@pytest.mark.parametrize("vids", [(), (5,)], ids=str)
def test_announce(vids: tuple[int, ...]) -> None:
    switch = make_switch("suppress", vids=vids)
    sent = Sent(switch)
    assert switch.announce("1") == 2
    garp, advertisement = make.arp(1, B, IPV4[1], IPV4[1]), make.na(B, IPV6[1])
    expected = [copy for frame in (garp, advertisement) for copy in flooded(1, tagged(frame, *vids))]
    assert sorted(sent.take()) == sorted(expected)
    assert switch.announce() == 6
    assert len(sent.take()) == 12
    with pytest.raises(ConfigError, match="no port"):
        switch.announce("eth7")


def test_storm_control_goes_by_the_switchs_clock(clock: Clock) -> None:
    """Also for frames that come back from a policy."""
    switch = make_switch("suppress", clock)
    switch.set_storm_control(StormControl(broadcast=100))
    clock.now += 100
    data, unknown = ethernet(GROUP, 0x02_00_00_00_00_01), bytes(make.arp(1, A, IPV4[0], "10.0.0.9"))
    assert switch.process(0, [data]) == flooded(0, data)
    assert switch.process(0, [unknown]) == flooded(0, unknown)


def test_isolated_ports_exchange_no_questions_either() -> None:
    switch = make_switch("direct")
    for port in 0, 1:
        switch.set_flags(port, isolated=True)
    assert switch.process(0, [bytes(ASKS_IPV4)]) == []
    to_c = bytes(make.arp(1, A, IPV4[0], IPV4[2]))
    assert switch.process(0, [to_c]) == [(2, to_c)]


# Source guard: data frames, by the same bindings, in the core.


def data(mac: str, ip: str, to: str = "10.0.0.99", vids: tuple[int, ...] = ()) -> bytes:
    layer = IPv6(src=ip, dst="fd00::99") if ":" in ip else IP(src=ip, dst=to)
    return tagged(Ether(src=mac, dst="02:00:00:00:00:99") / layer / UDP() / b"fastbridge", *vids)


def guarded(strict: bool) -> Any:
    switch = Switch.in_memory(3, policy="guard=strict" if strict else "guard")
    for port, (mac, *ips) in enumerate(zip(MACS, IPV4, IPV6, strict=True)):
        switch.trust(port, [(MacAddress(mac), ip_address(ip)) for ip in ips])
    return switch


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("port", "frame", "passes"),
    [
        (0, data(A, IPV4[0]), "always"),
        (0, data(A, IPV6[0]), "always"),
        (0, data(A, IPV4[1]), "never"),
        (0, data(A, IPV6[1]), "never"),
        (0, data(B, IPV4[1]), "never"),  # the owner's MAC, too, but from another port
        (1, data(A, IPV4[1]), "never"),  # the owner's port, but another MAC
        (1, data(A, IPV6[1]), "never"),
        (0, data(A, "10.0.0.77"), "not strict"),
        (0, data(A, "fd00::77"), "not strict"),
        (0, data(A, IPV4[0], vids=(5,)), "not strict"),  # bound in another VLAN only
        (0, data(A, IPV4[0], vids=(0,)), "always"),
        (0, data(A, IPV4[1], vids=(0,)), "never"),
        (0, data(A, "0.0.0.0", "255.255.255.255"), "always"),  # DHCP
        (0, data(A, "::"), "always"),
        (0, ethernet(GROUP, 0x02_00_00_00_00_01), "always"),
    ],
)
def test_source_guard(strict: bool, port: int, frame: bytes, passes: str) -> None:
    switch = guarded(strict)
    if passes == "always" or (passes == "not strict" and not strict):
        assert switch.process(port, [frame]) == flooded(port, frame)
        assert dropped(switch, str(port)) == {}
    else:
        assert switch.process(port, [frame]) == []
        assert dropped(switch, str(port)) == {"source_guard": 1}
        assert len(switch.fdb) == 0  # and nobody is learned from it


def test_source_guard_is_for_guarded_ports() -> None:
    switch = guarded(strict=False)
    switch.set_policy("suppress", 0)
    assert len(switch.process(0, [data(A, IPV4[1])])) == 2
    assert switch.process(2, [data(C, IPV4[1])]) == []
    switch.set_policy("flood")
    assert len(switch.process(2, [data(C, IPV4[1])])) == 2


def test_source_guard_learns_what_guard_learns() -> None:
    """The core has a new binding a little later: what was learned in the last tenth of a second goes together."""
    switch = make_switch("guard")
    time.sleep(0.15)
    switch.process(0, [])
    assert len(switch.process(1, [data(B, IPV4[1])])) == 2
    assert switch.process(0, [data(A, IPV4[1]), data(A, IPV6[1])]) == []
    assert dropped(switch, "0") == {"source_guard": 2}


def test_many_bindings() -> None:
    switch = Switch.in_memory(3, policy="guard=strict")
    owners = [(MacAddress(0x02_00_00_01_00_00 + n), ip_address(f"10.1.{n >> 8}.{n & 255}")) for n in range(1, 2000)]
    switch.trust(1, owners)
    frames = [data(str(mac), str(ip)) for mac, ip in random.Random(1).sample(owners, 50)]
    assert len(switch.process(1, frames)) == 100
    assert switch.process(0, frames) == []


# Accounting.


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "policy", ["flood", "suppress", "direct", "guard", "guard=strict,suppress", "suppress,guard,ratelimit=9"]
)
def test_every_frame_handed_over_has_its_fate(policy: str, seed: int, clock: Clock) -> None:
    rng = random.Random(seed)
    switch = make_switch(policy, clock)
    pool = [bytes(frame) for frame in (*SPOOFS.values(), *MALFORMED.values(), *(frame for frame, _ in USUAL.values()))]
    pool += [tagged(frame, 5) for frame in (ASKS_IPV4, ASKS_IPV6, *SPOOFS.values())] + [
        bytes(ASKS_IPV4),
        bytes(ASKS_IPV6),
    ]
    for _ in range(30):
        clock.now += rng.choice([0, 0.1, 1, 30])
        switch.process(rng.randrange(3), rng.choices(pool, k=rng.randrange(40)))
        if rng.random() < 0.3:
            switch.tick()
    assert (check_policy_fates(switch.counters()) > 0) == (policy != "flood")


# Policies that end their thread, answers that cannot be sent, and storms: each costs itself only.


class Ending(Policy):
    """Ends its thread, in one of the ways there are."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def decide(self, message: Message, neighbours: Neighbours) -> Verdict | None:
        raise self.error


@pytest.fixture
def punted() -> Iterator[tuple[Any, Any]]:
    """A switch in memory with the policies' thread of a live one, and what hands it a question of pod A."""
    switch = make_switch("suppress")
    policing = switch._policing
    policing.start()
    question = bytes(ASKS_IPV4)
    yield switch, lambda: switch._memory.process(0, [question], 0)
    policing.stop()


@pytest.mark.parametrize("error", [SystemExit("bye"), KeyboardInterrupt(), GeneratorExit()], ids=repr)
def test_a_policy_that_ends_its_thread_is_a_failed_decision(error: BaseException, punted: tuple[Any, Any]) -> None:
    switch, ask = punted
    switch.set_policy(Ending(error))
    for n in range(1, 4):
        ask()
        eventually(lambda n=n: counted(switch).get("failed") == n)
    switch.set_policy("suppress")
    before = counted(switch).get("answered", 0)
    ask()
    eventually(lambda: counted(switch).get("answered", 0) == before + 1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_has_ended_is_followed_by_another(
    punted: tuple[Any, Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch, ask = punted
    policing = switch._policing
    with monkeypatch.context() as patched:
        patched.setattr(policing, "_complain", lambda *_, **__: sys.exit())  # past all that catches it
        patched.setattr(policing, "handle", lambda punts: sys.exit())
        ask()
        eventually(lambda: not policing._thread.is_alive())
    policing.watch()
    eventually(lambda: "has ended" in caplog.text)
    before = counted(switch).get("answered", 0)
    eventually(lambda: ask() is not None and counted(switch).get("answered", 0) > before)


def test_ctrl_c_is_for_who_calls_process() -> None:
    switch = Switch.in_memory(2, policy=Ending(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        switch.process(0, [bytes(ASKS_IPV4)])


class Lying(bytes):
    def __len__(self) -> int:
        return 60


class Nameless(Policy):
    def __str__(self) -> str:
        raise ValueError("no name")

    def decide(self, message: Message, neighbours: Neighbours) -> Verdict | None:
        raise ZeroDivisionError


class Odd(Policy):
    """A bad answer to A, none to others."""

    def __init__(self, verdict: Any) -> None:
        self.verdict = verdict

    def decide(self, message: Message, neighbours: Neighbours) -> Verdict | None:
        return self.verdict if message.sender_ip == ip_address(IPV4[0]).packed else None  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "policy",
    [
        *(Odd(Answer(frame)) for frame in (bytes(1 << 20), b"", bytes(13), Lying(1 << 20))),
        Odd(SendTo([])),  # type: ignore[arg-type]
        Odd(Drop(5)),  # type: ignore[arg-type]
        Nameless(),
    ],
    ids=lambda policy: type(policy).__name__,
)
def test_a_bad_answer_costs_itself_only(policy: Policy, caplog: pytest.LogCaptureFixture) -> None:
    switch = Switch.in_memory(3, policy=policy)
    good = bytes(make.arp(1, B, IPV4[1], "10.0.0.9"))
    bad = bytes(ASKS_IPV4)
    assert switch.process(0, [good, bad, good]) == flooded(0, good) + flooded(0, bad) + flooded(0, good)
    failed = 3 if isinstance(policy, Nameless) else 1
    assert counted(switch) == {"failed": failed, "forwarded": 3}
    assert all(len(record.getMessage()) < 500 for record in caplog.records)


@pytest.mark.parametrize("storming", few(2, [4, 100, 300]))
def test_ports_that_storm_leave_room_for_another(storming: int) -> None:
    switch = Switch.in_memory(storming + 1, policy="guard")
    memory = switch._memory
    storm = bytes(make.arp(1, A, "0.0.0.0", "10.0.0.9"))
    for _ in range(8):
        for port in range(storming):
            memory.process(port, [storm] * 256, 0)
    memory.process(storming, [bytes(ASKS_IPV4)], 0)
    tallies = [switch.counters().ports[str(port)] for port in range(storming + 1)]
    assert all(tally.dropped["punt_full"] > 0 for tally in tallies[:-1])
    assert tallies[-1].dropped["punt_full"] == 0
    assert all(tally.consumed > 0 for tally in tallies)


def test_a_frame_too_long_to_be_handed_over_has_a_name_of_its_own() -> None:
    frame = bytes(ASKS_IPV4).ljust(600, b"\0")
    for policy, reasons in ("guard", {"punt_too_long": 1}), ("suppress", {}):
        switch = make_switch(policy)
        switch.process(0, [frame])
        assert dropped(switch, "0") == reasons
        assert (counted(switch)["too_long"], counted(switch).get("missed", 0)) == (1, 0)
