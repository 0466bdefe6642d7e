"""Hundreds of ports on one switch. With 1,500 it is a benchmark: benchmarks/test_ports.py."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys

import pytest
from frames import ethernet
from live import PATIENCE, eventually, stage, wires

from fastbridge import Lab, PortError, Switch, Topology
from fastbridge.core.dataplane import open_ring
from fastbridge.switch.ring_size import ring_slots

MANY = 300


@pytest.mark.parametrize("ports", [1, 2, 100, 128, 129, 250, 300, 1_000, 1_500, 2_000, 8_000])
def test_ring_sizes_adapt_to_the_number_of_ports(ports: int) -> None:
    slots, slot = ring_slots(ports), 2048
    assert 128 <= slots <= 2_048
    assert slots % 32 == 0
    assert slots * slot * ports <= 512 << 20 or slots == 128
    assert ports > 128 or slots == 2_048
    assert ports > 4_096 or slots * slot * ports <= 1 << 30


@pytest.mark.slow
@pytest.mark.live
def test_every_pod_reaches_every_other_of_many() -> None:
    """IPv4 only: then nobody says a word but those who ping, and every copy can be foretold."""
    rng = random.Random(1)
    with stage(Topology.of(MANY, ipv6=None)) as (lab, switch):
        before = switch.counters().total
        pairs = [rng.sample(lab.pods, 2) for _ in range(100)]
        for one, other in pairs:
            assert one.ping(other, timeout=PATIENCE), (one, other)
        for one, other in pairs:
            assert switch.fdb.lookup(one.mac).port == one.name  # type: ignore[union-attr]
            assert switch.fdb.lookup(other.mac).port == other.name  # type: ignore[union-attr]
        after = switch.counters().total
        flooded, forwarded = after.flooded - before.flooded, after.forwarded - before.forwarded
        assert flooded >= 99  # pairs may be drawn twice
        costly = after.tx_dropped["costly"]  # which a busy machine makes
        assert after.tx_frames + costly - before.tx_frames == forwarded + flooded * (MANY - 1)
        assert after.rx_missed == 0
        assert not any(count for reason, count in after.tx_dropped.items() if reason != "costly")
        pings = [pod.port.counters().tx_frames for pod in lab.pods[:10]]
        assert min(pings) >= flooded - 1 - costly  # each question went to everybody; not, at most, to who asked


@pytest.mark.live
@pytest.mark.slow
def test_a_flood_reaches_each_of_many_and_each_answers() -> None:
    with stage(Topology.of(MANY, ipv6=None)) as (lab, switch), wires(lab) as ends:
        ends[0].heard_before(ends[1].mark())
        mark = ends[0].mark()
        for end in ends[1:]:
            end.heard_before(mark)
        for end in ends[1:]:
            answer = ethernet(ends[0].mac, end.mac, payload=b"fastbridge")
            end.send(answer)
            while ends[0].receive()[0] != answer:
                pass
        assert len(switch.fdb) == MANY
        assert switch.counters().total.rx_missed == 0


@pytest.mark.live
def test_many_links_go_down_and_come_back() -> None:
    with stage(Topology.of(100, ipv6=None), ports_fail=True) as (lab, switch):
        for pod in lab.pods[10:]:
            pod.port.set_down()
        eventually(lambda: [port.state for port in switch.ports].count("down") == 90, "90 ports down")
        assert lab["pod1"].ping("pod10", timeout=PATIENCE)
        for pod in lab.pods[10:]:
            pod.port.set_up()
        eventually(lambda: all(port.state == "up" for port in switch.ports), "all ports up")
        assert lab["pod1"].ping("pod100", timeout=PATIENCE)


OPEN_MANY = """
import resource, sys
from fastbridge import FastbridgeError, Lab, Switch
try:
    with Lab(40) as lab:
        resource.setrlimit(resource.RLIMIT_NOFILE, (60, int(sys.argv[1])))
        with Switch(lab.ports) as switch:
            print(lab["pod1"].ping("pod40", timeout=60).received, len(switch.ports))
except FastbridgeError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.slow
@pytest.mark.live
@pytest.mark.parametrize(("hard", "said"), [(4_096, "1 40"), (100, "PortError")], ids=["raised", "too low"])
def test_the_limit_on_open_files_is_raised_or_named(hard: int, said: str) -> None:
    child = subprocess.run([sys.executable, "-c", OPEN_MANY, str(hard)], capture_output=True, text=True)
    assert child.stdout.startswith(said), child.stderr
    assert child.stdout.count("\n") == 1
    if said == "PortError":
        assert "ulimit -n" in child.stdout


HIGH = """
import os
from fastbridge import Client, Lab, Switch
from fastbridge.open_files import reserve_files

reserve_files(1_100)
taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(1_100)]
with Lab(2) as lab, Switch(lab.ports, control=True) as switch, switch.capture(count=1) as frames:
    assert min(sock.fileno() for member in switch._members.values() for sock in member.sockets) > 1_023
    print(bool(lab["pod1"].ping("pod2", timeout=60)), len(list(frames)))
    with Client(switch.name, timeout=60) as client:
        print(client.call("status")[0]["running"])
"""


@pytest.mark.live
def test_descriptors_above_those_that_select_takes() -> None:
    child = subprocess.run([sys.executable, "-c", HIGH], capture_output=True, text=True)
    assert child.stdout == "True 1\nTrue\n", child.stderr


@pytest.mark.live
@pytest.mark.slow
def test_rings_of_ports_added_one_by_one_get_smaller() -> None:
    """And larger again, when others have gone."""
    ports = 140
    with Lab(Topology.of(ports, ipv6=None)) as lab, Switch(lab.ports[:2], fast_path="off") as switch:
        for port in lab.ports[2:]:
            switch.add_port(port)
        slots = [member.slots[0] for member in switch._members.values()]
        assert slots == [ring_slots(n) for n in [2, *range(2, ports + 1)]]
        assert slots[-1] < slots[0]
        assert lab["pod1"].ping(lab.pods[-1], timeout=PATIENCE)
        for port in lab.ports[1:]:
            switch.remove_port(port.name)
        again = switch.add_port(lab.ports[1])
        assert switch._members[again.index].slots[0] == ring_slots(2)
        assert lab["pod1"].ping("pod2", timeout=PATIENCE)


@pytest.mark.live
@pytest.mark.parametrize("most", [512, 128, 0], ids="{} slots".format)
def test_rings_that_the_kernel_refuses(
    most: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It falls back to smaller ones and says so once; without any there is no switch, and nothing is left open."""

    def refuse(fd: int, slots: int) -> None:
        if slots > most:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        open_ring(fd, slots)

    monkeypatch.setattr("fastbridge.switch.opening.open_ring", refuse)
    with Lab(Topology.of(5, ipv6=None)) as lab:
        if not most:
            with pytest.raises(PortError, match="no receive ring for pod1: Cannot allocate memory; free some memory"):
                Switch(lab.ports)
            return
        with Switch(lab.ports) as switch:
            assert {member.slots[0] for member in switch._members.values()} == {most}
            assert lab["pod1"].ping("pod5", timeout=PATIENCE)
        assert caplog.text.count("refused a larger ring") == 1
