"""Links on real kernels: what pods see of them, what a change does to frames, and what the fast path leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import cycle

import pytest
from accounts import check_fates
from fast import HANDS, fast, know_each_other, pairs, promoted
from frames import ethernet
from host import Host
from live import PATIENCE, eventually, hear_each_other, stage, wires
from meanwhile import meanwhile
from streams import Stream, families

from fastbridge import Lab, Link, Switch, Topology
from fastbridge.lab.namespaces import NamespaceHelper

pytestmark = pytest.mark.live

LINK_REASONS = ("link_loss", "link_queue", "link_cut")


def by_links(switch: Switch) -> int:
    """Frames and copies that links have dropped."""
    total = switch.counters().total
    return sum(drops[reason] for drops in (total.dropped, total.tx_dropped) for reason in LINK_REASONS)


def drained(switch: Switch) -> bool:
    total = switch.counters().total
    return total.rx_in_flight == total.tx_in_flight == switch.link_memory[0] == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_ping_over_a_delay_takes_the_sum_of_both_ways(workers: int) -> None:
    if workers > len(os.sched_getaffinity(0)):
        pytest.skip("one CPU")
    with stage(3, workers=workers) as (lab, switch):
        switch.set_link("pod2", "delay=20ms")
        assert min(lab["pod1"].ping("pod2", count=5, interval=0.01, timeout=PATIENCE).rtts) >= 0.040
        switch.set_links({"pod2": None, ("pod1", "pod2"): "delay=30ms", ("pod3", "pod2"): "delay=50ms"})
        assert min(lab["pod1"].ping("pod2", count=5, interval=0.01, timeout=PATIENCE).rtts) >= 0.030
        assert min(lab["pod3"].ping("pod2", count=5, interval=0.01, timeout=PATIENCE).rtts) >= 0.050
        switch.reset_links()
        assert lab["pod1"].ping("pod2", count=5, interval=0.01, timeout=PATIENCE).received == 5
        eventually(lambda: drained(switch), "nothing in flight")
        assert by_links(switch) == 0 and switch.links == {}


def test_the_links_of_a_lab() -> None:
    with Lab(2, link="delay=20ms") as lab, Switch(lab.ports) as switch:
        assert switch.own_links == {"pod1": Link(delay="20ms"), "pod2": Link(delay="20ms")}
        assert min(lab["pod1"].ping("pod2", timeout=PATIENCE).rtts) >= 0.080


@families
@pytest.mark.parametrize("fast_path", ["off", "auto"])
def test_a_stream_under_links_that_change(family: int, fast_path: str) -> None:
    """Set, changed, taken off: each byte arrives, and no link drops a frame that it was not told to."""
    changes = cycle(["delay=10ms", "delay=50ms", "delay=1ms,jitter=1ms", "delay=5ms,overhead=0", None])
    with stage(2, fast_path=fast_path) as (lab, switch), Stream(lab["pod1"], lab["pod2"], family) as stream:

        def change() -> None:
            link = next(changes)
            switch.set_links({"pod1": link, "pod2": link, ("pod1", "pod2"): link and Link.parse(link)})

        with meanwhile(change, pause=0.02):
            stream.exchange(8)
        switch.reset_links()
        eventually(lambda: drained(switch), "nothing in flight")
        assert by_links(switch) == 0


def test_frames_keep_their_order_when_links_change() -> None:
    with stage(2, fast_path="off") as (lab, switch), wires(lab) as (one, two):
        hear_each_other([one, two])
        for link in ("delay=30ms", "delay=5ms", "delay=20ms,rate=100mbit", None, "delay=1ms", None) * 3:
            switch.set_link("pod2", link)
            for n in range(10):  # all together they fit the hearer's receive buffer
                one.send(ethernet(two.mac, one.mac, payload=b"fastbridge %d" % n))
        heard = two.heard_before(one.mark())
        numbers = [int(frame.split(b"fastbridge ")[1].split(b"\0")[0]) for frame in heard]
        assert numbers == list(range(10)) * 18
        eventually(lambda: drained(switch), "nothing in flight")


def test_a_cut_is_silent_and_a_partition_heals() -> None:
    with stage(Topology.of(3, ipv6=None)) as (lab, switch):

        def reaches(one: str, other: str) -> None:
            eventually(lambda: lab[one].ping(other, timeout=1), f"{one} reaches {other}")

        reaches("pod1", "pod2")
        switch.cut("pod2")
        assert not lab["pod1"].ping("pod2", timeout=1)
        assert "LOWER_UP" in lab["pod2"].run(["ip", "link", "show", "eth0"], stdout=subprocess.PIPE, text=True).stdout
        switch.mend("pod2")
        reaches("pod1", "pod2")
        switch.partition([["pod1"]])
        assert not lab["pod1"].ping("pod2", timeout=1)
        reaches("pod2", "pod3")
        switch.heal()
        reaches("pod1", "pod2")
        assert by_links(switch) > 0


def test_frames_in_flight_when_ports_go_and_at_the_end() -> None:
    pods = Topology.of(3, ipv6=None)  # which say nothing of their own accord
    with Lab(pods) as lab, Switch(lab.ports, fast_path="off") as switch, wires(lab) as (one, two, three):
        hear_each_other([one, two, three])
        switch.set_links({"pod2": "delay=30s", "pod3": "delay=30s"})
        for to in (two, three):
            for n in range(10):
                one.send(ethernet(to.mac, one.mac, payload=b"%d" % n))
        eventually(lambda: switch.counters().total.tx_in_flight >= 20, "frames in flight")
        switch.remove_port("pod2")
        counters = switch.counters()
        assert counters.total.tx_dropped["link_cut"] >= 10 and "pod2" not in {str(place) for place in switch.links}
        assert counters.ports["pod3"].tx_in_flight >= 10
        switch.stop()
        final = switch.counters()
        assert (
            final.total.tx_in_flight == final.total.rx_in_flight == 0
            and final.ports["pod3"].tx_dropped["link_cut"] >= 10
        )
        check_fates(final)


@HANDS
def test_ports_with_links_are_the_core_s_until_these_are_gone(hand: str) -> None:
    with fast(hand) as (lab, switch):
        know_each_other(lab, switch)
        know_each_other(lab, switch, "pod1", "pod3")
        index = switch._index_of("pod2")
        switch.set_link("pod2", "delay=20ms")
        assert pairs(switch) and not any(index in (pair.ingress, egress) for pair, egress in pairs(switch).items())
        before = switch.counters().total.fast
        assert min(lab["pod1"].ping("pod2", count=20, interval=0.005, family=4, timeout=PATIENCE).rtts) >= 0.040
        assert switch.counters().total.fast == before
        assert not any(index in (pair.ingress, egress) for pair, egress in pairs(switch).items())
        switch.set_link("pod2", None)
        know_each_other(lab, switch)
        switch.set_link(("pod1", "pod2"), "delay=20ms")  # a pair slows the port that it leads to
        assert min(lab["pod1"].ping("pod2", count=5, interval=0.005, family=4, timeout=PATIENCE).rtts) >= 0.020
        assert not any(index in (pair.ingress, egress) for pair, egress in pairs(switch).items())
        switch.partition([["pod3"]])
        assert promoted(switch) == 0
        switch.reset_links()
        know_each_other(lab, switch)
        know_each_other(lab, switch, "pod1", "pod3")


@pytest.fixture
def host() -> Iterator[Host]:
    with NamespaceHelper() as helper, closing(Host(helper)) as made:
        yield made


@pytest.mark.parametrize("match", [(), ("p*",)], ids=["named", "matched"])
def test_an_interface_made_again_has_its_link_again(host: Host, match: tuple[str, ...]) -> None:
    with Switch([] if match else ["p1", "p2", "p3"], match=match) as switch:
        assert host.ping(1, 2)
        switch.set_links({"p1": "delay=20ms", ("p3", "p1"): "delay=30ms"})
        switch.cut("p1", direction="from_pod")
        host.links.delete("p1")
        eventually(lambda: {port.name: port.state for port in switch.ports}.get("p1", "gone") == "gone", "p1 gone")
        assert switch.own_links == {"p1": Link(delay="20ms"), ("p3", "p1"): Link(delay="30ms")}
        host.connect(1)
        eventually(lambda: any(port == ("p1", "up") for port in ((p.name, p.state) for p in switch.ports)), "p1 again")
        links = switch.links
        assert links["p1"].cut == ("from_pod",) and links["p1"].counts.keys() == {"to_pod", "from_pod"}
        assert links[("p3", "p1")].counts.keys() == {"to_pod"}
        switch.mend("p1")
        assert host.ping(1, 2)
        switch.remove_port("p1")
        assert switch.links == {}


def test_a_forked_child_has_no_links_of_its_parent() -> None:
    script = """
import os
from fastbridge import ConfigError, Lab, Switch
with Lab(2) as lab, Switch(lab.ports) as switch:
    switch.set_link("pod1", "delay=20ms")
    assert lab["pod1"].ping("pod2", timeout=60)
    if not (pid := os.fork()):
        try:
            switch.set_link("pod1", None)
        except ConfigError as error:
            switch.stop()
            os._exit(0 if "forked child" in str(error) else 3)
        os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert min(lab["pod1"].ping("pod2", timeout=60).rtts) >= 0.040 and switch.links
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=180)
    assert (done.returncode, done.stderr) == (0, "")
