"""The fast path's life: with a core that stops, is killed or may not have it; and what an administrator sees of it."""

from __future__ import annotations

import errno
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from command import COMMAND, ROOT, say
from fast import HANDS, fast, know_each_other
from frames import GROUP, ethernet
from live import PATIENCE, eventually, wires
from sandboxed import REFUSE

from fastbridge import Lab, PortError, Topology
from fastbridge.switch.fast_path.lane import FastLane
from fastbridge.switch.fast_path.nft import PortEnds

pytestmark = pytest.mark.live

SWITCH_THAT_WAITS = """
import sys, time
from fastbridge import Switch
with Switch(["p1", "p2", "p3"], fast_path=sys.argv[1], loop_detection=False) as switch:
    print(switch.fast_path, flush=True)
    time.sleep(1000)
"""


@contextmanager
def interfaces() -> Iterator[list[socket.socket]]:
    """p1, p2, p3 in this namespace, and a raw socket at the other end of each."""
    ends = []
    try:
        for n in (1, 2, 3):
            subprocess.run(f"ip link add p{n} type veth peer name e{n}".split(), check=True)
            for name in (f"p{n}", f"e{n}"):
                Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
                subprocess.run(f"ip link set {name} up".split(), check=True)
            ends.append(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)))
            ends[-1].bind((f"e{n}", 0))
            ends[-1].settimeout(PATIENCE)
        yield ends
    finally:
        for end in ends:
            end.close()
        for n in (1, 2, 3):
            subprocess.run(f"ip link del p{n}".split(), check=False, stderr=subprocess.DEVNULL)


@contextmanager
def child(command: list[str], **pipes: int) -> Iterator[subprocess.Popen[str]]:
    """A program that is killed at the latest when the test ends."""
    with subprocess.Popen(command, text=True, cwd=ROOT, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


def talk(one: socket.socket, two: socket.socket) -> None:
    """Two stations that send to each other until both have heard; then, again and again, so that they are promoted."""
    a, b = 0x02_00_00_00_00_01, 0x02_00_00_00_00_02
    for sender, hearer, frame in (
        (one, two, ethernet(GROUP, a)),
        *((s, h, ethernet(d, f)) for _ in range(5) for s, h, d, f in ((two, one, a, b), (one, two, b, a))),
    ):
        frame = frame.ljust(60, b"\0")
        sender.send(frame)
        while hearer.recv(2048) != frame:
            pass
        time.sleep(0.005)


def left() -> dict[str, Any]:
    """What the kernel has of a fast path in this namespace, as far as there are programs to list it."""
    found: dict[str, Any] = {"links": sorted(name for _, name in socket.if_nameindex())}
    if shutil.which("nft"):
        listed = subprocess.run(["nft", "list", "chains"], capture_output=True, text=True, check=True).stdout
        found["chains"] = re.findall(r"fastbridge\S+", listed)
    return found


def bpf_objects(pid: int) -> set[tuple[str, str]]:
    """The programs, links and maps that a process holds: (kind, number)."""
    texts = [info.read_text() for info in Path(f"/proc/{pid}/fdinfo").iterdir()]
    return {found for text in texts for found in re.findall(r"^(prog|link|map)_id:\s+(\d+)$", text, re.M)}


def is_there(kind: str, number: str) -> bool:
    return not subprocess.run(["bpftool", kind, "show", "id", number], capture_output=True, check=False).returncode


@HANDS
def test_a_killed_switch_leaves_nothing(hand: str) -> None:
    """Over interfaces that outlive it: no link, no chain, no program and no map."""
    with interfaces() as (one, two, _):
        before = left()
        command = [sys.executable, "-c", SWITCH_THAT_WAITS, hand]
        with child(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            if process.stdout.readline() != f"{hand}\n":
                pytest.skip(f"no fast path by {hand} here")
            talk(one, two)
            meanwhile = left()
            assert len(meanwhile["links"]) == len(before["links"]) + 3
            assert all(meanwhile[kind] != before[kind] for kind in meanwhile)
            held = bpf_objects(process.pid)
            assert {kind for kind, _ in held} == ({"prog", "link", "map"} if hand == "bpf" else set())
            process.send_signal(signal.SIGKILL)
        eventually(lambda: left() == before, f"nothing left of {meanwhile}")
        if shutil.which("bpftool"):
            eventually(lambda: not any(is_there(*thing) for thing in held), f"nothing left of {held}")


def start(lab: Lab, hand: str) -> subprocess.Popen[str]:
    command = [*COMMAND, "run", "--json", "--interval", "0.1", "--fast-path", hand, *(port.name for port in lab.ports)]
    process = lab.popen_host(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert say(process)["event"] == "ready"
    return process


def test_a_stopped_core_forwards_what_is_promoted_and_counts_it_later() -> None:
    with Lab(Topology.of(3, ipv6=None)) as lab, wires(lab) as (_, _, three):
        process = start(lab, "nft")

        def both_ways() -> bool:
            assert lab["pod1"].ping("pod2", family=4, count=3, interval=0.02, timeout=PATIENCE).received == 3
            ports = say(process)["counters"]["ports"]
            return bool(ports["pod1"]["fast"] and ports["pod2"]["fast"])

        eventually(both_ways, "a pair promoted each way")
        process.send_signal(signal.SIGSTOP)
        assert lab["pod1"].ping("pod2", family=4, count=20, interval=0.005, timeout=PATIENCE).received == 20
        for n in range(100):  # they wait
            three.send(ethernet(GROUP, three.mac, payload=b"fastbridge %d" % n))
        process.send_signal(signal.SIGCONT)
        eventually(lambda: say(process)["counters"]["ports"]["pod3"]["flooded"] == 100, "what waited")
        arrived = {pod.name: pod.port.counters().rx_frames for pod in lab}
        process.terminate()
        ports = json.loads(process.communicate(timeout=PATIENCE)[0].splitlines()[-1])["counters"]["ports"]
        assert ports["pod1"]["fast"] >= 20 and ports["pod2"]["fast"] >= 20 and ports["pod3"]["fast"] == 0
        for name, port in ports.items():
            said = port["rx_frames"] + port["fast"] + port["rx_missed"]
            assert arrived[name] <= said <= lab[name].port.counters().rx_frames
            assert port["rx_missed"] == 0


@HANDS
def test_tcpdump_on_a_host_end_hears_what_the_kernel_forwards(hand: str) -> None:
    """What comes in, as it does before the hook; what goes out, unless it goes straight into the pod."""
    with fast(hand) as (lab, switch):
        know_each_other(lab, switch)
        with lab.ports[0].open_socket(socket.AF_PACKET, socket.SOCK_RAW) as tap:
            tap.settimeout(PATIENCE)
            tap.bind(("pod1", 3))
            assert lab["pod1"].ping("pod2", family=4, count=3, interval=0.01, timeout=PATIENCE).received == 3
            heard = list[bytes]()
            while len(heard) < (3 if hand == "bpf" else 6):  # echoes: the pods may also ask for each other
                frame = tap.recv(2048)
                heard += [frame[6:12]] if frame[12:14] == b"\x08\x00" else []
        assert heard.count(lab["pod1"].mac.packed) == 3
        assert heard.count(lab["pod2"].mac.packed) == (0 if hand == "bpf" else 3)


UNDER_A_SANDBOX = (
    REFUSE
    + """
import logging
logging.basicConfig(level=logging.WARNING, format="%(message)s")
from fastbridge import ConfigError, PortError, Switch
refuse(sys.argv[1])
try:
    with Switch(["p1", "p2", "p3"], fast_path=sys.argv[2]) as switch:
        print("forwards by", switch.fast_path, flush=True)
        sys.stdin.read()
except ConfigError as error:
    print("unknown", error, flush=True)
except PortError as error:
    print("refused", error, flush=True)
"""
)


@pytest.mark.parametrize(
    ("refused", "path", "forwards"),
    [
        ("bpf+nfnetlink", "nft", "off"),
        ("bpf+nfnetlink", "bpf", "off"),
        ("bpf+nfnetlink", "auto", "off"),
        ("bpf", "bpf", "nft"),
        ("bpf", "auto", "nft"),
        ("bpf", "nft", "nft"),
    ],
)
def test_in_a_sandbox_that_refuses_what_it_takes(refused: str, path: str, forwards: str) -> None:
    """One line says why and what to do, and frames pass; a path that was asked for by name may be refused instead."""
    with interfaces() as (one, two, _):
        command = [sys.executable, "-c", UNDER_A_SANDBOX, refused, path]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with child(command, **pipes) as process:
            assert process.stdout is not None
            said = process.stdout.readline().strip()
            if said.startswith("forwards"):
                talk(one, two)
            out, err = process.communicate(timeout=PATIENCE)
        if said.startswith("unknown"):
            pytest.skip(said)
        if said.startswith("refused"):
            assert path != "auto" and forwards != path
            assert (out, err) == ("", "") and re.search(r"no fast path by \w+: .*Operation not permitted", said)
            return
        assert said == f"forwards by {forwards}"
        lines = err.splitlines()
        if forwards == path or (path, forwards) == ("auto", "nft"):
            assert not lines
        else:
            (line,) = lines
            assert "fast path" in line and "Operation not permitted" in line


@HANDS
def test_a_port_that_goes_leaves_no_mtu(hand: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its link is looked at while its frames are counted for the last time."""
    with fast(hand) as (_, switch):
        lane = switch._fast.lane
        assert lane is not None and lane.head is not None
        index = next(port.index for port in switch.ports if port.name == "pod3")
        note = FastLane._note

        def followed(self: FastLane, ports: Mapping[int, PortEnds]) -> None:
            self.follow_mtu(index, 1500)
            note(self, ports)

        monkeypatch.setattr(FastLane, "_note", followed)
        switch.remove_port("pod3")
        assert index not in lane.head._mtus


@HANDS
def test_a_port_whose_counts_cannot_be_read_does_not_come(hand: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with fast(hand) as (lab, switch):
        switch.remove_port("pod3")
        with monkeypatch.context() as patch:
            patch.setattr(FastLane, "_begin", Mock(side_effect=OSError(errno.ENOBUFS, "No buffer space available")))
            with pytest.raises(PortError):
                switch.add_port(lab["pod3"].port)
        assert list(switch.counters().ports) == ["pod1", "pod2"]
        switch.add_port(lab["pod3"].port)
        know_each_other(lab, switch, "pod1", "pod3")
