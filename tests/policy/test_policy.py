"""What each policy says about each kind of message, alone and combined."""

from __future__ import annotations

import arp_nd_frames as make
import pytest
from arp_nd_frames import IPV4, IPV6, A, B, C, tagged
from clock import Clock
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, ICMPv6NDOptUnknown, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from fastbridge import ConfigError
from fastbridge.arp_nd import Kind, Message, read
from fastbridge.policy.base import (
    EVERYTHING,
    NOTHING,
    SNOOP,
    Answer,
    Chain,
    Drop,
    Forward,
    Policy,
    Punt,
    SendTo,
    Verdict,
    Wants,
)
from fastbridge.policy.builtin import Direct, Flood, Guard, RateLimit, Suppress, parse_policy
from fastbridge.policy.neighbours import Neighbours


@pytest.fixture
def table(clock: Clock) -> Neighbours:
    """B is behind port 1, by IPv4 and, as a host that said so, by IPv6."""
    table = Neighbours(clock=clock)
    for frame in (make.arp(1, B, IPV4[1], IPV4[2]), make.na(B, IPV6[1])):
        table.observe(read(1, bytes(frame)))
    return table


def message(frame: Packet | bytes, port: int = 0) -> Message:
    return read(port, bytes(frame))


ASKS_IPV4 = make.arp(1, A, IPV4[0], IPV4[1])
ASKS_IPV6 = make.ns(A, IPV6[0], IPV6[1])
NO_QUESTIONS = {
    "probe": make.arp(1, A, "0.0.0.0", IPV4[1]),
    "announcement": make.arp(1, A, IPV4[1], IPV4[1]),
    "gratuitous reply": make.arp(2, A, IPV4[1], IPV4[1]),
    "reply": make.arp(2, A, IPV4[0], IPV4[1], to=B),
    "broadcast reply": make.arp(2, A, IPV4[0], IPV4[1]),
    "unicast request": make.arp(1, A, IPV4[0], IPV4[1], to=B),
    "unicast solicitation": make.ns(A, IPV6[0], IPV6[1], unicast_to=B),
    "detection": make.dad(A, IPV6[1]),
    "advertisement": make.na(A, IPV6[0], to=B, to_ip=IPV6[1], s=1),
    "unsolicited": make.na(A, IPV6[1]),
    "malformed": bytes(ASKS_IPV4)[:30],
    "data": Ether(src=A, dst="ff:ff:ff:ff:ff:ff", type=0x88B5) / b"data",
}


@pytest.mark.parametrize("policy", [Suppress(), Direct(), Flood(), RateLimit(50)], ids=str)
@pytest.mark.parametrize("case", NO_QUESTIONS)
def test_only_questions_to_all_are_taken_from_the_bridge(policy: Policy, case: str, table: Neighbours) -> None:
    assert policy.decide(message(NO_QUESTIONS[case]), table) is None


@pytest.mark.parametrize("vids", [(), (5,), (7, 5)])
def test_suppress_answers_arp(vids: tuple[int, ...], clock: Clock) -> None:
    table = Neighbours(clock=clock)
    table.observe(message(tagged(make.arp(1, B, IPV4[1], IPV4[2]), *vids), 1))
    verdict = Suppress().decide(message(tagged(ASKS_IPV4, *vids)), table)
    assert isinstance(verdict, Answer)
    answer = Ether(verdict.frame)
    assert (answer.src, answer.dst) == (B, A)
    assert (answer[ARP].op, answer[ARP].hwsrc, answer[ARP].psrc) == (2, B, IPV4[1])
    assert (answer[ARP].hwdst, answer[ARP].pdst) == (A, IPV4[0])
    assert message(verdict.frame).tags == message(tagged(ASKS_IPV4, *vids)).tags
    for other in [(), (5,), (6,), (7,), (7, 6)]:
        if other != vids:  # the same IP in another VLAN is another neighbour
            assert Suppress().decide(message(tagged(ASKS_IPV4, *other)), table) is None


@pytest.mark.parametrize(("router", "override"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_suppress_answers_nd_with_the_owners_flags(router: int, override: int, table: Neighbours) -> None:
    table.observe(message(make.na(B, IPV6[1], r=router, o=override), 1))
    verdict = Suppress().decide(message(ASKS_IPV6), table)
    assert isinstance(verdict, Answer)
    answer = Ether(verdict.frame)
    na = answer[ICMPv6ND_NA]
    assert (answer.src, answer.dst, answer[IPv6].src, answer[IPv6].dst) == (B, A, IPV6[1], IPV6[0])
    assert (na.tgt, na.R, na.S, na.O) == (IPV6[1], router, 1, override)
    assert answer[ICMPv6NDOptDstLLAddr].lladdr == B


def test_suppress_lets_the_owner_answer_what_it_cannot(table: Neighbours) -> None:
    nonce = ASKS_IPV6 / ICMPv6NDOptUnknown(type=14, len=1, data=b"123456")
    assert Suppress().decide(message(nonce), table) == SendTo(1)
    table.observe(message(make.ns(C, IPV6[2], IPV6[0]), 2))  # whether it is a router it has not said
    asks = message(make.ns(A, IPV6[0], IPV6[2]))
    assert Suppress().decide(asks, table) == SendTo(2)
    table.observe(message(make.na(C, IPV6[2], to=A, to_ip=IPV6[0], s=1), 2))
    assert isinstance(Suppress().decide(asks, table), Answer)


@pytest.mark.parametrize("policy", [Suppress(), Direct()], ids=str)
@pytest.mark.parametrize("asks", [ASKS_IPV4, ASKS_IPV6])
def test_floods_the_unknown(policy: Policy, asks: Packet, table: Neighbours, clock: Clock) -> None:
    assert policy.decide(message(asks, 1), table) is None  # the owner is on the asker's own side
    assert policy.decide(message(asks), Neighbours()) is None
    clock.now += 60
    assert policy.decide(message(asks), table) is None  # it fell silent


@pytest.mark.parametrize("asks", [ASKS_IPV4, ASKS_IPV6])
def test_direct_sends_to_the_owner_alone(asks: Packet, table: Neighbours) -> None:
    assert Direct().decide(message(asks), table) == SendTo(1)


def test_suppress_follows_an_announcement(table: Neighbours) -> None:
    moved = message(make.arp(1, C, IPV4[1], IPV4[1]), 2)
    assert Suppress().decide(moved, table) is None  # so all hear it
    table.observe(moved)
    verdict = Suppress().decide(message(ASKS_IPV4), table)
    assert isinstance(verdict, Answer)
    assert Ether(verdict.frame)[ARP].hwsrc == C


FORGED = {
    "reply": make.arp(2, A, IPV4[1], IPV4[0], to=C),
    "request": make.arp(1, A, IPV4[1], IPV4[0]),
    "announcement": make.arp(1, A, IPV4[1], IPV4[1]),
    "gratuitous reply": make.arp(2, A, IPV4[1], IPV4[1]),
    "solicitation": make.ns(A, IPV6[1], IPV6[0]),
    "unicast solicitation": make.ns(A, IPV6[1], IPV6[0], unicast_to=C),
    "advertisement": make.na(A, IPV6[1], to=C, to_ip=IPV6[0], s=1),
    "unsolicited": make.na(A, IPV6[1]),
    "no override": make.na(A, IPV6[1], o=0),
    "without address": Ether(src=A, dst=C) / IPv6(src=IPV6[1], dst=IPV6[0], hlim=255) / ICMPv6ND_NA(tgt=IPV6[1]),
    "not its own IP": Ether(src=A, dst=C) / IPv6(src=IPV6[0], dst=IPV6[2], hlim=255) / ICMPv6ND_NA(tgt=IPV6[1]),
    "owner's MAC": make.arp(1, B, IPV4[1], IPV4[0]),  # on another port
}
L2_MISMATCH = {
    "reply": make.arp(2, B, IPV4[1], IPV4[0], to=C, source=A),
    "probe": make.arp(1, B, "0.0.0.0", IPV4[0], source=A),
    "solicitation": Ether(src=A, dst=ASKS_IPV6.dst) / make.ns(B, IPV6[1], IPV6[0]).payload,
    "advertisement": Ether(src=A, dst=C) / make.na(B, IPV6[1]).payload,
}


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("case", FORGED)
def test_guard_drops_forged_claims(case: str, strict: bool, table: Neighbours) -> None:
    assert Guard(strict).decide(message(FORGED[case]), table) == Drop("spoofed")


@pytest.mark.parametrize("case", L2_MISMATCH)
def test_guard_drops_what_contradicts_its_own_frame(case: str, table: Neighbours) -> None:
    assert Guard().decide(message(L2_MISMATCH[case]), table) == Drop("l2_mismatch")


def test_guard_drops_malformed(table: Neighbours) -> None:
    assert Guard().decide(message(bytes(ASKS_IPV4)[:30]), table) == Drop("malformed")


@pytest.mark.parametrize("frame", [ASKS_IPV4, ASKS_IPV6, make.na(A, IPV6[0]), make.arp(2, A, IPV4[0], IPV4[2])])
def test_strict_guard_wants_bindings(frame: Packet, table: Neighbours) -> None:
    assert Guard().decide(message(frame), table) is None
    assert Guard(strict=True).decide(message(frame), table) == Drop("unbound")
    for ip in (IPV4[0], IPV6[0]):
        table.add(ip, A, 0)
    assert Guard(strict=True).decide(message(frame), table) is None


@pytest.mark.parametrize("strict", [False, True])
def test_guard_passes_the_honest(strict: bool, table: Neighbours) -> None:
    guard = Guard(strict)
    for frame in (make.arp(1, B, IPV4[1], IPV4[0]), make.na(B, IPV6[1]), make.ns(B, IPV6[1], IPV6[0])):
        assert guard.decide(message(frame, 1), table) is None
    for case in ("probe", "detection", "data"):  # claims nothing, even about an address in use
        assert guard.decide(message(NO_QUESTIONS[case]), table) is None


def test_guard_frees_an_address_its_owner_left(table: Neighbours, clock: Clock) -> None:
    clock.now += 60
    assert Guard().decide(message(FORGED["announcement"]), table) is None


def test_guard_is_asked_before_suppress_wherever_it_is_written(table: Neighbours) -> None:
    forged_question = message(make.arp(1, C, IPV4[2], IPV4[1], source=A))
    for policy in (Guard() | Suppress(), Suppress() | Guard(), parse_policy("suppress,guard")):
        assert policy.decide(forged_question, table) == Drop("l2_mismatch")
        assert isinstance(policy.decide(message(ASKS_IPV4), table), Answer)
        assert str(policy) == "guard,suppress"


class Says(Policy):
    """A user's policy."""

    def __init__(self, verdict: Verdict | None, wants: Wants = SNOOP) -> None:
        self.verdict, self.wants = verdict, wants

    def decide(self, message: Message, neighbours: Neighbours) -> Verdict | None:
        return self.verdict


def test_the_first_opinion_wins(table: Neighbours) -> None:
    asks = message(ASKS_IPV4)
    assert (Says(None) | Says(Forward()) | Says(Drop("late"))).decide(asks, table) == Forward()
    assert (Says(None) | Suppress() | Says(Drop("late"))).decide(asks, table) == Suppress().decide(asks, table)
    assert (Says(None) | Flood() | Says(None)).decide(asks, table) is None


def test_a_policy_that_raises_is_heard_of(table: Neighbours) -> None:
    class Broken(Policy):
        def decide(self, message: Message, neighbours: Neighbours) -> Verdict | None:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        (Broken() | Suppress()).decide(message(ASKS_IPV4), table)


def test_chains() -> None:
    guard, limit, suppress = Guard(), RateLimit(50), Suppress()
    for chain in (guard | limit | suppress, guard | (limit | suppress), Chain(Chain(guard, limit), suppress)):
        assert chain.parts == (guard, limit, suppress)
        assert chain.fallback == "drop"
        assert chain.wants == EVERYTHING
    assert guard.parts == (guard,)
    assert (limit | suppress).fallback == "flood"
    assert (limit | suppress).wants == SNOOP
    copies = Says(None, Wants(nd_unicast=Punt.TAKE, arp_group=Punt.COPY))
    assert (Flood() | copies).wants == copies.wants
    assert (suppress | copies).wants == Wants(Punt.TAKE, Punt.COPY, Punt.TAKE, Punt.TAKE)


def test_what_each_wants() -> None:
    assert [p.wants for p in (Flood(), RateLimit(1), Suppress(), Direct(), Guard())] == [
        NOTHING,
        NOTHING,
        SNOOP,
        SNOOP,
        EVERYTHING,
    ]
    assert [p.fallback for p in (Flood(), RateLimit(1), Suppress(), Direct(), Guard())] == ["flood"] * 4 + ["drop"]
    assert max(Punt.NONE, Punt.TAKE, Punt.COPY) is Punt.TAKE


def test_rate_limit() -> None:
    assert (RateLimit(50).rate, RateLimit(50).burst) == (50, 50)
    assert (RateLimit(0.5).rate, RateLimit(0.5).burst) == (0.5, 1)
    assert (RateLimit(50, 7).rate, RateLimit(50, burst=7).burst) == (50, 7)
    for rate in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="frames a second"):
            RateLimit(rate)
    for burst in (0, -1):
        with pytest.raises(ConfigError, match="burst"):
            RateLimit(1, burst)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("flood", [Flood]),
        ("Suppress", [Suppress]),
        (" direct , guard", [Guard, Direct]),
        ("suppress,guard,ratelimit=50", [Guard, Suppress, RateLimit]),
        ("ratelimit=0.5:3,guard=strict", [Guard, RateLimit]),
    ],
)
def test_parse(text: str, parts: list[type[Policy]]) -> None:
    policy = parse_policy(text)
    assert [type(part) for part in policy.parts] == parts
    assert str(parse_policy(str(policy))) == str(policy)


def test_parse_values() -> None:
    guard, limit = parse_policy("guard=strict,ratelimit=0.5:3").parts
    assert isinstance(guard, Guard)
    assert isinstance(limit, RateLimit)
    assert (guard.strict, limit.rate, limit.burst) == (True, 0.5, 3)
    assert str(guard | limit) == "guard=strict,ratelimit=0.5:3"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "supress",
        "guard,",
        "guard;suppress",
        "suppress=1",
        "guard=lax",
        "ratelimit",
        "ratelimit=fast",
        "ratelimit=1:x",
    ],
)
def test_nonsense_gives_the_valid_names(text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"flood, suppress, direct, guard, guard=strict, guard=router, ratelimit=RATE"
    ) as error:
        parse_policy(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("guard,guard=strict", "guard is named twice"), ("ratelimit=0", "0.001 … 1e9"), ("ratelimit=5:0", "burst")],
)
def test_wrong_values(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        parse_policy(text)


def test_own_policy_in_ten_lines(table: Neighbours) -> None:
    class NoGossip(Policy):
        wants = Wants(arp_group=Punt.TAKE)

        def decide(self, message: Message, neighbours: Neighbours) -> Verdict | None:
            return Drop("gossip") if message.kind is Kind.ARP_ANNOUNCEMENT else None

    policy = NoGossip() | Suppress()
    assert str(policy) == "nogossip,suppress"
    assert policy.decide(message(NO_QUESTIONS["announcement"]), table) == Drop("gossip")
    assert isinstance(policy.decide(message(ASKS_IPV4), table), Answer)
