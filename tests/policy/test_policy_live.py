"""Policies between real kernels: who hears whose questions, who believes whom, what a loop does."""

from __future__ import annotations

import contextlib
import itertools
import logging
import shutil
import struct
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import arp_nd_frames as make
import pytest
from accounts import check_fates
from arp_nd_frames import tagged
from effort import few
from frames import GROUP, ethernet
from gso import NEEDS_CSUM, checksum
from live import PATIENCE, VnetHeader, Wire, eventually, seen, wires
from pyroute2 import IPRoute
from scapy.packet import Packet

from fastbridge import Drop, Kind, Lab, MacAddress, Message, Neighbours, Policy, Switch, Verdict
from fastbridge.arp_nd import read
from fastbridge.lab.links import Links
from fastbridge.lab.pods import Pod, Port

pytestmark = pytest.mark.live

DAD_FAILED, TENTATIVE = 0x08, 0x40  # IFA_F_DADFAILED, IFA_F_TENTATIVE
FAMILIES = pytest.mark.parametrize("family", [4, 6])
X = 0x02_00_00_00_FF_01
numbers = itertools.count(1)


@contextlib.contextmanager
def policed(pods: int, policy: Policy | str, **options: Any) -> Iterator[tuple[Lab, Switch]]:
    """A lab with a switch running; at the end every frame received has its fate."""
    with Lab(pods) as lab, Switch(lab.ports, policy=policy, **options) as switch:
        yield lab, switch
        check_fates(switch.counters())


def drain(wire: Wire) -> None:
    """Make room in a socket that may have run full."""
    wire.socket.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            wire.receive()
    wire.socket.settimeout(PATIENCE)


def address(pod: Pod, family: int) -> IPv4Address | IPv6Address:
    interface = pod.ipv4 if family == 4 else pod.ipv6
    assert interface is not None
    return interface.ip


def text(mac: int) -> str:
    return str(MacAddress(mac))


def knows(switch: Switch, ip: object) -> bool:
    return str(ip) in [str(n.ip) for n in switch.neighbours]


def policy_mark(wire: Wire) -> bytes:
    """Send a probe for an address that is nobody's: whoever hears it has heard all that the policy decided before."""
    number = next(numbers)
    frame = bytes(make.arp(1, text(wire.mac), "0.0.0.0", f"10.255.{number >> 8}.{number & 255}"))
    wire.send(frame)
    return frame


def questions(frames: list[bytes], ip: IPv4Address | IPv6Address) -> int:
    """How many of the frames ask everybody for an address."""
    asked = [read(0, frame) for frame in frames]
    return sum(m.kind in (Kind.ARP_REQUEST, Kind.NS) and m.target_ip == ip.packed and m.to_group for m in asked)


def macs_of(pod: Pod, ip: object) -> list[MacAddress]:
    """What the pod's own kernel believes."""
    return [n.mac for n in pod.neighbours() if str(n.ip) == str(ip) and n.mac is not None]


# Suppress and Direct.


@FAMILIES
@pytest.mark.parametrize("policy", ["flood", "suppress", "direct"])
def test_only_the_first_question_reaches_everybody(policy: str, family: int) -> None:
    with policed(4, policy) as (lab, switch), wires(lab) as (one, _, _, four):
        asked = address(lab["pod2"], family)
        assert lab["pod1"].ping(asked, timeout=PATIENCE)
        assert questions(four.heard_before(policy_mark(one), b""), asked) >= 1
        eventually(lambda: policy == "flood" or knows(switch, asked), "pod2 in the neighbour table")
        assert lab["pod3"].ping(asked, timeout=PATIENCE)
        heard = questions(four.heard_before(policy_mark(one), b""), asked)
        assert heard >= 1 if policy == "flood" else heard == 0
        assert macs_of(lab["pod3"], asked) == [lab["pod2"].mac]
        assert macs_of(lab["pod2"], address(lab["pod3"], family)) == [lab["pod3"].mac]
        if policy != "flood":
            assert switch.counters().policy["answered" if policy == "suppress" else "sent_to"] >= 1


def add_address(pod: Pod, ip: str) -> None:
    """As a user does: with duplicate address detection."""
    with Links(pod.namespace) as links:
        links._ip.addr("add", index=links.index("eth0"), address=ip, prefixlen=64)


def address_flags(pod: Pod, ip: str) -> int:
    with Links(pod.namespace) as links:
        (found,) = [m for m in links._ip.get_addr(index=links.index("eth0")) if m.get_attr("IFA_ADDRESS") == ip]
    return int(found.get_attr("IFA_FLAGS"))


@pytest.mark.parametrize("policy", ["suppress", "guard,suppress"])
def test_duplicate_address_detection_still_fires(policy: str) -> None:
    with policed(3, policy) as (lab, switch):
        taken, free = str(address(lab["pod1"], 6)), "fd00::77"
        assert lab["pod2"].ping(taken, timeout=PATIENCE)
        eventually(lambda: knows(switch, taken), "pod1 in the neighbour table")
        # A question a second: the answer to the first one may come too late.
        more = ["sh", "-c", "echo 5 >/proc/sys/net/ipv6/conf/eth0/dad_transmits"]
        lab["pod3"].run(more, check=False)
        for ip in taken, free:
            add_address(lab["pod3"], ip)
        eventually(lambda: address_flags(lab["pod3"], taken) & DAD_FAILED, "the duplicate's detection")
        eventually(lambda: not address_flags(lab["pod3"], free) & TENTATIVE, "the free address")
        assert not address_flags(lab["pod3"], free) & DAD_FAILED
        assert lab["pod2"].ping(free, timeout=PATIENCE)
        assert lab["pod2"].ping(taken, timeout=PATIENCE)
        assert macs_of(lab["pod2"], taken) == [lab["pod1"].mac]


def test_a_probe_is_answered_by_the_owner_itself() -> None:
    """As RFC 5227 needs it: by whoever has the address now, not by who had it once."""
    with policed(3, "suppress") as (lab, switch), wires(lab) as (one, two, three):
        owner = address(lab["pod1"], 4)
        assert lab["pod2"].ping(owner, timeout=PATIENCE)
        eventually(lambda: knows(switch, owner), "pod1 in the neighbour table")
        probe = bytes(make.arp(1, text(three.mac), "0.0.0.0", str(owner)))
        three.send(probe)
        for hearer in one, two:
            assert probe in hearer.heard_before(policy_mark(three), b"")
        answer = make.arp(2, str(lab["pod1"].mac), str(owner), "0.0.0.0", to=text(three.mac))
        while three.receive()[0] != bytes(answer):
            pass
        lab["pod1"].set_down()
        before = switch.counters().policy.get("answered", 0)
        three.send(probe)
        assert probe in two.heard_before(policy_mark(three), b"")
        assert switch.counters().policy.get("answered", 0) == before


@pytest.mark.parametrize("policy", ["suppress", "direct", "guard,suppress"])
def test_arping(policy: str) -> None:
    if shutil.which("arping") is None:
        pytest.skip("no arping on this machine; probes are sent by hand above")
    with policed(3, policy) as (lab, switch):
        owner = address(lab["pod1"], 4)
        if "iputils" not in lab["pod2"].run(["arping", "-V"], check=False).stdout:
            pytest.skip("not the arping of iputils")
        assert lab["pod2"].ping(owner, timeout=PATIENCE)
        eventually(lambda: knows(switch, owner), "pod1 in the neighbour table")
        argv, patient = ["arping", "-q", "-I", "eth0"], ["-c", "60", "-w", "60"]
        assert lab["pod3"].run([*argv, *patient, "-D", str(owner)], check=False).returncode == 1  # in use
        assert lab["pod3"].run([*argv, "-c", "1", "-w", "3", "-D", "10.0.0.77"], check=False).returncode == 0  # free
        assert lab["pod3"].run([*argv, *patient, "-f", str(owner)], check=False).returncode == 0  # answered


# Guard.


def spoofs(liar: Pod, victim: Pod, claimed: Pod) -> list[Packet]:
    """All the ways to tell the victim that the liar has the addresses of somebody else."""
    mac, target = str(liar.mac), str(victim.mac)
    ipv4, ipv6 = str(address(claimed, 4)), str(address(claimed, 6))
    to_ipv4, to_ipv6 = str(address(victim, 4)), str(address(victim, 6))
    return [
        make.arp(1, mac, ipv4, ipv4),
        make.arp(2, mac, ipv4, ipv4),
        make.arp(2, mac, ipv4, to_ipv4, to=target),
        make.arp(1, mac, ipv4, to_ipv4),
        make.na(mac, ipv6),
        make.na(mac, ipv6, to=target, to_ip=to_ipv6, s=1),
        make.ns(mac, ipv6, to_ipv6),
    ]


@pytest.mark.parametrize("policy", ["flood", "guard", "guard=strict,suppress"])
def test_spoofed_claims_change_no_pods_neighbours(policy: str, caplog: pytest.LogCaptureFixture) -> None:
    """Flood is the proof that the attack works."""
    with policed(3, policy, trusted="strict" in policy) as (lab, switch), wires(lab) as (_, _, liar):
        one, two, three = lab
        ips = [address(one, family) for family in (4, 6)]
        for ip in ips:
            assert two.ping(ip, timeout=PATIENCE)
        if policy == "flood":
            believed = [[three.mac], [three.mac]]
            eventually(lambda: attack(liar, three, two, one) and [macs_of(two, ip) for ip in ips] == believed, "spoof")
            return
        eventually(lambda: all(knows(switch, ip) for ip in ips), "pod1 in the neighbour table")
        lies = attack(liar, three, two, one)
        eventually(lambda: fate(switch, "dropped:spoofed") + source_guarded(switch, "pod3") == lies, "every drop")
        for ip in ips:
            assert macs_of(two, ip) == [one.mac]
            assert two.ping(ip, timeout=PATIENCE)
        told = {
            (str(c.ip), c.known.port, c.known.mac, c.claimed.port, c.claimed.mac) for c in switch.neighbours.conflicts
        }
        assert told <= {(str(ip), "pod1", one.mac, "pod3", three.mac) for ip in ips}
        assert str(ips[0]) in [ip for ip, *_ in told]
        claim = f"{ips[0]} is {one.mac} on pod1, and {three.mac} on pod3 claims it"
        eventually(lambda: any(claim in w for w in warnings(caplog)), "the warning")


def attack(wire: Wire, liar: Pod, victim: Pod, claimed: Pod) -> int:
    lies = spoofs(liar, victim, claimed)
    for lie in lies:
        wire.send(bytes(lie))
    return len(lies)


def fate(switch: Switch, what: str) -> int:
    return switch.counters().policy.get(what, 0)


def source_guarded(switch: Switch, port: str) -> int:
    return switch.counters().ports[port].dropped["source_guard"]


@pytest.mark.parametrize("policy", ["guard=strict", "guard=strict,suppress", "guard=strict,direct,ratelimit=1000"])
def test_strict_pods_of_the_plan_reach_each_other(policy: str) -> None:
    with policed(4, policy, trusted=True) as (lab, switch):
        for one, two in itertools.permutations(lab, 2):
            for family in 4, 6:
                assert one.ping(address(two, family), timeout=PATIENCE), (one, two, family)
        dropped = switch.counters().total.dropped
        assert not any(dropped[reason] for reason in ("source_guard", "rate_limited", "punt_full"))
        assert not any(what.startswith("dropped:") for what in switch.counters().policy)


def test_an_address_the_plan_does_not_have_is_nobodys() -> None:
    with policed(2, "guard=strict", trusted=True) as (lab, switch):
        add_address(lab["pod1"], "fd00::77")
        eventually(lambda: not address_flags(lab["pod1"], "fd00::77") & TENTATIVE, "the address")
        assert not lab["pod2"].ping("fd00::77", timeout=0.3)
        eventually(lambda: fate(switch, "dropped:unbound") + source_guarded(switch, "pod1") > 0, "the drop")


# VLANs, pending checksums.


@pytest.mark.parametrize("vids", [(5,), (100, 7)], ids=str)
def test_tagged_questions_are_answered_in_their_vlan(vids: tuple[int, ...]) -> None:
    with policed(3, "suppress") as (lab, _), wires(lab) as (one, two, three):
        owner, asker = text(one.mac), text(two.mac)
        one.send(tagged(make.arp(1, owner, "10.5.0.1", "10.5.0.1"), *vids))
        three.heard_before(policy_mark(one), b"")
        question = make.arp(1, asker, "10.5.0.2", "10.5.0.1")
        two.send(tagged(question, *vids))
        answer = tagged(make.arp(2, owner, "10.5.0.1", "10.5.0.2", to=asker), *vids)
        while two.receive()[0] != answer:
            pass
        other = tagged(question, 6)
        two.send(other)
        heard = three.heard_before(policy_mark(two), b"")
        assert other in heard
        assert tagged(question, *vids) not in heard


def test_a_pending_checksum_is_computed_for_the_policy() -> None:
    """A sender may leave it to the network card; what the policy judges and sends is what a wire would show."""
    with policed(3, "guard,suppress") as (lab, switch), wires(lab) as (one, two, three):
        owner, asker = text(one.mac), text(two.mac)
        one.send(bytes(make.na(owner, "fd00::a1")))
        three.heard_before(policy_mark(one), b"")
        for target in "fd00::a1", "fd00::a9":
            whole = bytes(make.ns(asker, "fd00::a2", target))
            pseudo = whole[22:54] + struct.pack("!IHBB", len(whole) - 54, 0, 0, 58)
            pending = whole[:56] + struct.pack("!H", ~checksum(pseudo) & 0xFFFF) + whole[58:]
            two.send(pending, VnetHeader(NEEDS_CSUM, csum_start=54, csum_offset=2))
            if target == "fd00::a1":
                answer = bytes(make.na(owner, target, to=asker, to_ip="fd00::a2", s=1))
                while two.receive()[0] != answer:
                    pass
            else:
                assert whole in three.heard_before(policy_mark(two), b"")
        assert fate(switch, "dropped:malformed") == 0


# Policies while frames pass.


def forget_neighbours(pod: Pod) -> None:
    with Links(pod.namespace) as links:
        for known in pod.neighbours():
            if known.state != "noarp":
                links._ip.neigh("del", dst=str(known.ip), ifindex=links.index("eth0"))


def test_the_policy_changes_while_pods_talk() -> None:
    with policed(3, "flood", trusted=True) as (lab, switch):
        for policy in "suppress", "guard", "direct", "flood", "guard=strict,suppress", "ratelimit=1000", "suppress":
            switch.set_policy(policy)
            switch.set_policy("guard,suppress", "pod2")
            for pod in lab:
                forget_neighbours(pod)
            for one, two in itertools.permutations(lab, 2):
                for ip in address(two, 4), address(two, 6):
                    eventually(lambda a=one, b=ip: a.ping(b, timeout=3), policy)  # type: ignore[misc]


class Hanging(Policy):
    """Waits for ever, until released."""

    def __init__(self, fallback: str) -> None:
        self.fallback = fallback  # type: ignore[assignment]
        self.asked, self.released = threading.Event(), threading.Event()

    def decide(self, message: Message, neighbours: Neighbours) -> Verdict | None:
        self.asked.set()
        self.released.wait()
        return Drop("late")


@pytest.mark.parametrize("fallback", few(1, ["flood", "drop"]))
def test_a_hanging_policy_stops_neither_forwarding_nor_the_switch(
    fallback: str, caplog: pytest.LogCaptureFixture
) -> None:
    policy = Hanging(fallback)
    try:
        with Lab(3) as lab, Switch(lab.ports, policy=policy) as switch, wires(lab) as (one, two, _):
            one.send(bytes(make.arp(1, text(one.mac), "10.0.9.1", "10.0.9.2")))
            assert policy.asked.wait(PATIENCE)
            sent = 1
            while switch.counters().ports["pod1"].dropped["punt_full"] + switch.counters().ports["pod1"].flooded < 50:
                for _ in range(200):  # more than the queue holds, sooner or later
                    one.send(bytes(make.arp(1, text(one.mac), "10.0.9.1", "10.0.9.2")))
                sent += 200
            eventually(lambda: seen(switch, "pod1") >= sent, "what waits in the ring")
            total = switch.counters().total
            assert total.consumed > 0
            assert bool(total.dropped["punt_full"]) == (fallback == "drop")
            drain(two)
            two.socket.settimeout(5)

            def goes_on(n: int) -> bool:
                frame = ethernet(GROUP, one.mac, payload=b"fastbridge %d" % n)
                try:
                    return frame in two.heard_before(one.send_in_order([frame]))
                except TimeoutError:
                    return False

            # Once, what the policy kept comes in the midst: more than a socket holds.
            assert sum(not goes_on(n) for n in range(100)) <= 2
            two.socket.settimeout(PATIENCE)
            if fallback == "flood":  # then even ARP goes on, as soon as the policy is passed by
                eventually(lambda: bool(lab["pod2"].ping("pod3", timeout=1)), "the fallback")
            switch.set_policy("flood")
            assert lab["pod3"].ping("pod2", timeout=PATIENCE)
            switch.stop()
            assert not switch.running
            assert any("policy" in r.getMessage() and r.levelno == logging.ERROR for r in caplog.records)
    finally:
        policy.released.set()
        eventually(lambda: "fastbridge-policy" not in [t.name for t in threading.enumerate()], "the thread's end")


def test_a_hanging_policy_is_passed_by_until_it_returns(caplog: pytest.LogCaptureFixture) -> None:
    policy = Hanging("flood")
    try:
        with Lab(2) as lab, Switch(lab.ports, policy=policy) as switch:
            one, two = lab
            assert not one.ping(two, family=4, timeout=0.3)  # its question is what the policy keeps
            eventually(lambda: bool(one.ping(two, family=4, timeout=1)), "the fallback")
            eventually(lambda: "fallback is used" in caplog.text, "the word of it")
            policy.released.set()
            eventually(lambda: switch.counters().policy.get("dropped:late", 0) > 0, "the policy's verdict")
            before = switch.counters().policy["dropped:late"]
            eventually(
                lambda: not one.ping("10.0.0.99", timeout=0.1) and switch.counters().policy["dropped:late"] > before,
                "the policy asked again",
            )
    finally:
        policy.released.set()


# Stations that move, loops.


def redeploy(lab: Lab, name: str, mac: MacAddress) -> Port:
    """Delete a pod's interface and make it anew, with the addresses it had and another MAC."""
    pod = lab[name]
    assert pod.ipv4 is not None
    assert pod.ipv6 is not None
    pod.port.delete()
    with Links(lab.namespace) as links:
        links.add_pair(name, None, "eth0", mac, pod.namespace.fd, 1500)
        links.set(name, state="up", arp=False)
    with Links(pod.namespace) as links:
        for interface in pod.ipv4, pod.ipv6:
            links.add_address(links.index("eth0"), interface)
        links.set("eth0", state="up")
    port = Port(lab.namespace, name, mac)
    port.owners = [(mac, interface.ip) for interface in (pod.ipv4, pod.ipv6)]
    return port


@pytest.mark.parametrize("policy", ["flood", "suppress", "guard,suppress"])
def test_a_redeployed_pod_is_reachable_at_once(policy: str) -> None:
    with policed(3, policy, trusted=True) as (lab, switch):
        for family in 4, 6:
            assert lab["pod1"].ping(address(lab["pod2"], family), timeout=PATIENCE)
        mac = MacAddress(0x02_00_00_00_99_02)
        port = redeploy(lab, "pod2", mac)
        eventually(lambda: ("pod2", "gone") in [(p.name, p.state) for p in switch.ports], "pod2 gone")
        switch.add_port(port)
        switch.announce("pod2")
        for family in 4, 6:
            told = address(lab["pod2"], family)
            eventually(lambda told=told: macs_of(lab["pod1"], told) == [mac], "the announcement")  # type: ignore[misc]
            assert lab["pod1"].ping(told, timeout=PATIENCE)
            assert macs_of(lab["pod1"], address(lab["pod2"], family)) == [mac]
            assert lab["pod3"].ping(address(lab["pod2"], family), timeout=PATIENCE)
            assert lab["pod2"].ping(address(lab["pod3"], family), timeout=PATIENCE)


@contextlib.contextmanager
def cable(one: str, two: str) -> Iterator[IPRoute]:
    """A veth pair in this namespace, up."""
    with IPRoute() as ip:
        ip.link("add", ifname=one, kind="veth", peer=two)
        try:
            for name in one, two:
                (index,) = ip.link_lookup(ifname=name)
                ip.link("set", index=index, state="up")
            yield ip
        finally:
            for index in ip.link_lookup(ifname=one):
                ip.link("del", index=index)


def state(switch: Switch, name: str) -> str:
    return next(port.state for port in switch.ports if port.name == name)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


LOOPS = [{"policy": "flood"}, {"policy": "guard,suppress"}, {"policy": "flood", "move_damping": 1.0}]


@pytest.mark.parametrize("options", few(1, LOOPS), ids=str)
def test_a_loop_is_contained(options: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    with (
        cable("loop1", "loop2"),
        Lab(2) as lab,
        Switch([*lab.ports, "loop1", "loop2"], **options) as switch,
        wires(lab) as (wire, _),
    ):
        one, two = lab

        def blocked() -> bool:
            wire.send(ethernet(GROUP, wire.mac))  # to all: what a loop multiplies, and no policy wants
            return "blocked" in (state(switch, "loop1"), state(switch, "loop2"))

        eventually(blocked, "a blocked port")
        assert [state(switch, port.name) for port in lab.ports] == ["up", "up"]
        eventually(lambda: one.ping(two, timeout=0.2), "pods reaching each other again")
        both = ("loop1", "loop2", "blocked for 1 s")
        eventually(lambda: any(all(part in w for part in both) for w in warnings(caplog)), "the warning")
        eventually(lambda: any("blocked for 2 s" in w for w in warnings(caplog)), "the next try")
        eventually(lambda: any("on trial" in w for w in warnings(caplog)), "the trial")
        eventually(lambda: one.ping(two, count=3, timeout=0.2), "pods reaching each other still")
        assert [state(switch, port.name) for port in lab.ports] == ["up", "up"]


@contextlib.contextmanager
def stage_of_flapping(**options: Any) -> Iterator[tuple[Switch, Callable[[], None]]]:
    with policed(2, "flood", **options) as (lab, switch), wires(lab) as (one, two):

        def flap() -> None:
            for sender, hearer in (one, two), (two, one):
                hearer.heard_before(sender.send_in_order([ethernet(GROUP, X)]))

        yield switch, flap


def test_a_flapping_station_is_named_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    """And ports it flaps between are not taken for a loop."""
    with stage_of_flapping() as (switch, flap):
        flaps = 0
        deadline = time.monotonic() + PATIENCE
        while not (found := [w for w in warnings(caplog) if "flaps" in w]):
            assert time.monotonic() < deadline
            flap()
            flaps += 1
            time.sleep(0.002)  # what comes faster than it is read, 1,024 moves in 20 ms, is counted by counters() only
        assert all(part in found[0] for part in (text(X), "pod1", "pod2"))
        eventually(lambda: switch.moves[MacAddress(X)] == 2 * flaps - 1, "every move counted")
        assert switch.counters().moved == 2 * flaps - 1
        assert [port.state for port in switch.ports] == ["up", "up"]


def test_a_damped_station_stays(caplog: pytest.LogCaptureFixture) -> None:
    with stage_of_flapping(move_damping=60.0) as (switch, flap):
        for _ in range(20):
            flap()
        entry = switch.fdb.lookup(X)
        assert entry is not None
        assert entry.port == "pod1"
        assert switch.counters().moved == 0
        assert switch.moves == {}


def test_a_flood_of_sources_leaves_the_others_entries(caplog: pytest.LogCaptureFixture) -> None:
    with policed(4, "flood", capacity=64) as (lab, switch), wires(lab) as (one, two, three, four):
        two.send(ethernet(GROUP, two.mac))
        three.send(ethernet(GROUP, three.mac))
        one.heard_before(two.mark())
        one.heard_before(three.mark())
        for burst in range(20):  # no longer than what a socket holds
            for n in range(100):
                one.send(ethernet(GROUP, 0x02_00_00_01_00_00 + 100 * burst + n))
            mark = one.mark()
            for wire in two, three, four:
                wire.heard_before(mark)
        for wire, name in (two, "pod2"), (three, "pod3"):
            entry = switch.fdb.lookup(wire.mac)
            assert entry is not None
            assert entry.port == name
        private = ethernet(three.mac, two.mac)
        two.send(private)
        mark = two.mark()
        assert private in three.heard_before(mark)
        assert private not in one.heard_before(mark)
        four.send(ethernet(GROUP, four.mac))  # and who is new finds a place
        two.heard_before(four.mark())
        assert switch.fdb.lookup(four.mac) is not None
        counters = switch.counters()
        assert counters.evicted > 0
        assert counters.refused > 1_000
