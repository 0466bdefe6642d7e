"""Carriers, taken from pods and given back: in memory, with real pods, and what stays of the host's own."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing

import pytest
from arp_nd_frames import arp
from frames import GROUP, ethernet
from host import Host, ip
from live import PATIENCE, eventually, stage, wires

from fastbridge import ConfigError, Link, MemorySwitch, Pod, PortError, Switch, Topology
from fastbridge.lab.namespaces import NamespaceHelper
from fastbridge.link_watch import LinkWatch
from fastbridge.switch.carrier import Carriers

A, B = 0x020000000001, 0x020000000002


# -- in memory ------------------------------------------------------------------------------------


def test_a_pod_without_a_carrier_neither_hears_nor_speaks(caplog: pytest.LogCaptureFixture) -> None:
    switch = MemorySwitch(["a", "b", "c"])
    switch.process("a", [ethernet(GROUP, A)])
    switch.neighbours.add("10.0.0.1", A, 0)
    with switch.monitor(["link", "forgotten"]) as monitor:
        switch.set_carrier("a", False)
        switch.set_carrier("a", False)
        assert [(e["event"], e.get("link")) for e in monitor.read() or []] == [("link", "down"), ("forgotten", None)]
        assert caplog.messages == ["port a is down"]
        assert [port.state for port in switch.ports] == ["down", "up", "up"]
        assert switch.process("a", [ethernet(GROUP, A)]) == []
        assert [copy.port for copy in switch.process("b", [ethernet(A, B)])] == [2]
        assert switch.counters().ports["a"].rx_frames == 1
        switch.set_carrier("a", True)
        assert switch.ports[0].state == "up"
        assert [copy.port for copy in switch.process("a", [ethernet(GROUP, A)])] == [1, 2]


def test_what_was_on_its_way_leaves_nobody_behind_a_pod_without_a_carrier() -> None:
    switch = MemorySwitch(["a", "b"], policy="suppress", clock=None)
    switch.set_link("a", Link(delay="20ms"))
    switch.process("a", [bytes(arp(1, "02:00:00:00:00:01", "10.0.0.1", "10.0.0.2"))])
    switch.set_carrier("a", False)
    assert [arrival.port for arrival in switch.advance(0.05)] == [1]
    assert [entry.port for entry in switch.fdb] == ["a"] and [entry.port for entry in switch.neighbours] == ["a"]
    switch.tick()
    assert not len(switch.fdb) and not len(switch.neighbours)


def test_a_port_made_again_has_a_carrier() -> None:
    switch = MemorySwitch(["a", "b"])
    switch.set_carrier("a", False)
    switch.remove_port("a")
    switch.add_port("a")
    assert [copy.port for copy in switch.process("a", [ethernet(GROUP, A)])] == [1]


def test_an_unknown_port() -> None:
    with pytest.raises(ConfigError, match="the switch has no port 'z'; it has: 0, 1"):
        MemorySwitch(2).set_carrier("z", False)


def test_a_carrier_is_there_or_not() -> None:
    switch = MemorySwitch(2)
    with pytest.raises(ConfigError, match="a carrier is there \\(True\\) or not \\(False\\), not 'down'"):
        switch.set_carrier("0", "down")  # type: ignore[arg-type]


# -- with pods ------------------------------------------------------------------------------------


def flags(pod: Pod) -> str:
    return pod.run(["ip", "-o", "link", "show", "eth0"]).stdout


@pytest.mark.live
@pytest.mark.both_paths
def test_the_pod_sees_it_and_the_switch_knows_it(caplog: pytest.LogCaptureFixture) -> None:
    with stage(3, ports_fail=True) as (lab, switch):
        one, two, _ = lab
        assert one.ping(two, timeout=PATIENCE)
        with switch.monitor(["link"]) as monitor:
            links: list[tuple[str, str]] = []

            def told(link: str) -> bool:  # the control thread tells it, some time after it is so
                links.extend((event["ifname"], event["link"]) for event in monitor.read() or [])
                return links[-1:] == [("pod1", link)]

            for _ in range(3):
                switch.set_carrier("pod1", False)
                assert switch.ports[0].state == "down"
                eventually(lambda: told("down"), "the event")
                eventually(lambda: "NO-CARRIER" in flags(one), "a pod without a carrier")
                eventually(lambda: "pod1" not in {entry.port for entry in switch.fdb}, "nobody behind pod1")
                assert not two.ping(one, timeout=0.2)
                switch.set_carrier("pod1", True)
                assert switch.ports[0].state == "up"
                eventually(lambda: one.ping(two, timeout=0.5), "an answer")
                assert "NO-CARRIER" not in flags(one)
                eventually(lambda: told("up"), "the event")
        assert links == 3 * [("pod1", "down"), ("pod1", "up")]
        eventually(lambda: "port pod1 is down" in caplog.messages, "a word of it")


@pytest.mark.live
def test_nothing_is_sent_to_a_pod_without_a_carrier() -> None:
    with stage(Topology.of(3, ipv6=None), ports_fail=True) as (lab, switch), wires(lab) as (one, two, three):
        switch.set_carrier("pod1", False)
        eventually(lambda: "pod1" not in {entry.port for entry in switch.fdb}, "nobody behind pod1")
        before = switch.counters().ports["pod1"]
        mark = two.send_in_order([ethernet(one.mac, two.mac, payload=b"fastbridge")])
        assert len(three.heard_before(mark)) == 1  # flooded to those that are there
        assert switch.counters().ports["pod1"] == before


@pytest.mark.live
def test_what_was_on_its_way_leaves_nobody_behind_a_lost_carrier() -> None:
    told: list[str] = []

    def heard(name: str) -> bool:
        told.extend(event["event"] for event in monitor.read() or [] if event["ifname"] == "pod1")
        return name in told

    events = ["link", "learned", "forgotten"]
    with stage(2, ports_fail=True) as (lab, switch), wires(lab) as (one, _), switch.monitor(events) as monitor:
        switch.set_link("pod1", Link(delay="1s"))
        one.send(ethernet(GROUP, one.mac, payload=b"fastbridge"))
        switch.set_carrier("pod1", False)
        eventually(lambda: heard("link"), "the event")
        eventually(lambda: heard("learned"), "the frame")  # it does not stay
        eventually(lambda: heard("forgotten"), "nobody behind pod1")


@pytest.mark.live
@pytest.mark.parametrize("how", ["remove", "stop"])
def test_it_comes_back_with_the_port(how: str) -> None:
    with stage(3, ports_fail=True) as (lab, switch):
        switch.set_carrier("pod1", False)
        if how == "remove":
            switch.remove_port("pod1")
        else:
            switch.stop()
        eventually(lambda: "NO-CARRIER" not in flags(lab["pod1"]), "the carrier")


@pytest.mark.live
def test_a_port_without_a_carrier_is_still_that_switch_s() -> None:
    with stage(2, ports_fail=True) as (lab, switch):
        switch.set_carrier("pod1", False)
        with pytest.raises(PortError, match="pod1 is a port of another switch, in this process"):
            Switch([lab["pod1"].port])


@pytest.mark.live
def test_switched_off_by_somebody_else() -> None:
    with stage(2, ports_fail=True) as (lab, switch):
        lab["pod1"].port.set_down()
        line = "cannot take the carrier from pod1: somebody else has switched it off; ip link set pod1 up"
        with pytest.raises(PortError, match=line):
            switch.set_carrier("pod1", False)
        with pytest.raises(PortError, match="cannot give the carrier back to pod1: somebody else has switched it off"):
            switch.set_carrier("pod1", True)
        lab["pod1"].port.set_up()
        switch.set_carrier("pod1", True)  # nothing to do
        switch.set_carrier("pod1", False)
        lab["pod1"].port.set_up()  # behind the switch's back
        switch.set_carrier("pod1", False)
        eventually(lambda: "NO-CARRIER" in flags(lab["pod1"]), "no carrier")
        lab["pod1"].port.delete()
        with pytest.raises(PortError, match="cannot give the carrier back to pod1: No such device"):
            switch.set_carrier("pod1", True)


@pytest.mark.live
def test_a_forked_child_leaves_the_carriers_alone() -> None:
    with stage(2, ports_fail=True) as (lab, switch):
        switch.set_carrier("pod1", False)
        child = os.fork()
        if not child:
            switch._links.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        eventually(lambda: "NO-CARRIER" in flags(lab["pod1"]), "no carrier")


# -- the host -------------------------------------------------------------------------------------


@pytest.fixture
def host() -> Iterator[Host]:
    with NamespaceHelper() as helper, closing(Host(helper)) as made:
        yield made


def index_of(name: str) -> int:
    with closing(LinkWatch()) as watch:
        link = watch.look(name)
    assert link is not None
    return link.index


@pytest.mark.live
def test_what_the_host_cannot_have_again(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """A next hop object goes with the carrier, and with it the routes that use it."""
    ip("addr add 10.9.0.200/24 dev p1")
    ip("nexthop add id 7 via 10.9.0.201 dev p1")
    ip("route add 203.0.113.0/24 nhid 7")
    ip("route add 198.51.100.0/24 nexthop via 10.9.0.201 dev p1 nexthop via 10.9.0.202 dev p1")
    before = ip("route show 198.51.100.0/24")
    with caplog.at_level(logging.WARNING), Switch(["p1", "p2"]) as switch:
        switch.set_carrier("p1", False)
        switch.set_carrier("p1", True)
        line = "port p1 is up again, without what the host had there: a route (Invalid argument)"
        eventually(lambda: line in caplog.messages, line)
    assert ip("route show 198.51.100.0/24") == before


@pytest.mark.live
def test_only_ethernet_interfaces(host: Host) -> None:
    with closing(Carriers()) as carriers:
        with pytest.raises(OSError, match="it is not an Ethernet interface"):
            carriers.take(index_of("lo"))
        with pytest.raises(OSError, match="No such device"):
            carriers.take(1 << 20)
        carriers.take(index_of("p1"))
        subprocess.run(["ip", "link", "del", "p1"], check=True)  # close() has nothing to put right
