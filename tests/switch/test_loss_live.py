"""Loss under load is stated: each frame sent is delivered or counted; and one loud port cannot starve another."""

from __future__ import annotations

import errno
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from frames import GROUP, ethernet
from gso import gso_frame
from live import PATIENCE, came_in, check_accounts, eventually, heard_by_a_mark, seen, wires
from meanwhile import meanwhile

from fastbridge import Lab, Switch, Topology
from fastbridge.core.dataplane import Dataplane
from fastbridge.core.mac_table import MacTable
from fastbridge.core.memory_ports import MemoryPorts
from fastbridge.lab.links import Links
from fastbridge.switch.ring_size import FEWEST

IFF_RUNNING = 0x40
X, UNKNOWN = 0x02_00_00_00_FF_01, 0x02_00_00_00_FF_99

STORM = """
import socket, sys
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sock.bind(("eth0", 0))
frame = bytes.fromhex(sys.argv[1])
for _ in range(int(sys.argv[2])):
    sock.send(frame)
"""


@contextmanager
def quiet_lab(pods: int, *, small: bool = False, started: bool = True) -> Iterator[tuple[Lab, Switch]]:
    """A lab in which nobody speaks by himself; small: with the shortest rings (128 frames)."""
    with pytest.MonkeyPatch.context() as patch, Lab(Topology.of(pods, ipv6=None)) as lab:
        if small:
            patch.setattr("fastbridge.switch.opening.MOST", FEWEST)
        switch = Switch(lab.ports, loop_detection=False)
        try:
            if started:
                switch.start()
            yield lab, switch
        finally:
            switch.stop()


def heard_by(lab: Lab, names: list[str]) -> int:
    """What the kernel says that the pods' interfaces have received."""
    return sum(lab[name].counters().rx_frames for name in names)


def offered_by(lab: Lab, name: str) -> int:
    """What the kernel says that has reached the pod's host end."""
    return lab[name].counters().tx_frames


def storm(lab: Lab, name: str, frame: bytes, count: int) -> Any:
    return lab[name].popen([sys.executable, "-c", STORM, frame.hex(), str(count)])


pytestmark = [pytest.mark.live, pytest.mark.core_path]


@pytest.mark.parametrize("pods", [2, 8])
def test_overload_of_a_running_switch_is_accounted_for_to_the_frame(pods: int) -> None:
    with quiet_lab(pods, small=True) as (lab, switch):
        assert storm(lab, "pod1", ethernet(UNKNOWN, X), 50_000).wait() == 0
        sent = offered_by(lab, "pod1")
        assert sent + lab["pod1"].counters().tx_dropped >= 50_000
        eventually(lambda: seen(switch, "pod1") == sent, "the account of every frame")
        port, total = switch.counters().ports["pod1"], switch.counters().total
        assert port.rx_frames == port.flooded
        copies = port.flooded * (pods - 1)
        assert total.tx_frames + sum(total.tx_dropped.values()) == copies
        others = [pod.name for pod in lab][1:]
        assert heard_by(lab, others) == total.tx_frames
        check_accounts(switch)


def test_overload_of_a_switch_that_pauses_is_accounted_for_to_the_frame() -> None:
    """Paused: its thread waits for the mutex's next holder, as here; so its ring runs full again and again."""
    with quiet_lab(2, small=True) as (lab, switch):
        with meanwhile(lambda: switch.fdb.learn_many(range(2, 200_002, 2), "pod1", vlan=5)):
            assert storm(lab, "pod1", ethernet(UNKNOWN, X), 30_000).wait() == 0
        sent = offered_by(lab, "pod1")
        eventually(lambda: seen(switch, "pod1") == sent, "the account of every frame")
        total = switch.counters().total
        assert heard_by(lab, ["pod2"]) + sum(total.tx_dropped.values()) + total.rx_missed == sent


@pytest.mark.parametrize("end", ["remove", "stop"])
@pytest.mark.parametrize("count", [5, 20_000])
def test_frames_nobody_will_read_any_more_are_counted(count: int, end: str) -> None:
    """A switch that never ran: what its ring took and what it did not are both missed."""
    with quiet_lab(2, small=True, started=False) as (lab, switch), wires(lab) as (one, _):
        for n in range(count):
            one.send(ethernet(GROUP, one.mac, payload=b"fastbridge %d" % n))
        eventually(lambda: came_in(switch, "pod1") == count, "the last frame")
        if end == "remove":
            switch.remove_port("pod1")
        else:
            switch.stop()
        total = switch.counters().total
        assert (total.rx_frames, total.rx_missed) == (0, count)


@pytest.mark.parametrize("end", ["remove", "stop"])
def test_frames_behind_those_that_were_read_are_counted(end: str) -> None:
    """Small ones and large ones, which take other ways; what was read is not counted again."""
    with quiet_lab(2) as (lab, switch), wires(lab) as (one, _):
        large = gso_frame(GROUP, one.mac, b"", 4, 60_000)
        small = ethernet(GROUP, one.mac, payload=b"fastbridge")
        for _ in range(10):
            one.send(*large)
            one.send(small)
        eventually(lambda: seen(switch, "pod1") == 20, "20 frames")
        switch._halt()
        for _ in range(7):
            one.send(small)
            one.send(*large)
        eventually(lambda: came_in(switch, "pod1") == 34, "34 frames")
        if end == "remove":
            switch.remove_port("pod1")
        else:
            switch.stop()
        for _ in range(2):  # the second time nothing is new
            total = switch.counters().total
            assert (total.rx_frames, total.flooded, total.rx_missed) == (20, 20, 14)
            switch.stop()


def test_losses_stay_on_record_when_the_port_is_removed_and_replaced() -> None:
    with quiet_lab(2, small=True) as (lab, switch):
        for round_ in range(3):
            frame = ethernet(UNKNOWN, X, payload=b"fastbridge round %d" % round_)
            before = offered_by(lab, "pod1")
            assert storm(lab, "pod1", frame, 20_000).wait() == 0
            eventually(lambda base=before: came_in(switch, "pod1") == offered_by(lab, "pod1") - base, "the last frame")  # type: ignore[misc]
            switch.remove_port("pod1")
            # The port is gone and so is what came after; of what came before nothing is left open.
            total = switch.counters().total
            sent = offered_by(lab, "pod1")
            assert total.rx_frames + total.rx_missed == sent
            assert "pod1" not in switch.counters().ports
            switch.add_port(lab["pod1"].port)
        total = switch.counters().total
        assert heard_by(lab, ["pod2"]) == total.tx_frames == total.flooded - sum(total.tx_dropped.values())
        assert lab["pod1"].ping("pod2", timeout=PATIENCE)


@pytest.mark.parametrize("room", [1, 10, 100])
def test_a_full_send_buffer_is_tried_again_a_few_times_and_then_counted(room: int) -> None:
    """The port's TX socket is one whose other end reads nothing, so that it is full for certain, and for long."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        dataplane = Dataplane(MacTable(100, None))
        ports = dataplane.add_port(), dataplane.add_port((), ours.fileno())
        for port in ports:
            dataplane.set_blocked(port, False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room * 1_024)
        theirs.setblocking(False)
        sent = delivered = 0
        for round_ in range(5):
            frames = [ethernet(GROUP, X, payload=b"fastbridge %d %d" % (round_, n)) for n in range(700)]
            MemoryPorts(dataplane).process(0, frames, 0)  # returns: nothing waits for the buffer
            sent += len(frames)
            heard = list(received(theirs))
            delivered += len(heard)
            assert heard and heard == [frame for frame in frames if frame in set(heard)]  # in order, none twice
            counts = dataplane.snapshot()[0][1]
            full = counts["tx_dropped"]["full"]
            assert full == sum(counts["tx_dropped"].values()) > 0
            assert (counts["tx_frames"], counts["tx_frames"] + full) == (delivered, sent)


def received(sock: socket.socket) -> Iterator[bytes]:
    """What waits there, behind its vnet header."""
    while True:
        try:
            yield sock.recv(65_536)[10:]
        except BlockingIOError:
            return


# What is lost after a send that succeeded.


def lost(switch: Switch, name: str, reason: str) -> int:
    return switch.counters().ports[name].tx_dropped[reason]


def station(pod: Any) -> int:
    return int(pod.mac)


def is_running(lab: Lab, name: str) -> bool:
    """Whether the kernel makes use of a host end's carrier: it takes a while to hear of a change."""
    with Links(lab.namespace) as links:
        return bool(links.flags(name) & IFF_RUNNING)


def unicast(lab: Lab, wire: Any, name: str, count: int, size: int = 60) -> None:
    for n in range(count):
        wire.send(ethernet(station(lab[name]), wire.mac, payload=(b"fastbridge %d " % n).ljust(size, b".")))


def test_a_frame_lost_without_a_carrier_was_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the switch hears that the far end is down, the kernel takes what is sent, and drops it."""
    monkeypatch.setattr(Switch, "_follow_links", lambda self, before: before)
    with quiet_lab(3) as (lab, switch), wires(lab) as (one, two, three):
        switch.fdb.add(station(lab["pod2"]), "pod2")
        lab["pod2"].set_down()
        # Before that it refuses what is sent, and says so.
        eventually(lambda: not is_running(lab, "pod2"), "a kernel that has heard of it")
        unicast(lab, one, "pod2", 10)
        three.heard_before(one.mark())
        eventually(lambda: lost(switch, "pod2", "device") == 11, "10 frames and the mark")
        before = switch.counters()
        assert before.ports["pod2"].tx_frames == 0
        assert before.total.tx_dropped["device"] == 11
        check_accounts(switch)
        lab["pod2"].set_up()
        eventually(lambda: is_running(lab, "pod2"), "a carrier that the kernel makes use of")
        assert two.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ENETDOWN  # reading clears it
        two.heard_before(one.mark())
        assert (lost(switch, "pod2", "device"), switch.counters().ports["pod2"].tx_frames) == (11, 1)
        switch.remove_port("pod2")
        assert switch.counters().total.tx_dropped["device"] == 11
        switch.add_port(lab.ports[1])
        assert lost(switch, "pod2", "device") == 0  # what was before is not its own
        assert switch.counters().total.tx_dropped["device"] == 11
    assert switch.counters().total.tx_dropped["device"] == 11


@pytest.mark.parametrize("queue", ["noqueue", "pfifo"])
def test_what_the_pods_end_refuses_is_counted_once(queue: str) -> None:
    """Within the send, where there is no queue: the kernel says so at once. Behind a queue it tells nobody."""
    with quiet_lab(3) as (lab, switch), wires(lab) as (one, _, three):
        if queue != "noqueue":
            set_queue(lab, "pod2", queue)
        with Links(lab["pod2"].namespace) as links:
            links.set("eth0", mtu=1000)
        switch.fdb.add(station(lab["pod2"]), "pod2")
        heard = lab["pod2"].counters().rx_frames
        unicast(lab, one, "pod2", 10, 1400)
        unicast(lab, one, "pod2", 5)
        three.heard_before(one.mark())
        eventually(lambda: lab["pod2"].counters().rx_frames - heard == 6, "what is short")
        port = switch.counters().ports["pod2"]
        assert {reason: count for reason, count in port.tx_dropped.items() if count} == {
            "no_buffer" if queue == "noqueue" else "device": 10
        }
        assert port.tx_frames == 6
        check_accounts(switch)


def test_losses_of_a_port_that_is_gone_stay_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Switch, "_let_go", lambda self: None)
    with quiet_lab(3) as (lab, switch), wires(lab) as (one, _, three):
        set_queue(lab, "pod2", "pfifo")
        with Links(lab["pod2"].namespace) as links:
            links.set("eth0", mtu=1000)
        switch.fdb.add(station(lab["pod2"]), "pod2")
        unicast(lab, one, "pod2", 10, 1400)
        three.heard_before(one.mark())
        eventually(lambda: lab["pod2"].port.counters().tx_dropped == 10, "the kernel's word")
        lab["pod2"].port.delete()
        eventually(lambda: {port.name: port.state for port in switch.ports}["pod2"] == "gone", "its end")
        eventually(lambda: lost(switch, "pod2", "device") == 10, "its last words")
        switch.remove_port("pod2")
        assert switch.counters().total.tx_dropped["device"] == 10


def test_a_queue_that_shapes_gets_single_frames() -> None:
    """It counts frames, and would hold 64 KB ones as it does small ones; whether it was there before, or comes."""
    with Lab(Topology.of(2, ipv6=None)) as lab:
        set_queue(lab, "pod2", "pfifo")
        with Switch(lab.ports, loop_detection=False) as switch, wires(lab) as (one, two):

            def longest() -> int:
                one.send(*gso_frame(station(lab["pod2"]), one.mac, b"", 4, 20_000))
                heard = heard_by_a_mark(one, two, lab["pod2"].mac.packed)
                assert sum(map(len, heard)) > 20_000
                return max(map(len, heard))

            assert longest() <= 1514
            lab.run_host(["tc", "qdisc", "del", "dev", "pod2", "root"])
            eventually(lambda: longest() > 20_000, "whole frames")
            set_queue(lab, "pod2", "tbf", "rate", "1gbit", "burst", "100k", "latency", "1s")
            eventually(lambda: longest() <= 1514, "single frames")
            check_accounts(switch)


def test_what_a_queue_drops_by_itself_was_not_sent() -> None:
    """pfifo_head_drop takes a frame and loses an older one, which it tells nobody; tbf says so within the send."""
    slow = ("tbf", "rate", "8kbit", "burst", "2k", "limit")
    with Lab(Topology.of(3, ipv6=None)) as lab, wires(lab) as (one, _, three):
        set_queue(lab, "pod2", *slow, "100k", parent="root handle 1:")
        set_queue(lab, "pod2", "pfifo_head_drop", "limit", "5", parent="parent 1:1")
        with Switch(lab.ports, loop_detection=False) as switch:
            switch.fdb.add(station(lab["pod2"]), "pod2")
            unicast(lab, one, "pod2", 30, 1000)
            three.heard_before(one.mark())
            port = switch.counters().ports["pod2"]
            assert sum(port.tx_dropped.values()) == port.tx_dropped["device"] > 20
            assert port.tx_frames + port.tx_dropped["device"] == 31
            check_accounts(switch)
        with Switch(lab.ports, loop_detection=False) as switch:
            assert lost(switch, "pod2", "device") == 0  # what was lost before is not its own
            switch.fdb.add(station(lab["pod2"]), "pod2")
            set_queue(lab, "pod2", *slow, "2k", parent="root handle 2:")
            unicast(lab, one, "pod2", 30, 1000)
            three.heard_before(one.mark())
            port = switch.counters().ports["pod2"]
            assert sum(port.tx_dropped.values()) == port.tx_dropped["no_buffer"] > 20
            check_accounts(switch)


def test_few_frames_wait_before_a_queue_that_shapes() -> None:
    """What waits in our buffer waits in vain, and all that comes later behind it."""
    with Lab(Topology.of(3, ipv6=None)) as lab:
        set_queue(lab, "pod2", "tbf", "rate", "8kbit", "burst", "2k", "limit", "100mb")
        with Switch(lab.ports, loop_detection=False) as switch, wires(lab) as (one, _, three):
            switch.fdb.add(station(lab["pod2"]), "pod2")
            unicast(lab, one, "pod2", 1000, 1000)
            three.heard_before(one.mark())
            port = switch.counters().ports["pod2"]
            assert port.tx_frames + port.tx_dropped["full"] + port.tx_dropped["costly"] == 1001
            assert port.tx_dropped["full"] > 0
            assert 0 < port.tx_frames < 200
            check_accounts(switch)


def set_queue(lab: Lab, name: str, *discipline: str, parent: str = "root") -> None:
    """Give a host end a queueing discipline."""
    if shutil.which("tc") is None:
        pytest.skip("no tc on this machine")
    done = lab.run_host(["tc", "qdisc", "replace", "dev", name, *parent.split(), *discipline], check=False)
    if "qdisc kind is unknown" in done.stderr:
        pytest.skip(f"this kernel has no {discipline[0]}")
    assert done.returncode == 0, done.stderr


# One loud port.


def test_of_two_full_rings_neither_waits_for_the_other() -> None:
    """A burst is 64 frames: as many of the loud port's come before the other's first one, and no more."""
    with quiet_lab(3, started=False) as (lab, switch), wires(lab) as (one, loud, three):
        switch.fdb.add(three.mac, "pod3")
        for n in range(2_000):
            loud.send(ethernet(three.mac, loud.mac, payload=b"fastbridge loud %d" % n))
        quiet = [ethernet(three.mac, one.mac, payload=b"fastbridge quiet %d" % n) for n in range(3)]
        for frame in quiet:
            one.send(frame)
        switch.start()
        heard = []
        while quiet[-1] not in heard:
            frame, _ = three.receive()
            heard += [frame] if b"fastbridge" in frame else []
        assert len(heard) <= 64 + len(quiet)


def talk_beside_a_storm(lab: Lab, switch: Switch, frame: bytes, *, beyond: int, count: int) -> None:
    """pod3 storms. After so many of its frames pod1 pings pod2 for a second, and loses nothing."""
    with storm(lab, "pod3", frame, 1 << 40) as loud:
        try:
            eventually(lambda: seen(switch, "pod3") > beyond, "the storm")
            result = lab["pod1"].ping("pod2", count=count, interval=1 / count, timeout=PATIENCE)
            counters = switch.counters()
        finally:
            loud.kill()
    assert result.received == count
    assert counters.ports["pod1"].rx_missed == counters.ports["pod2"].rx_missed == 0


@pytest.mark.both_paths
@pytest.mark.parametrize("what", ["known unicast", "broadcast"])
def test_one_loud_port_starves_nobody(what: str) -> None:
    with quiet_lab(6) as (lab, switch):
        assert lab["pod1"].ping("pod2", timeout=PATIENCE)
        switch.fdb.add(UNKNOWN, "pod4")
        frame = ethernet(GROUP if what == "broadcast" else UNKNOWN, X)
        talk_beside_a_storm(lab, switch, frame, beyond=20_000, count=50)


@pytest.mark.slow
def test_one_loud_port_of_many_starves_nobody() -> None:
    """Each of its frames is flooded to 299 ports; a breath ends before it has made many copies of them."""
    with quiet_lab(300) as (lab, switch):
        assert lab["pod1"].ping("pod2", timeout=PATIENCE)
        talk_beside_a_storm(lab, switch, ethernet(GROUP, X), beyond=1_000, count=20)
