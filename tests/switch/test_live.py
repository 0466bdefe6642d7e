"""Frames on real veth pairs: tags, groups, stations, ports that fail. Traffic of real stacks is in test_traffic.py."""

from __future__ import annotations

import random
import struct
from collections.abc import Collection
from ipaddress import IPv4Interface, IPv6Interface

import pytest
from effort import few
from fast import pairs
from frames import GROUP, ethernet, tag
from gso import NEEDS_CSUM, checksum, gso_frame
from live import (
    PATIENCE,
    Wire,
    bursts_keep_their_order,
    check_accounts,
    eventually,
    hear_each_other,
    next_own,
    seen,
    settled,
    stage,
    state,
    wires,
)
from model import Model

from fastbridge import ConfigError, Lab, PortError, Switch, Topology
from fastbridge.lab.links import Links

pytestmark = [pytest.mark.live, pytest.mark.both_paths]

X, Y, UNKNOWN = 0x02_00_00_00_FF_01, 0x02_00_00_00_FF_02, 0x02_00_00_00_FF_99
Case = list[tuple[int, bytes]]  # (ingress, frame)


def station_talk(tags: bytes = b"") -> Case:
    """X and Y find each other, X moves, an unknown one is called, Y talks to itself."""
    talk = [(0, GROUP, X), (1, X, Y), (0, Y, X), (2, GROUP, X), (1, X, Y), (1, UNKNOWN, Y), (1, Y, Y)]
    return [(port, ethernet(*macs, tags, payload=b"fastbridge %d" % n)) for n, (port, *macs) in enumerate(talk)]


def random_talk(seed: int, count: int = 150) -> Case:
    """Whatever a raw socket can put on a wire (no runts, no cut tags: those end in the kernel)."""
    rng = random.Random(seed)
    macs = [X + n for n in range(4)]
    talk = []
    for n in range(count):
        destination = rng.choice([*macs, *macs, UNKNOWN, GROUP, 0x01005E000001, 0x0180C200000E])
        source = rng.choice([*macs, *macs, *macs, 0, GROUP])
        tags = b"".join(
            tag(rng.choice([0, 1, 5, 4094, 4095]), tpid=rng.choice([0x8100, 0x88A8]), priority=rng.randrange(8))
            for _ in range(rng.choice([0, 0, 1, 2]))
        )
        ethertype = rng.choice([0x88B5, 0x88B5, 0x0000, 0x0800, 0x9100, 0xFFFF])
        payload = b"fastbridge %d" % n + rng.randbytes(rng.choice([0, 30, 1000, 1400]))
        talk.append((rng.randrange(3), ethernet(destination, source, tags, ethertype=ethertype, payload=payload)))
    return talk


CASES = {
    "untagged": station_talk(),
    "802.1Q": station_talk(tag(5, priority=3)),
    "802.1ad": station_talk(tag(5, tpid=0x88A8)),
    "QinQ": station_talk(tag(100, tpid=0x88A8) + tag(7, priority=1)),
    "priority tag": station_talk(tag(0, priority=7)),
    "VLANs apart": [*station_talk(tag(5)), *station_talk(tag(6)), *station_talk()],
    "VID 4095": [(0, ethernet(GROUP, X, tag(4095))), (1, ethernet(X, Y))],
    "bad sources": [(0, ethernet(GROUP, source)) for source in (0, GROUP, X | 1 << 40, 0x01005E000001)],
    "link-local groups": [(0, ethernet(0x0180C2000000 | last, X)) for last in range(17)],
    "LLDP, LACP, 802.1X": [
        (0, ethernet(mac, X, ethertype=ethertype))
        for mac, ethertype in [(0x0180C200000E, 0x88CC), (0x0180C2000002, 0x8809), (0x0180C2000003, 0x888E)]
    ],
    "lengths": [(0, ethernet(GROUP, X, payload=b"fastbridge".ljust(size, b"."))) for size in (10, 46, 1499, 1500)],
    "random 1": random_talk(1),
    "random 2": random_talk(2),
}


@pytest.mark.parametrize("filter_link_local", few(1, [False, True]))
@pytest.mark.parametrize("name", CASES)
def test_the_wire_says_what_the_model_says(name: str, filter_link_local: bool) -> None:
    model = Model(3, ageing=None, capacity=65_536, filter_link_local=filter_link_local, clock=lambda: 0.0)
    with stage(3, ageing=None, filter_link_local=filter_link_local) as (lab, switch), wires(lab) as ends:
        hear_each_other(ends)
        for ingress, frame in CASES[name]:
            ends[ingress].send(frame)
            mark = ends[ingress].mark()
            heard = [(port, got) for port, end in enumerate(ends) if port != ingress for got in end.heard_before(mark)]
            assert heard == model.process(ingress, [frame])
            settled(switch)
        for mac, vid in {(int.from_bytes(frame[6:12], "big"), vid) for _, frame in CASES[name] for vid in (0, 5, 100)}:
            entry, expected = switch.fdb.lookup(mac, vlan=vid), model.fdb.get((vid, mac))
            assert (entry and entry.port) == (expected and f"pod{expected.port + 1}")
        assert switch.counters().moved == model.counts["moved"]
        for port, core_port in zip(model.ports, switch.counters().ports.values(), strict=True):
            assert {k: v for k, v in core_port.dropped.items() if v} == port.dropped


def test_known_unicast_is_private_and_unknown_is_flooded() -> None:
    with stage(3) as (lab, switch), wires(lab) as (one, two, three):
        hear_each_other([one, two, three])
        before = switch.counters().ports["pod1"]
        private, public = ethernet(two.mac, one.mac), ethernet(UNKNOWN, one.mac)
        for frame in private, public:
            one.send(frame)
        mark = one.mark()
        assert two.heard_before(mark) == [private, public]
        assert three.heard_before(mark) == [public]
        after = switch.counters().ports["pod1"]
        assert after.forwarded - before.forwarded >= 1
        assert after.flooded - before.flooded >= 2


def test_many_frames_in_order() -> None:
    with stage(3) as (lab, switch), wires(lab) as ends:
        hear_each_other(ends)
        if switch.fast_path != "off":  # by then: at its promotion a pair may be overtaken once
            one, two, _ = ends
            eventually(
                lambda: one.send(ethernet(two.mac, one.mac)) or is_promoted(switch, one, two), "the pair's promotion"
            )
            two.heard_before(one.mark())
        bursts_keep_their_order(ends, 20, one_path=False)


def is_promoted(switch: Switch, one: Wire, two: Wire) -> bool:
    return any((pair.source, pair.destination) == (one.mac, two.mac) for pair in pairs(switch))


# Frames whose checksum and segmentation are still to be done: what a pod's own stack sends by default.


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("size", [9_000, 60_000])
@pytest.mark.parametrize(
    "tags",
    [b"", tag(5, priority=2), tag(5, tpid=0x88A8), tag(100, tpid=0x88A8) + tag(7)],
    ids=["untagged", "802.1Q", "802.1ad", "QinQ"],
)
def test_gso_frames_with_pending_checksum_stay_whole(tags: bytes, size: int, version: int) -> None:
    with stage(3) as (lab, _), wires(lab) as (one, two, three):
        two.send(ethernet(GROUP, two.mac, tags))  # so that two is known in this VLAN
        assert next_own(one)[0] == next_own(three)[0] == ethernet(GROUP, two.mac, tags)
        for destination, hearers in (two.mac, [two]), (GROUP, [two, three]):
            sent, header = gso_frame(destination, one.mac, tags, version, size)
            one.send(sent, header)
            for hearer in hearers:
                got, got_header = next_own(hearer)
                assert got == sent  # three never hears the first one
                in_metadata = 4 if tags else 0  # the socket counts csum_start without the outer tag
                assert got_header.csum_start == header.csum_start - in_metadata
                assert (got_header.flags & NEEDS_CSUM, got_header.csum_offset) == (NEEDS_CSUM, 16)
                assert (got_header.gso_type, got_header.gso_size) == (header.gso_type, header.gso_size)


# Frames the kernel has no room for.


def test_frames_lost_to_a_full_ring_are_counted() -> None:
    """A switch not started yet lets its ring run full."""
    with Lab(2) as lab, wires(lab) as (one, _):
        switch = Switch(lab.ports)
        for n in range(5_000):
            one.send(ethernet(GROUP, one.mac, payload=b"fastbridge %d" % n))
        with switch:
            eventually(lambda: seen(switch, "pod1") >= 5_000, "the account of every frame")
            pod1 = switch.counters().ports["pod1"]
            assert pod1.rx_missed > 0
            assert pod1.flooded > 0
            assert lab["pod2"].ping("pod1", timeout=PATIENCE)
            check_accounts(switch)


def test_big_frames_lost_to_a_full_buffer_are_counted() -> None:
    with Lab(2) as lab, wires(lab) as (one, two):
        switch = Switch(lab.ports)
        sent, header = gso_frame(GROUP, one.mac, b"", 4, 60_000)
        for _ in range(200):  # 12 MB
            one.send(sent, header)
        with switch:
            eventually(lambda: seen(switch, "pod1") >= 200, "the account of every frame")
            pod1 = switch.counters().ports["pod1"]
            assert pod1.dropped["truncated"] > 0
            assert pod1.flooded > 0
            assert next_own(two)[0] == sent  # a frame that could not be had whole is never sent in part
            assert lab["pod2"].ping("pod1", timeout=PATIENCE)
            check_accounts(switch)


# Stations and time.


def test_station_move() -> None:
    with stage(3) as (lab, switch), wires(lab) as (one, two, three):
        hear_each_other([one, two, three])
        for number, sender in enumerate([one, three, one], 1):
            sender.send(ethernet(GROUP, X))
            mark = sender.mark()
            two.heard_before(mark)
            entry = switch.fdb.lookup(X)
            assert entry is not None
            assert entry.port == ("pod1" if sender is one else "pod3")
            assert switch.counters().moved == number - 1


def test_ageing() -> None:
    with stage(2, ageing=0.3) as (lab, switch), wires(lab) as (one, two):
        one.send(ethernet(GROUP, X))
        two.heard_before(one.mark())
        learned = switch.counters().learned
        assert learned >= 2
        eventually(lambda: switch.counters().aged >= learned, "ageing")
        assert switch.fdb.lookup(X) is None


def test_static_entry_keeps_a_frame_off_the_other_wires() -> None:
    with stage(3) as (lab, switch), wires(lab) as (one, two, three):
        hear_each_other([one, two, three])
        switch.fdb.add(X, "pod3")
        two.send(ethernet(GROUP, X))  # somebody else claims to be X
        frame = ethernet(X, one.mac)
        two_mark = two.mark()
        one.heard_before(two_mark)
        three.heard_before(two_mark)
        one.send(frame)
        mark = one.mark()
        assert two.heard_before(mark) == []
        assert three.heard_before(mark) == [frame]


def test_trace_tells_what_became_of_a_frame() -> None:
    with stage(3) as (lab, switch), wires(lab) as (one, two, three):
        hear_each_other([one, two, three])
        with switch.trace() as trace:
            for frame in (
                ethernet(GROUP, X, payload=b"fastbridge 1"),
                ethernet(two.mac, X, tag(5), payload=b"fastbridge 2"),
                ethernet(X, 0, payload=b"fastbridge 3"),
            ):
                one.send(frame)
            two.heard_before(one.mark())
            events = []
            eventually(lambda: events.extend(trace.read(0.1)) or any(MARKED in e.frame for e in events), "the mark")
        own = [event for event in events if b"fastbridge" in event.frame]
        assert [event.action for event in own] == ["flooded", "flooded", "dropped"]
        assert [event.learned for event in own] == ["new", "new", None]
        assert [event.reason for event in own] == [None, None, "bad_source"]
        assert [event.egress for event in own] == [("pod2", "pod3"), ("pod2", "pod3"), ()]
        assert all(event.ingress == "pod1" for event in own)
        assert own[1].frame == ethernet(two.mac, X, tag(5), payload=b"fastbridge 2")
        assert trace.lost == 0


MARKED = b"mark of a live test"


# Ports that fail.


def test_pod_end_goes_down_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    """The host end is still switched on, and takes whatever is sent: but it has no carrier."""
    with (
        Lab(Topology.of(3, ipv6=None)) as lab,
        Switch(lab.ports, policy="suppress", loop_detection=False) as switch,
        wires(lab) as (one, _, three),
    ):
        three.send(ethernet(GROUP, X))
        assert lab["pod1"].ping("pod3", timeout=PATIENCE)
        switch.fdb.add(Y, "pod3")
        lab["pod3"].set_down()
        eventually(lambda: state(switch, "pod3") == "down", "pod3 down")
        eventually(lambda: "port pod3 is down: no carrier" in caplog.text, "word of it")
        eventually(lambda: {entry.mac for entry in switch.fdb if entry.port == "pod3"} == {Y}, "the flush")
        eventually(lambda: "pod3" not in {neighbour.port for neighbour in switch.neighbours}, "the bindings' end")
        sent, told = switch.counters().ports["pod3"], lab["pod3"].port.counters().tx_dropped
        for destination in lab["pod3"].mac, X, Y, GROUP:
            one.send(ethernet(int(destination), one.mac))
        assert lab["pod1"].ping("pod2", count=3, timeout=PATIENCE)
        assert switch.counters().ports["pod3"] == sent
        assert lab["pod3"].port.counters().tx_dropped == told
        lab["pod3"].set_up()
        eventually(lambda: state(switch, "pod3") == "up", "pod3 up")
        eventually(lambda: "port pod3 is up again" in caplog.text, "word of it")
        assert lab["pod1"].ping("pod3", count=3, timeout=PATIENCE)
        assert lab["pod2"].ping("pod1", timeout=PATIENCE)


@pytest.mark.parametrize("running", [False, True])
def test_a_port_without_a_carrier_is_added(running: bool, caplog: pytest.LogCaptureFixture) -> None:
    with Lab(Topology.of(3, ipv6=None)) as lab:
        lab["pod3"].set_down()
        switch = Switch(lab.ports[:2] if running else lab.ports)
        try:
            if not running:
                assert state(switch, "pod3") == "down"
            switch.start()
            if running:
                assert switch.add_port(lab.ports[2]).state == "down"
            eventually(lambda: "port pod3 is down: no carrier" in caplog.text, "word of it")
            assert lab["pod1"].ping("pod2", timeout=PATIENCE)
            assert switch.counters().ports["pod3"].tx_frames == 0
            lab["pod3"].set_up()
            eventually(lambda: state(switch, "pod3") == "up", "pod3 up")
            assert lab["pod1"].ping("pod3", timeout=PATIENCE)
        finally:
            switch.stop()


def test_a_carrier_lost_for_a_moment_is_a_station_forgotten() -> None:
    """However short it was: what is behind the port may be another."""
    with stage(Topology.of(2, ipv6=None), ports_fail=True) as (lab, switch):
        for _ in range(10):
            assert lab["pod1"].ping("pod2", timeout=PATIENCE)
            before = switch.fdb.lookup(lab["pod2"].mac)
            assert before is not None
            lab["pod2"].set_down()
            lab["pod2"].set_up()
            eventually(lambda: switch.fdb.lookup(lab["pod2"].mac) is None, "the flush")
            eventually(lambda: state(switch, "pod2") == "up", "pod2 up")


def test_a_port_without_a_carrier_is_down_before_its_stations_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else somebody who waited for both sends while it is about to be down, and the frame is dropped."""
    with stage(Topology.of(2, ipv6=None), ports_fail=True) as (lab, switch):
        states, forget = [], switch._forget_behind

        def note_and_forget(ports: Collection[int]) -> None:
            if ports:  # once a second it is asked for none
                states.append(state(switch, "pod2"))
            forget(ports)

        monkeypatch.setattr(switch, "_forget_behind", note_and_forget)
        lab["pod2"].set_down()
        eventually(lambda: states, "the flush")
        assert states[0] == "down"


def test_host_end_goes_down_and_comes_back() -> None:
    with stage(3, ports_fail=True) as (lab, switch):
        assert lab["pod1"].ping("pod3", timeout=PATIENCE)
        lab["pod3"].port.set_down()
        eventually(lambda: state(switch, "pod3") == "down", "pod3 down")
        assert lab["pod1"].ping("pod2", count=3, timeout=PATIENCE)
        assert not lab["pod1"].ping("pod3", timeout=0.2)
        lab["pod3"].port.set_up()
        eventually(lambda: state(switch, "pod3") == "up", "pod3 up")
        eventually(lambda: lab["pod1"].ping("pod3", timeout=0.2), "pod3 answering again")
        assert lab["pod2"].ping("pod1", timeout=PATIENCE)


def test_host_end_is_deleted() -> None:
    with stage(3, ports_fail=True) as (lab, switch):
        assert lab["pod1"].ping("pod3", timeout=PATIENCE)
        assert switch.fdb.lookup(lab["pod3"].mac) is not None
        lab["pod3"].port.delete()
        eventually(lambda: state(switch, "pod3") == "gone", "pod3 gone")
        eventually(lambda: switch.fdb.lookup(lab["pod3"].mac) is None, "pod3 forgotten")
        assert lab["pod1"].ping("pod2", count=3, timeout=PATIENCE)
        assert {port.state for port in switch.ports if port.name != "pod3"} == {"up"}
        assert switch.counters().ports["pod3"].rx_frames > 0  # what it did stays on record


def test_a_port_fails_while_frames_pass() -> None:
    """Down, up, deleted in the middle of a stream between the two others, which loses nothing."""
    with stage(3, ports_fail=True) as (lab, switch), wires(lab) as (one, two, three):
        hear_each_other([one, two, three])
        events = {50: lab["pod3"].port.set_down, 100: lab["pod3"].port.set_up, 150: lab["pod3"].port.delete}
        for n in range(200):
            events.get(n, lambda: None)()
            sent = [ethernet(destination, one.mac, payload=b"fastbridge %d" % n) for destination in (two.mac, GROUP)]
            for frame in sent:
                one.send(frame)
            assert two.heard_before(one.mark()) == sent
        eventually(lambda: state(switch, "pod3") == "gone", "pod3 gone")


def test_ports_come_and_go() -> None:
    with Lab(3) as lab, Switch(lab.ports[:2]) as switch:
        assert lab["pod1"].ping("pod2", timeout=PATIENCE)
        assert not lab["pod1"].ping("pod3", timeout=0.2)
        switch.add_port(lab.ports[2])
        eventually(lambda: lab["pod1"].ping("pod3", timeout=0.2), "pod3 answering")
        switch.remove_port("pod2")
        assert switch.fdb.lookup(lab["pod2"].mac) is None
        assert not lab["pod1"].ping("pod2", timeout=0.2)
        assert lab["pod1"].ping("pod3", timeout=PATIENCE)
        assert "pod2" not in [port.name for port in switch.ports if port.state != "gone"]


def test_start_and_stop() -> None:
    with Lab(2) as lab:
        switch = Switch(lab.ports)
        assert not switch.running
        assert not lab["pod1"].ping("pod2", timeout=0.2)
        for _ in range(2):
            switch.start()
            assert switch.running
            assert lab["pod1"].ping("pod2", timeout=PATIENCE)
        for _ in range(2):
            switch.stop()
            assert not switch.running
            assert not lab["pod1"].ping("pod2", timeout=0.2)
        assert switch.counters().total.forwarded > 0  # what it did stays on record
        with pytest.raises(ConfigError, match="stopped"):
            switch.start()
        with pytest.raises(ConfigError, match="stopped"):
            switch.add_port(lab.ports[0])
        with Switch(lab.ports):  # the ports are free again
            assert lab["pod1"].ping("pod2", timeout=PATIENCE)


def test_unknown_interface_is_named() -> None:
    with pytest.raises(PortError, match="no_such_if") as caught, Switch(["no_such_if", "lo"]):
        pass
    assert "\n" not in str(caught.value)


# The host's own stack keeps silent.


def test_host_stack_neither_answers_nor_forwards() -> None:
    """The namespace of the host ends has addresses and routes; no pod may notice."""
    with stage(2) as (lab, _), wires(lab) as (one, two):
        hear_each_other([one, two])
        lab.namespace.write_sysctl("net/ipv6/conf/lo/disable_ipv6", 0)
        with Links(lab.namespace) as links:
            links.set("lo", state="up")
            links.add_address(links.index("lo"), IPv4Interface("10.0.200.1/32"))
            links.add_address(links.index("lo"), IPv6Interface("fd00::c8/128"))
            links.add_address(links.index("pod2"), IPv4Interface("10.0.0.200/16"))
        assert not lab["pod1"].ping("10.0.200.1", timeout=0.5)
        assert not lab["pod1"].ping("fd00::c8", timeout=0.5)
        assert not lab["pod2"].ping("10.0.0.200", timeout=0.5)
        assert lab["pod1"].ping("pod2", timeout=PATIENCE)
        host_end = int(lab["pod1"].port.mac)
        # A frame to the host end's own address, for an IP address beyond: a router would send it on.
        header = struct.pack(
            "!BBHHHBBH4s4s", 0x45, 0, 30, 1, 0, 64, 253, 0, lab["pod1"].ipv4.ip.packed, lab["pod2"].ipv4.ip.packed
        )
        header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
        frame = ethernet(host_end, one.mac, ethertype=0x0800, payload=header + b"fastbridge")
        one.send(frame)
        assert two.heard_before(one.mark()) == [frame]  # flooded as unknown unicast, as it is
        two.send(ethernet(GROUP, two.mac))
        assert two.heard_before(one.mark()) == []


def test_host_ends_say_nothing_by_themselves() -> None:
    """Without a switch nothing but a host end can reach a pod; so the pods must hear nothing at all."""
    with Lab(2) as lab, wires(lab) as (one, two):
        for pod in lab:
            pod.port.set_down()
            pod.port.set_up()
        with Switch(lab.ports):
            hear_each_other([one, two])
        host_macs = [pod.port.mac.packed for pod in lab]
        for end in one, two:
            end.socket.setblocking(False)
            with pytest.raises(BlockingIOError):
                while True:
                    assert end.receive()[0][6:12] not in host_macs
