"""A switch while its surroundings change: hands on the FDB, ports coming and going, labs and processes ending."""

from __future__ import annotations

import mmap
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from accounts import check_fates
from effort import few
from frames import GROUP, ethernet
from live import PATIENCE, Wire, eventually, hear_each_other, stage, wires
from meanwhile import meanwhile
from pyroute2 import IPRoute

import fastbridge
from fastbridge import ConfigError, Lab, PortError, Switch
from fastbridge.lab.links import Links
from fastbridge.policy.runner import Policing

pytestmark = pytest.mark.live

X = 0x02_00_00_00_FF_01


def bursts(count: int) -> Iterator[list[bytes]]:
    for burst in range(count):
        yield [ethernet(GROUP, X, payload=b"fastbridge %d %d" % (burst, n)) for n in range(50)]


def test_every_snapshot_adds_up_while_frames_pass() -> None:
    with stage(3) as (lab, switch), wires(lab) as (one, two, three):
        hear_each_other([one, two, three])

        def look() -> None:
            counters = switch.counters()
            total = counters.total
            check_fates(counters)
            copies = total.tx_frames + sum(total.tx_dropped.values())
            assert copies == total.forwarded + 2 * total.flooded

        with meanwhile(look, pause=0.001):
            for burst in bursts(100):
                mark = one.send_in_order(burst)
                assert two.heard_before(mark) == burst
                assert three.heard_before(mark) == burst


def test_hands_on_the_fdb_and_the_trace_while_frames_pass() -> None:
    with stage(3) as (lab, switch), wires(lab) as (one, two, three):
        hear_each_other([one, two, three])

        def meddle() -> None:
            for mac in range(0x02_00_00_01_00_00, 0x02_00_00_01_00_40):
                switch.fdb.add(mac, "pod2")
            assert len(switch.fdb) >= 64
            with switch.trace(snap=20, limit=8) as trace:
                assert all(len(event.frame) <= 20 for event in trace.read(0.01))
            for mac in range(0x02_00_00_01_00_00, 0x02_00_00_01_00_40):
                assert switch.fdb.remove(mac)
            switch.fdb.flush("pod1")
            switch.fdb.flush()

        with meanwhile(meddle, pause=0.001):
            for burst in bursts(100):
                assert two.heard_before(one.send_in_order(burst)) == burst


def test_busy_polling_stays_awake_and_otherwise_it_sleeps() -> None:
    with Lab(2) as lab:
        with Switch(lab.ports, busy_poll=60.0):
            begin, before = time.monotonic(), time.process_time()
            eventually(lambda: time.process_time() - before > 0.3, "0.3 s of CPU time to be used by doing nothing")
            as_long = time.monotonic() - begin
        with Switch(lab.ports, busy_poll=0.0):
            before = time.process_time()
            time.sleep(as_long)
            assert time.process_time() - before < max(0.06, 0.1 * as_long)  # beside others 0.3 s of CPU take seconds


@pytest.mark.parametrize("rounds", few(1, [3, 12]))
def test_a_port_comes_and_goes_while_frames_pass(rounds: int) -> None:
    with Lab(3) as lab, Switch(lab.ports, capacity=1 << 18) as switch, wires(lab) as (one, two, three):
        hear_each_other([one, two, three])
        stations = np.arange(X, X + 200_000, dtype=np.uint64)  # so that it takes a while to forget a port
        assert switch.fdb.learn_many(stations, "pod2") == len(stations)

        def replug() -> None:
            switch.remove_port("pod3")
            assert len(switch.ports) == 2
            switch.add_port(lab["pod3"].port)

        sent = 0
        with meanwhile(replug, pause=0.001):
            for burst in bursts(rounds):
                assert two.heard_before(one.send_in_order(burst)) == burst
                for _ in range(100):
                    before, sent = sent, switch.counters().total.tx_frames
                    assert before <= sent  # also while what a port counted becomes that of a departed one
        total = switch.counters().total  # what passed a port that is gone still counts
        assert total.rx_frames == total.forwarded + total.flooded + sum(total.dropped.values())
        assert lab["pod1"].ping("pod3", timeout=PATIENCE)


def test_what_goes_with_a_port_is_not_its_successor_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that comes gets the index of one that goes only when all about that one is forgotten."""
    forget, going, go = Policing.remove_port, threading.Event(), threading.Event()

    def slowly(self: Policing, index: int) -> None:
        going.set()
        assert go.wait(PATIENCE)
        forget(self, index)

    with Lab(3) as lab, Switch(lab.ports, policy="guard=strict,suppress", trusted=True) as switch:
        monkeypatch.setattr(Policing, "remove_port", slowly)
        before = sorted(str(neighbour.ip) for neighbour in switch.neighbours)
        removal = threading.Thread(target=switch.remove_port, args=["pod3"])
        addition = threading.Thread(target=switch.add_port, args=[lab["pod3"].port])
        removal.start()
        assert going.wait(PATIENCE)
        addition.start()
        addition.join(0.2)  # as far as it comes
        go.set()
        removal.join()
        addition.join()
        assert sorted(str(neighbour.ip) for neighbour in switch.neighbours) == before
        assert lab["pod1"].ping("pod3", timeout=PATIENCE)


WAITING, GO, ANSWERED, SILENCE = 1, 2, 3, 4
PING_FOR_ITSELF = f"""
import mmap, os, socket, sys, time
flag = mmap.mmap(os.open(sys.argv[1], os.O_RDWR), 1)
sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
sock.settimeout(2)
sock.connect((sys.argv[2], 0))

def answered():
    for _ in range(10):  # a busy machine may lose one
        sock.send(bytes([8, 0, 0xF7, 0xFF, 0, 0, 0, 0]))  # an echo request
        try:
            return sock.recv(1000)
        except TimeoutError:
            pass

flag[0] = {WAITING}
while True:
    while flag[0] != {GO}:
        time.sleep(0.001)
    flag[0] = {ANSWERED} if all(answered() for _ in range(20)) else {SILENCE}
"""


@pytest.mark.parametrize(
    "ask",
    [
        lambda _: None,  # to show that the test itself is sound
        lambda switch: switch.counters(),
        lambda switch: switch.ports,
        lambda switch: switch.fdb.lookup(X),
        lambda switch: list(switch.fdb),
        lambda switch: switch.fdb.add(X, "pod1"),
        lambda switch: switch.fdb.remove(X),
        lambda switch: switch.fdb.flush(),
    ],
    ids=["nothing", "counters", "ports", "lookup", "iterate", "add", "remove", "flush"],
)
def test_the_data_plane_never_waits_for_python(ask: Callable[[Switch], object], tmp_path: Path) -> None:
    """One thread asks the switch something all the time; then another one keeps the interpreter to itself.

    The switch interval is so long that the interpreter changes hands only where a thread gives it up. So this
    thread often gets it while the asking one is inside the switch, and does not let go: frames must pass all the same.
    """
    (tmp_path / "flag").write_bytes(b"\0")
    interval = sys.getswitchinterval()
    with stage(2) as (lab, switch), (tmp_path / "flag").open("r+b") as file, mmap.mmap(file.fileno(), 1) as flag:
        command = [sys.executable, "-c", PING_FOR_ITSELF, file.name, str(lab["pod2"].ipv4.ip)]
        with lab["pod1"].popen(command) as pinging:
            eventually(lambda: flag[0] == WAITING, "a program that pings")
            # Now and then it must give up the interpreter outside the switch, or who never did inside would stop us.
            with meanwhile(lambda: ([ask(switch) for _ in range(1_000)], time.sleep(0)), pause=0.001):
                sys.setswitchinterval(60)
                try:
                    for _ in range(5):
                        time.sleep(0.01)
                        flag[0] = GO
                        while flag[0] == GO:
                            pass
                        assert flag[0] == ANSWERED
                finally:
                    sys.setswitchinterval(interval)
                    pinging.kill()


def test_trace_loses_the_newest_and_counts_them() -> None:
    with stage(2) as (lab, switch), wires(lab) as (one, two):
        hear_each_other([one, two])
        with switch.trace(limit=10) as trace:
            two.heard_before(one.send_in_order([ethernet(GROUP, X, payload=b"fastbridge %d" % n) for n in range(50)]))
            events = trace.read()
            assert len(events) == 10
            assert trace.lost >= 41


def test_the_lab_ends_before_the_switch() -> None:
    lab = Lab(2)
    with Switch(lab.ports) as switch:
        assert lab["pod1"].ping("pod2", timeout=PATIENCE)
        for pod in lab:
            pod.port.delete()
        lab.close()
        eventually(lambda: {port.state for port in switch.ports} == {"gone"}, "both ports gone")
        assert switch.running
    assert switch.counters().total.forwarded > 0


@pytest.mark.parametrize(
    "end", few(2, ["", "os._exit(3)", "sys.exit(3)", "raise SystemExit(3)", "os.kill(os.getpid(), signal.SIGTERM)"])
)
def test_a_process_may_end_with_its_switch_running(end: str) -> None:
    """Whoever forgets to stop a switch gets neither a hang nor a crash."""
    script = (
        "import os, signal, sys\n"
        "from fastbridge import Lab, Switch\n"
        "lab = Lab(2)\n"
        "switch = Switch(lab.ports)\n"
        "switch.start()\n"
        "assert lab['pod1'].ping('pod2', timeout=60)\n"
        f"{end}\n"
    )
    place = Path(fastbridge.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=180, cwd=place)
    assert done.returncode == (0 if not end else -15 if "TERM" in end else 3)
    assert done.stderr == ""


@dataclass(frozen=True)
class HereEnd:
    """One end of a veth pair in the current network namespace, with what Wire wants of a pod."""

    interface: str
    mac: int

    def socket(self, family: int, kind: int, protocol: int) -> socket.socket:
        return socket.socket(family, kind, protocol)


@pytest.fixture
def pairs() -> Iterator[list[tuple[str, HereEnd]]]:
    """Two veth pairs as a user may have them, without a Lab: the near end's name, and the far end."""
    with IPRoute() as ip:
        for n in (1, 2):
            ip.link("add", ifname=f"near{n}", kind="veth", peer=f"far{n}")
        with Links() as links:
            for name in ("near1", "near2", "far1", "far2"):
                links.set(name, state="up")
        yield [(f"near{n}", HereEnd(f"far{n}", n)) for n in (1, 2)]
        for n in (1, 2):
            ip.link("del", ifname=f"near{n}")


def test_existing_interfaces(pairs: list[tuple[str, HereEnd]]) -> None:
    with Switch([near for near, _ in pairs]) as switch:
        assert [(port.index, port.name, port.state) for port in switch.ports] == [
            (0, "near1", "up"),
            (1, "near2", "up"),
        ]
        ends = [Wire(far) for _, far in pairs]
        hear_each_other(ends)
        for end in ends:
            end.socket.close()
        assert {entry.port for entry in switch.fdb} == {"near1", "near2"}


def test_mistakes_are_named(pairs: list[tuple[str, HereEnd]]) -> None:
    one, two = (near for near, _ in pairs)
    for ports, kind, words in (
        ([one, one], ConfigError, f"{one}.*twice"),
        ([one, "lo"], PortError, "lo.*Ethernet"),
        ([one, "nobody"], PortError, "nobody"),
        ([one, "a_name_too_long_for_an_interface"], PortError, "a_name_too_long"),
        ([one, ""], PortError, "''"),
    ):
        with pytest.raises(kind, match=words) as caught:
            Switch(ports)
        assert "\n" not in str(caught.value)
    with Links() as links:
        links.set(two, state="down")
    with pytest.raises(PortError, match=f"{two} is down"):
        Switch([one, two])
    for options in {"ageing": -1.0}, {"capacity": 0}, {"busy_poll": -1.0}, {"cpu": 100_000}:
        with pytest.raises(ConfigError):
            Switch([one], **options)
