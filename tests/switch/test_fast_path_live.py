"""The fast path on real kernels: what is known is forwarded by the kernel, what changes is not, and nothing is left."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Literal

import pytest
from fast import HANDS, fast, know_each_other, need, promoted
from frames import ethernet
from live import PATIENCE, Wire, eventually, wires

from fastbridge import ConfigError, Lab, Switch, Topology
from fastbridge.switch.fast_path import bpf_syscall
from fastbridge.switch.fast_path.bpf_program import KEY, KEY_BY_IP, REDIRECT, REDIRECT_PEER, VALUE, program
from fastbridge.switch.fast_path.hand import Look

pytestmark = pytest.mark.live


@contextmanager
def policed(hand: str, policy: str, pods: int = 3) -> Iterator[tuple[Lab, Switch]]:
    """A lab with a policy, which sends frames of its own."""
    with (
        Lab(pods) as lab,
        Switch(lab.ports, fast_path=hand, policy=policy, trusted=True, loop_detection=False) as switch,
    ):
        need(switch, hand)
        yield lab, switch


@HANDS
def test_the_kernel_forwards_what_is_known_and_every_frame_is_counted(hand: str) -> None:
    with fast(hand) as (lab, switch):
        know_each_other(lab, switch)
        before = switch.counters()
        assert lab["pod1"].ping("pod2", family=4, count=20, interval=0.005, timeout=PATIENCE).received == 20
        after = switch.counters()
        assert after.ports["pod1"].fast - before.ports["pod1"].fast == 20
        assert after.ports["pod2"].fast - before.ports["pod2"].fast == 20
        assert after.ports["pod3"].tx_frames == before.ports["pod3"].tx_frames


@HANDS
def test_a_station_that_moves_is_found_where_it_is(hand: str) -> None:
    with fast(hand) as (lab, switch), wires(lab) as (one, two, three):
        for wire in (one, two):
            wire.mark()
        hello = ethernet(two.mac, one.mac, payload=b"fastbridge")
        eventually(lambda: one.send(hello) or promoted(switch) == 1)
        three.send(ethernet(one.mac, two.mac, payload=b"fastbridge moved"))  # two is behind another port now
        eventually(lambda: switch.fdb.lookup(two.mac).port == "pod3")  # type: ignore[union-attr]
        eventually(lambda: 1 not in switch._fast.lane.head.pairs.values())  # type: ignore[union-attr] # by pod2, to nobody
        one.send(hello)
        eventually(lambda: hello in heard(three))


def heard(wire: Wire) -> list[bytes]:
    """What has arrived by now."""
    found = []
    wire.socket.setblocking(False)
    try:
        while True:
            found.append(wire.receive()[0])
    except BlockingIOError:
        return found
    finally:
        wire.socket.settimeout(PATIENCE)


@pytest.mark.parametrize("change", ["flush", "static", "flags", "policy", "remove"])
@HANDS
def test_what_changes_revokes(change: str, hand: str) -> None:
    with fast(hand) as (lab, switch):
        know_each_other(lab, switch)
        match change:
            case "flush":
                switch.fdb.flush()
            case "static":
                switch.fdb.add(lab["pod2"].mac, "pod3")
            case "flags":
                switch.set_flags("pod1", isolated=True)
            case "policy":
                switch.set_policy("guard")
            case "remove":
                switch.fdb.remove(lab["pod2"].mac)
        assert promoted(switch) == 0  # at once, not sometime


@HANDS
def test_a_trace_shows_what_was_promoted_before_it_began(hand: str) -> None:
    with fast(hand) as (lab, switch):
        know_each_other(lab, switch)
        with switch.trace() as trace:
            assert promoted(switch) == 0
            counted = switch.counters().total.fast
            assert lab["pod1"].ping("pod2", family=4, count=5, interval=0.005, timeout=PATIENCE).received == 5
            assert switch.counters().total.fast == counted
            shown = [str(event) for event in trace.read(PATIENCE)]
            assert sum("echo request" in line for line in shown) == 5, shown
        know_each_other(lab, switch)  # promoted anew


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("policy", ["guard", "guard=strict", "guard=router", "guard,ratelimit=50,suppress", "suppress"])
@HANDS
def test_what_a_policy_lets_pass_is_fast(hand: str, policy: str, family: Literal[4, 6]) -> None:
    with policed(hand, policy, 2) as (lab, switch):
        eventually(lambda: lab["pod1"].ping("pod2", family=family, timeout=1).received == 1, "an answer")

        def all_fast() -> bool:
            before = switch.counters().total.fast
            assert lab["pod1"].ping("pod2", family=family, count=5, interval=0.01, timeout=PATIENCE).received == 5
            return switch.counters().total.fast - before >= 10

        eventually(all_fast, "echoes by the kernel alone")


@HANDS
def test_a_guard_lets_no_forged_source_pass_by_a_promoted_pair(hand: str) -> None:
    with policed(hand, "guard=strict") as (lab, switch), wires(lab) as (_, two, three):
        know_each_other(lab, switch)
        eventually(lambda: lab["pod3"].ping("pod2", family=4, timeout=1).received == 1)
        eventually(lambda: promoted(switch) >= 4, "pairs of both")
        own, forged = (str(lab[pod].ipv4.ip) for pod in ("pod3", "pod1"))
        heard(two)
        for count, source in ((1, own), (0, forged)):
            before = switch.counters().ports["pod3"]
            frame = udp(int(lab["pod2"].mac), int(lab["pod3"].mac), source, str(lab["pod2"].ipv4.ip))
            three.send(frame)
            if count:
                eventually(lambda f=frame: f in heard(two), "the honest frame")  # type: ignore[misc]
                assert switch.counters().ports["pod3"].fast == before.fast + 1
            else:
                eventually(lambda: switch.counters().ports["pod3"].dropped["source_guard"] == 1, "the drop")
                assert switch.counters().ports["pod3"].fast == before.fast
                three.mark()
                assert frame not in heard(two)


def udp(destination: int, source: int, sender: str, receiver: str) -> bytes:
    addresses = ip_address(sender).packed + ip_address(receiver).packed
    header = struct.pack("!BBHHHBBH", 0x45, 0, 28, 0, 0, 64, 17, 0) + addresses
    return ethernet(destination, source, ethertype=0x0800, payload=header + struct.pack("!HHHH", 9, 9, 8, 0))


@HANDS
def test_a_binding_that_ends_revokes(hand: str) -> None:
    with policed(hand, "guard=strict") as (lab, switch):
        know_each_other(lab, switch)
        assert switch.neighbours.remove(lab["pod1"].ipv4.ip)
        switch._policing.bind()
        assert not any(pair.source == int(lab["pod1"].mac) for pair in switch._fast.lane.head.pairs)  # type: ignore[union-attr]
        assert lab["pod1"].ping("pod2", family=4, timeout=0.5).received == 0


def test_a_port_comes_and_goes() -> None:
    with Lab(3) as lab, Switch(lab.ports[:2], fast_path="nft", loop_detection=False) as switch:
        if switch._fast.lane is None:
            pytest.skip("no nf_tables here")
        switch.add_port(lab.ports[2])
        assert lab["pod1"].ping("pod3", family=4, count=3, interval=0.05, timeout=3).received == 3
        eventually(lambda: promoted(switch) == 2)
        counted = switch.counters().total.fast
        switch.remove_port("pod3")
        assert promoted(switch) == 0
        assert switch.counters().total.fast >= counted
        assert lab["pod1"].ping("pod2", family=4, timeout=PATIENCE).received == 1


@HANDS
def test_a_renamed_interface_stays_fast(hand: str) -> None:
    with fast(hand) as (lab, switch):
        know_each_other(lab, switch)
        lab.run_host(["ip", "link", "set", "pod1", "name", "other"])
        assert lab["pod1"].ping("pod3", family=4, timeout=PATIENCE).received == 1
        know_each_other(lab, switch)


@HANDS
def test_a_port_put_under_a_bridge_is_the_bridges(hand: str) -> None:
    with fast(hand, 3) as (lab, switch):
        know_each_other(lab, switch)
        lab.run_host(["ip", "link", "add", "bridge", "type", "bridge"])
        for command in ("pod1 master bridge", "pod2 master bridge", "bridge up"):
            lab.run_host(["ip", "link", "set", *command.split()])
        eventually(
            lambda: {port.name: port.state for port in switch.ports} == {"pod1": "gone", "pod2": "gone", "pod3": "up"}
        )
        assert promoted(switch) == 0
        before = switch.counters()
        assert lab["pod1"].ping("pod2", family=4, count=3, interval=0.05, timeout=PATIENCE).received == 3
        assert switch.counters().total == before.total
        lab.run_host(["ip", "link", "delete", "bridge"])


def test_what_there_is_to_choose() -> None:
    with Lab(2) as lab, pytest.raises(ConfigError, match="fast_path is 'auto', 'nft', 'bpf' or 'off', not 'turbo'"):
        Switch(lab.ports, fast_path="turbo")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left(number: int) -> None:
    """Of a run: no link, no table, whatever ends it."""
    with Lab(Topology.of(2, ipv6=None)) as lab:
        command = [sys.executable, "-m", "fastbridge", "run", "--json", "--fast-path", "nft", "pod1", "pod2"]
        before = links_of(lab)
        process = lab.popen_host(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None and "ready" in process.stdout.readline()
        assert lab["pod1"].ping("pod2", family=4, count=3, interval=0.05, timeout=3).received == 3
        process.send_signal(number)
        process.communicate(timeout=PATIENCE)
        process.stdout.close()
        eventually(lambda: links_of(lab) == before, "links as before")


def links_of(lab: Lab) -> set[str]:
    """Interfaces of the host ends' namespace, as the kernel lists them."""
    said = lab.run_host([sys.executable, "-c", "import socket; print(*sorted(n for _, n in socket.if_nameindex()))"])
    return set(said.stdout.split())


def test_the_program_takes_what_is_promoted_and_leaves_the_rest() -> None:
    """By the kernel's own trial run: a hit is redirected, all else goes on to the next hook."""
    try:
        pairs = bpf_syscall.create_map("fb_test", KEY.size, VALUE.size, 16)
        by_ip = bpf_syscall.create_map("fb_test_by_ip", KEY_BY_IP.size, VALUE.size, 16)
        loaded = bpf_syscall.load_program("fb_test", program(pairs, by_ip, Look.NOTHING))
    except OSError as error:
        pytest.skip(f"bpf(2): {error.strerror}")
    try:
        here = socket.if_nametoindex("lo")
        header = bytes.fromhex("020000000002 020000000001 0800")
        for how, returned in ((REDIRECT, 7), (REDIRECT_PEER, 7)):
            bpf_syscall.update(pairs, [(KEY.pack(header, here), VALUE.pack(here, how, 0))])
            assert bpf_syscall.test_run(loaded, header.ljust(60, b"\0"), here) == returned
        for other in (
            "020000000003 020000000001 0800",
            "020000000002 020000000001 0806",
            "020000000002 020000000001 8100",
        ):
            assert bpf_syscall.test_run(loaded, bytes.fromhex(other).ljust(60, b"\0"), here) == 0xFFFFFFFF
        ((key, value),) = bpf_syscall.read_all(pairs, KEY.size, VALUE.size, 16)
        assert KEY.unpack(key) == (header, here) and VALUE.unpack(value)[2] > 0  # when it was last used
        bpf_syscall.delete(pairs, [key, key])
        assert bpf_syscall.test_run(loaded, header.ljust(60, b"\0"), here) == 0xFFFFFFFF
    finally:
        for fd in loaded, pairs, by_ip:
            os.close(fd)
