"""Loss under load is stated: each frame sent is delivered or counted; and one loud port cannot starve another."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from frames import GROUP, ethernet
from gso import gso_frame
from live import PATIENCE, check_accounts, eventually, seen, wires

from fastbridge import Lab, Switch, Topology
from fastbridge.core.dataplane import TX_REASON_NAMES, Dataplane
from fastbridge.core.mac_table import MacTable
from fastbridge.switch.io_modes import IO_MODES

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
def quiet_lab(
    pods: int, *, small: bool = False, started: bool = True, io: str = "ring"
) -> Iterator[tuple[Lab, Switch]]:
    """A lab in which nobody speaks by himself; small: with the shortest rings (128 frames), or little to wait in."""
    with pytest.MonkeyPatch.context() as patch, Lab(Topology.of(pods, ipv6=None)) as lab:
        if small:
            mode = IO_MODES[io]
            patch.setattr("fastbridge.switch.live.find_io_mode", lambda name: replace(mode, most=mode.fewest))
            if not mode.slot:
                patch.setattr("fastbridge.switch.port_socket._BUFFER_BYTES", 64 << 10)
        switch = Switch(lab.ports, loop_detection=False, io=io)
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


pytestmark = pytest.mark.live
modes = pytest.mark.parametrize("io", IO_MODES)


@modes
@pytest.mark.parametrize("pods", [2, 8])
def test_overload_of_a_running_switch_is_accounted_for_to_the_frame(pods: int, io: str) -> None:
    with quiet_lab(pods, small=True, io=io) as (lab, switch):
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
        done = threading.Event()

        def hinder() -> None:
            while not done.is_set():
                switch.fdb.learn_many(range(2, 200_002, 2), "pod1", vlan=5)

        thread = threading.Thread(target=hinder)
        thread.start()
        assert storm(lab, "pod1", ethernet(UNKNOWN, X), 30_000).wait() == 0
        done.set()
        thread.join()
        sent = offered_by(lab, "pod1")
        eventually(lambda: seen(switch, "pod1") == sent, "the account of every frame")
        total = switch.counters().total
        assert heard_by(lab, ["pod2"]) + sum(total.tx_dropped.values()) + total.rx_missed == sent


@modes
@pytest.mark.parametrize("end", ["remove", "stop"])
@pytest.mark.parametrize("count", [5, 20_000])
def test_frames_nobody_will_read_any_more_are_counted(count: int, end: str, io: str) -> None:
    """A switch that never ran: what its ring took and what it did not are both missed."""
    with quiet_lab(2, small=True, started=False, io=io) as (lab, switch), wires(lab) as (one, _):
        for n in range(count):
            one.send(ethernet(GROUP, one.mac, payload=b"fastbridge %d" % n))
        if end == "remove":
            switch.remove_port("pod1")
        else:
            switch.stop()
        total = switch.counters().total
        assert (total.rx_frames, total.rx_missed) == (0, count)


@modes
@pytest.mark.parametrize("end", ["remove", "stop"])
def test_frames_behind_those_that_were_read_are_counted(end: str, io: str) -> None:
    """Small ones and large ones, which take other ways; what was read is not counted again."""
    with quiet_lab(2, io=io) as (lab, switch), wires(lab) as (one, _):
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
        if end == "remove":
            switch.remove_port("pod1")
        else:
            switch.stop()
        for _ in range(2):  # the second time nothing is new
            total = switch.counters().total
            assert (total.rx_frames, total.flooded, total.rx_missed) == (20, 20, 14)
            switch.stop()


@modes
def test_losses_stay_on_record_when_the_port_is_removed_and_replaced(io: str) -> None:
    with quiet_lab(2, small=True, io=io) as (lab, switch):
        for round_ in range(3):
            frame = ethernet(UNKNOWN, X, payload=b"fastbridge round %d" % round_)
            assert storm(lab, "pod1", frame, 20_000).wait() == 0
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
            dataplane.process(0, frames, 0)  # returns: nothing waits for the buffer
            sent += len(frames)
            heard = list(received(theirs))
            delivered += len(heard)
            assert heard and heard == [frame for frame in frames if frame in set(heard)]  # in order, none twice
            (counts, _, tx_dropped) = dataplane.snapshot()[0][1]
            full = dict(zip(TX_REASON_NAMES, tx_dropped, strict=True))["full"]
            assert full == sum(tx_dropped) > 0
            assert (counts[6], counts[6] + full) == (delivered, sent)


def received(sock: socket.socket) -> Iterator[bytes]:
    """What waits there, behind its vnet header."""
    while True:
        try:
            yield sock.recv(65_536)[10:]
        except BlockingIOError:
            return


# One loud port.


@modes
def test_of_two_full_rings_neither_waits_for_the_other(io: str) -> None:
    """A burst is 64 frames: as many of the loud port's come before the other's first one, and no more."""
    with quiet_lab(3, started=False, io=io) as (lab, switch), wires(lab) as (one, loud, three):
        switch.fdb.add(three.mac, "pod3")
        for n in range(2_000):
            loud.send(ethernet(three.mac, loud.mac, payload=b"fastbridge loud %d" % n))
        quiet = [ethernet(three.mac, one.mac, payload=b"fastbridge quiet %d" % n) for n in range(3)]
        for frame in quiet:
            one.send(frame)
        time.sleep(0.1)  # in mode "blocks" the last ones wait for a timer of some milliseconds
        switch.start()
        heard = []
        while quiet[-1] not in heard:
            frame, _ = three.receive()
            heard += [frame] if b"fastbridge" in frame else []
        assert len(heard) <= 64 + len(quiet)


@pytest.mark.parametrize("what", ["known unicast", "broadcast"])
@modes
def test_one_loud_port_starves_nobody(what: str, io: str) -> None:
    with quiet_lab(6, io=io) as (lab, switch):
        assert lab["pod1"].ping("pod2", timeout=PATIENCE)
        switch.fdb.add(UNKNOWN, "pod4")
        frame = ethernet(GROUP if what == "broadcast" else UNKNOWN, X)
        with storm(lab, "pod3", frame, 1 << 40) as loud:
            try:
                eventually(lambda: seen(switch, "pod3") > 20_000, "the storm")
                result = lab["pod1"].ping("pod2", count=50, interval=0.02, timeout=PATIENCE)
                counters = switch.counters()
            finally:
                loud.kill()
        assert counters.ports["pod1"].rx_missed == counters.ports["pod2"].rx_missed == 0
        assert result.received == 50


@pytest.mark.slow
def test_one_loud_port_of_many_starves_nobody() -> None:
    """Each of its frames is flooded to 299 ports; a breath ends before it has made many copies of them."""
    with quiet_lab(300) as (lab, switch):
        assert lab["pod1"].ping("pod2", timeout=PATIENCE)
        with storm(lab, "pod3", ethernet(GROUP, X), 1 << 40) as loud:
            try:
                eventually(lambda: seen(switch, "pod3") > 1_000, "the storm")
                result = lab["pod1"].ping("pod2", count=20, interval=0.05, timeout=PATIENCE)
                counters = switch.counters()
            finally:
                loud.kill()
        assert result.received == 20
        assert counters.ports["pod1"].rx_missed == counters.ports["pod2"].rx_missed == 0
