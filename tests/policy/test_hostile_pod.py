"""A hostile pod, in memory: each attack under each policy, and each time the same questions about the victim.

Does it still get through, both ways, during the attack and after it? Does the hostile pod hear nothing that is meant
for the victim? Policies without guard cannot stop these attacks; that is stated, too, so that no attack is a sham.
"""

from __future__ import annotations

import itertools

import arp_nd_frames as make
import pytest
from arp_nd_frames import IPV4, IPV6, A, B, C
from attacks import HOSTILE, PEER, VICTIM, attack_frames, attacks, claims
from effort import few
from hostile import Net, SimulatedPod, vlan

BROADCAST = "ff:ff:ff:ff:ff:ff"
POLICIES = [
    ",".join(filter(None, parts))
    for parts in itertools.product(["guard", "guard=strict"], ["", "ratelimit=50"], ["", "suppress", "direct"])
]
STACKS = few(2, [(), (100, 7), (0,), (5,)])
FAMILIES = pytest.mark.parametrize("family", [4, 6])


def net(policy: str, family: int, vids: tuple[int, ...] = ()) -> Net:
    ips = IPV4 if family == 4 else IPV6
    pods = [SimulatedPod(mac, ip, vids) for mac, ip in zip((A, B, C), ips, strict=True)]
    return Net(policy, pods, static="strict" in policy)


ATTACKS = pytest.mark.parametrize("attack", attacks(4))


@ATTACKS
@pytest.mark.parametrize("vids", STACKS, ids=str)
@FAMILIES
@pytest.mark.parametrize("policy", few(3, POLICIES))
def test_the_victim_gets_through_and_is_heard_by_nobody_else(
    policy: str, family: int, vids: tuple[int, ...], attack: str
) -> None:
    around = net(policy, family, vids)
    assert around.reaches(PEER, VICTIM)
    assert around.reaches(VICTIM, PEER)
    frames = attack_frames(family, attack, vids)
    for _ in range(2):
        for frame in frames:
            around.send(HOSTILE, frame)
            assert around.reaches(PEER, VICTIM), frame
            assert around.reaches(VICTIM, PEER), frame
        around.pass_time()  # the owner is asked meanwhile, and answers
        around.pods[PEER].believes.clear()  # and the peer asks anew
    around.pass_time(30)
    assert around.reaches(PEER, VICTIM)
    assert around.reaches(VICTIM, PEER)
    assert around.overheard(HOSTILE) == []
    entry = around.switch.fdb.lookup(A, vlan=vids[0] if vids else 0)
    assert entry is not None
    assert entry.port == str(VICTIM)
    here = [
        str(n.mac) for n in around.switch.neighbours if str(n.ip) == around.pods[VICTIM].ip and n.vlan == vlan(vids)
    ]
    assert here == [A]


@ATTACKS
@FAMILIES
def test_the_hostile_pods_own_traffic_is_not_the_victims_loss(family: int, attack: str) -> None:
    """A hostile pod on a port that routes may send from any address, but takes no MAC and no claim over."""
    around = net("guard", family)
    around.switch.set_policy("guard=router", HOSTILE)
    assert around.reaches(PEER, VICTIM)
    for packet in attacks(family)[attack]:
        around.send(HOSTILE, bytes(packet))
        assert around.reaches(PEER, VICTIM)
        assert around.reaches(VICTIM, PEER)
    around.pass_time()
    around.pods[PEER].believes.clear()
    assert around.reaches(PEER, VICTIM)
    assert around.overheard(HOSTILE) == []


@FAMILIES
@pytest.mark.parametrize("policy", ["flood", "suppress", "direct", "ratelimit=50", "ratelimit=50,suppress"])
def test_what_policies_without_guard_cannot_stop(policy: str, family: int) -> None:
    """The MAC is taken over, as on any learning switch: the attacks above are real."""
    around = net(policy, family)
    assert around.reaches(PEER, VICTIM)
    free = "10.0.0.200" if family == 4 else "fd00::c8"
    for packet in claims(A, free):
        around.send(HOSTILE, bytes(packet))
    assert not around.reaches(PEER, VICTIM)
    assert len(around.overheard(HOSTILE)) == 1


@FAMILIES
def test_an_owner_whose_answers_are_lost_keeps_what_it_has(family: int) -> None:
    """Others make it answer more than its rate limit lets through, so that none of its answers is heard."""
    around = net("guard,ratelimit=4:2", family)
    victim = around.pods[VICTIM]
    lie = bytes(claims(C, victim.ip)[0])
    answers_to_others = [victim.announcement()] * 20
    victim.answers = False
    around.switch.process(HOSTILE, [lie])
    for _ in range(60):  # 15 s, in which its bucket is always empty
        around.switch.process(VICTIM, answers_to_others[:2])
        around.clock.now += 0.25
        around.switch.process(VICTIM, answers_to_others)
        around.deliver(around.switch.tick())
    assert [n.port for n in around.switch.neighbours if str(n.ip) == victim.ip] == [str(VICTIM)]


def test_claims_make_nobody_busy() -> None:
    """A claim a millisecond: the owner is asked about once a second, not once a claim."""
    around = net("guard", 4)
    before = len(around.pods[VICTIM].heard)
    for _ in range(40):
        around.send(HOSTILE, *[bytes(claims(C, IPV4[0])[0])] * 250)
        around.pass_time(0.25)
    assert 5 <= len(around.pods[VICTIM].heard) - before <= 20


def test_a_port_raises_few_doubts_at_the_same_time() -> None:
    around = net("guard", 4)
    for n in range(100):
        ip = f"10.0.1.{n}"
        around.send(VICTIM, bytes(make.arp(1, A, ip, ip)))
    around.pods[VICTIM].answers = False
    around.send(HOSTILE, *[bytes(make.arp(1, C, f"10.0.1.{n}", f"10.0.1.{n}")) for n in range(100)])
    asked = around.switch.tick()
    assert len(asked) == 16
    assert {port for port, _ in asked} == {VICTIM}
