"""The fast path on real kernels: what is known is forwarded by the kernel, what changes is not, and nothing is left."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any, Literal

import pytest
from effort import few
from fake_hand import key_of
from fast import HANDS, fast, forwarded, know_each_other, need, pairs, promoted
from frames import GROUP, ethernet
from hypothesis import given, settings
from hypothesis import strategies as st
from live import PATIENCE, Wire, came_in, check_accounts, eventually, in_the_end, wires
from strategies import frames, host_frames

from fastbridge import ConfigError, Lab, Switch, Topology
from fastbridge.switch.fast_path import bpf_syscall
from fastbridge.switch.fast_path.bpf_program import KEY, KEY_BY_IP, REDIRECT, REDIRECT_PEER, VALUE, program
from fastbridge.switch.fast_path.hand import IPV6, Look, Pair
from fastbridge.switch.fast_path.headers import header_of, ip_of

pytestmark = pytest.mark.live


@contextmanager
def policed(hand: str, policy: str, pods: int = 3) -> Iterator[tuple[Lab, Switch]]:
    """A lab with a policy, which sends frames of its own."""
    need(hand)
    with (
        Lab(pods) as lab,
        Switch(lab.ports, fast_path=hand, policy=policy, trusted=True, loop_detection=False) as switch,
    ):
        yield lab, switch


@HANDS
def test_the_kernel_forwards_what_is_known_and_every_frame_is_counted(hand: str) -> None:
    with fast(hand) as (lab, switch):
        know_each_other(lab, switch)
        third = switch.counters().ports["pod3"].tx_frames
        one, two = forwarded(switch, "pod1", "pod2")
        assert lab["pod1"].ping("pod2", family=4, count=20, interval=0.005, timeout=PATIENCE).received == 20
        eventually(lambda: forwarded(switch, "pod1", "pod2") == [one + 20, two + 20], "the count")
        assert switch.counters().ports["pod3"].tx_frames == third


def accounts_are_exact(lab: Lab, switch: Switch) -> None:
    """Each port's own interface, in its pod, says the same as the counters: in, out, and lost."""
    check_accounts(switch)
    for pod in lab:
        port, device = switch.counters().ports[pod.name], pod.counters()
        assert port.rx_frames + port.rx_missed + port.fast == device.tx_frames, pod.name
        assert port.tx_frames - port.coalesced + port.fast_sent == device.rx_frames, pod.name


@HANDS
def test_what_the_kernel_forwards_is_counted_where_it_leaves(hand: str) -> None:
    with fast(hand) as (lab, switch), wires(lab) as (one, two, _):
        know_each_other(lab, switch)
        talk(lab, one, two)
        in_the_end(accounts_are_exact, lab, switch)
        assert switch.counters().total.fast >= 400


def talk(lab: Lab, one: Wire, two: Wire) -> None:
    """200 frames each way, as their pods would send them."""
    ends = int(lab["pod1"].mac), int(lab["pod2"].mac)
    for number in range(200):
        one.send(ethernet(ends[1], ends[0], ethertype=0x0800, payload=b"%d" % number))
        two.send(ethernet(ends[0], ends[1], ethertype=0x0800, payload=b"%d" % number))


@HANDS
def test_the_accounts_are_exact_after_all_that_revokes(hand: str) -> None:
    """Talk while a station moves, the FDB is flushed, flags and policies change, and traces come and go."""
    with fast(hand) as (lab, switch), wires(lab) as (one, two, three):
        know_each_other(lab, switch)
        moved = ethernet(GROUP, int(lab["pod2"].mac), payload=b"here now")
        changes: list[Callable[[], Any]] = [
            lambda: three.send(moved),
            switch.fdb.flush,
            lambda: switch.set_flags("pod1", isolated=True),
            lambda: switch.set_flags("pod1", isolated=False),
            lambda: switch.set_policy("guard", "pod2"),
            lambda: switch.set_policy("flood", "pod2"),
            lambda: switch.fdb.add(lab["pod1"].mac, "pod1"),
            lambda: switch.fdb.remove(lab["pod1"].mac),
        ]
        for change in changes * 3:
            talk(lab, one, two)
            change()
            with switch.trace():
                talk(lab, one, two)
        know_each_other(lab, switch)
        talk(lab, one, two)
        in_the_end(accounts_are_exact, lab, switch)
        assert switch.counters().total.fast > 400


def test_a_policy_of_one_port_costs_no_other_port_its_fast_path() -> None:
    with fast() as (lab, switch):
        know_each_other(lab, switch)
        before = set(pairs(switch))
        switch.set_policy("ratelimit=50", "pod3")
        assert before <= set(pairs(switch))
        revoked = switch.vitals().fast_path.revoked
        switch.set_policy("ratelimit=50", "pod2")
        assert switch.vitals().fast_path.revoked >= revoked + len(before)  # and they may come again


@HANDS
def test_what_the_kernel_loses_is_counted_where_it_was_to_leave(hand: str) -> None:
    """Frames larger than their pod takes, though its port would."""
    with fast(hand) as (lab, switch), wires(lab) as (one, _, three):
        # From a MAC that is not the pod's: bpf_redirect_peer asks for no MTU.
        for wire in three, one:
            wire.mark()
        frame = ethernet(three.mac, one.mac, payload=bytes(1480))
        eventually(lambda: one.send(frame) or (three.arrived() and promoted(switch) == 1), "the pair")
        three.heard_before(one.mark())  # none waits in the ring any more
        lab["pod3"].run(["ip", "link", "set", "eth0", "mtu", "1400"])
        lost = switch.counters().ports["pod3"].tx_dropped["device"]
        for _ in range(5):
            one.send(frame)
        eventually(lambda: switch.counters().ports["pod3"].tx_dropped["device"] == lost + 5, "the loss")
        in_the_end(accounts_are_exact, lab, switch)


def test_what_was_forwarded_stays_counted_when_its_port_goes() -> None:
    need("nft")
    with Lab(Topology.of(3, ipv6=None)) as lab, Switch(lab.ports, fast_path="nft", loop_detection=False) as switch:
        know_each_other(lab, switch)
        with wires(lab) as (one, two, _):
            talk(lab, one, two)
            in_the_end(accounts_are_exact, lab, switch)
            counted = switch.counters().total
            switch.remove_port("pod1")
            lab.run_host(["ip", "link", "delete", lab["pod2"].port.name])  # and one that goes by itself
            eventually(lambda: switch.ports[0].state == "gone", "the loss of the port")
            assert switch.counters().total.fast == counted.fast
            switch.remove_port("pod2")
            after = switch.counters().total
            assert (after.fast, after.fast_sent) == (counted.fast, counted.fast_sent)


def test_what_finds_no_room_on_the_way_to_the_core_is_missed() -> None:
    """A core that does not run, and more than its ring in_the_end: each frame is counted."""
    need("nft")
    with Lab(Topology.of(2, ipv6=None)) as lab, wires(lab) as (one, _):
        switch = Switch(lab.ports, fast_path="nft", loop_detection=False)  # never started
        try:
            for _ in range(20_000):
                one.send(ethernet(0xFFFFFFFFFFFF, one.mac))
            sent = lab["pod1"].counters().tx_frames
            eventually(lambda: came_in(switch, "pod1") == sent, "the last frame")
            switch.stop()
            port = switch.counters().ports["pod1"]
            assert (port.rx_frames, port.fast, port.rx_missed) == (0, 0, sent)
        finally:
            switch.stop()


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
        eventually(lambda: hello in three.arrived())


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
                switch.set_flags("pod2", isolated=True)
                switch.set_flags("pod1", isolated=True)  # two of them: no pair may come again
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
@pytest.mark.parametrize(
    "policy", few(2, ["guard,ratelimit=50,suppress", "guard=router", "guard", "guard=strict", "suppress"])
)
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
        two.arrived()
        for count, source in ((1, own), (0, forged)):
            (before,) = forwarded(switch, "pod3")
            frame = udp(int(lab["pod2"].mac), int(lab["pod3"].mac), source, str(lab["pod2"].ipv4.ip))
            three.send(frame)
            if count:
                eventually(lambda f=frame: f in two.arrived(), "the honest frame")  # type: ignore[misc]
                eventually(lambda n=before: forwarded(switch, "pod3") == [n + 1], "its count")  # type: ignore[misc]
            else:
                eventually(lambda: switch.counters().ports["pod3"].dropped["source_guard"] == 1, "the drop")
                assert forwarded(switch, "pod3") == [before]
                three.mark()
                assert frame not in two.arrived()


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
        assert lab["pod1"].ping("pod3", family=4, count=3, interval=0.05, timeout=PATIENCE).received == 3
        eventually(lambda: promoted(switch) == 2)
        counted = switch.counters().total.fast
        switch.remove_port("pod3")
        assert promoted(switch) == 0
        assert switch.counters().total.fast >= counted
        assert lab["pod1"].ping("pod2", family=4, timeout=PATIENCE).received == 1


@HANDS
def test_a_renamed_interface_stays_fast(hand: str) -> None:
    with fast(hand, ports_fail=True) as (lab, switch):  # what comes in before the switch has followed is the host's
        know_each_other(lab, switch)
        lab.run_host(["ip", "link", "set", "pod1", "name", "other"])
        assert lab["pod1"].ping("pod3", family=4, timeout=PATIENCE).received == 1
        know_each_other(lab, switch)


@HANDS
def test_a_port_put_under_a_bridge_is_the_bridges(hand: str) -> None:
    with fast(hand, 3) as (lab, switch):
        know_each_other(lab, switch)
        lab.run_host(["ip", "link", "add", "bridge", "type", "bridge"])
        for port in ("pod1", "pod2"):
            lab.run_host(["ip", "link", "set", port, "master", "bridge"])
        eventually(
            lambda: {port.name: port.state for port in switch.ports} == {"pod1": "gone", "pod2": "gone", "pod3": "up"}
        )
        lab.run_host(["ip", "link", "set", "bridge", "up"])  # from now on it sends by them
        assert promoted(switch) == 0
        before = switch.counters()
        assert lab["pod1"].ping("pod2", family=4, count=3, interval=0.05, timeout=PATIENCE).received == 3
        assert switch.counters().total == before.total
        lab.run_host(["ip", "link", "delete", "bridge"])


@pytest.mark.parametrize("loss", ["down", "deleted", "enslaved"])
def test_a_port_that_is_lost_is_lost(loss: str) -> None:
    """Though its punt pair stays up; and what it receives then is the host's again."""
    need("nft")
    with Lab(Topology.of(3, ipv6=None)) as lab, Switch(lab.ports, fast_path="nft", loop_detection=False) as switch:
        know_each_other(lab, switch)

        def state() -> str:
            return {port.name: port.state for port in switch.ports}["pod2"]

        match loss:
            case "down":
                lab.run_host(["ip", "link", "set", "pod2", "down"])
                eventually(lambda: state() == "down", "the loss")
                eventually(lambda: promoted(switch) == 0, "no pair")
                lab.run_host(["ip", "link", "set", "pod2", "up"])
                eventually(lambda: state() == "up", "its return")
                know_each_other(lab, switch)
            case "deleted":
                lab.run_host(["ip", "link", "delete", "pod2"])
                eventually(lambda: state() == "gone", "the loss")
                eventually(lambda: promoted(switch) == 0, "no pair")
            case "enslaved":
                lab.run_host(["ip", "link", "add", "other", "type", "bridge"])
                lab.run_host(["ip", "link", "set", "other", "up"])
                lab.run_host(["ip", "link", "set", "pod2", "master", "other"])
                eventually(lambda: state() == "gone", "the loss")
                assert promoted(switch) == 0
                with wires(lab) as (_, two, _):
                    two.mark()
                said = ["ip", "-j", "-s", "link", "show", "other"]
                eventually(lambda: json.loads(lab.run_host(said).stdout)[0]["stats64"]["rx"]["packets"] > 0, "a frame")


def test_to_and_from_a_port_of_another_namespace_the_core_forwards() -> None:
    """And between the others the kernel goes on to."""
    need("nft")
    with (
        Lab(Topology.of(["a", "b"], ipv6=None)) as here,
        Lab(Topology.of(["x", "y", "c"], ipv6=None)) as there,  # c has another address than a and b
        Switch([*here.ports, there["c"].port], fast_path="nft", loop_detection=False) as switch,
        wires(here) as (a, b),
        wires(there) as (*_, c),
    ):
        for wire in a, b, c:
            wire.mark()
        for ends in ((a, c), (c, a)):
            hello = ethernet(ends[1].mac, ends[0].mac, payload=b"fastbridge hello")
            for _ in range(5):
                ends[0].send(hello)
            eventually(lambda e=ends, h=hello: h in e[1].arrived(), "the frame")  # type: ignore[misc]
        eventually(lambda: a.send(ethernet(b.mac, a.mac)) or promoted(switch) == 1, "the pair")
        assert switch.counters().ports["c"].fast == switch.counters().ports["c"].fast_sent == 0


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
        assert lab["pod1"].ping("pod2", family=4, count=3, interval=0.05, timeout=PATIENCE).received == 3
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
    with programs() as (maps, loaded):
        here = socket.if_nametoindex("lo")
        header = bytes.fromhex("020000000002 020000000001 0800")
        for how in (REDIRECT, REDIRECT_PEER):
            bpf_syscall.update(maps[False], [(KEY.pack(header, here), VALUE.pack(here, how, 0))])
            assert bpf_syscall.test_run(loaded[Look.NOTHING], header.ljust(60, b"\0"), here) == TAKEN
        ((key, value),) = bpf_syscall.read_all(maps[False], KEY.size, VALUE.size, 16)
        assert KEY.unpack(key) == (header, here)
        assert VALUE.unpack(value)[2] > 0  # when it was last used
        bpf_syscall.delete(maps[False], [key, key])
        assert bpf_syscall.test_run(loaded[Look.NOTHING], header.ljust(60, b"\0"), here) == GOES_ON


def test_the_programs_take_what_the_model_takes() -> None:
    """Random frames, promoted, and others like those but for a byte: each program finds what the model does."""
    here = socket.if_nametoindex("lo")
    found: Counter[tuple[Look, bool]] = Counter()
    with programs() as (maps, loaded):

        def check(look: Look, frame: bytes, promoted: Pair | None) -> None:
            if len(frame) < {b"\x08\0": 34, b"\x86\xdd": 54}.get(frame[12:14], 14):
                return  # the kernel tries none without a whole header
            # ICMPv6 that is too short to have a type goes on, and so to the core.
            cut = look is not Look.NOTHING and frame[12:14] == b"\x86\xdd" and len(frame) < 55
            fits = promoted is not None and key_of(0, frame, look) == promoted and not cut
            found[look, fits] += 1
            assert bpf_syscall.test_run(loaded[look], frame, here) == (TAKEN if fits else GOES_ON)

        @given(st.sampled_from(Look), host_frames([()]) | frames, st.integers(0, 70), st.binary(min_size=1, max_size=1))
        @settings(max_examples=500)
        def trial(look: Look, frame: bytes, place: int, other: bytes) -> None:
            check(look, frame, None)
            pair = key_of(0, frame, look)
            if pair is None:
                return
            fields = header_of(pair), here, *([ip_of(pair)] if pair.ip else [])
            key = (KEY_BY_IP if pair.ip else KEY).pack(*fields)
            bpf_syscall.update(maps[bool(pair.ip)], [(key, VALUE.pack(here, REDIRECT, 0))])
            try:
                check(look, frame, pair)
                check(look, frame[:place] + other + frame[place + 1 :], pair)
            finally:
                bpf_syscall.delete(maps[bool(pair.ip)], [key])

        trial()
    assert all(found[look, fits] for look in Look for fits in (True, False))


TAKEN, GOES_ON = 7, 0xFFFFFFFF  # TCX_REDIRECT, TCX_NEXT


@contextmanager
def programs() -> Iterator[tuple[dict[bool, int], dict[Look, int]]]:
    """The maps, by whether they are by IP, and the programs over them."""
    fds: list[int] = []
    try:
        try:
            for layout in (KEY, KEY_BY_IP):
                fds.append(bpf_syscall.create_map("fb_test", layout.size, VALUE.size, 16))
            for look in Look:
                fds.append(bpf_syscall.load_program("fb_test", program(fds[0], fds[1], look)))
        except bpf_syscall.BpfError as error:
            if error.errno != errno.EPERM:
                raise
            pytest.skip(f"bpf(2): {error.strerror}")
        yield {False: fds[0], True: fds[1]}, dict(zip(Look, fds[2:], strict=True))
    finally:
        for fd in fds:
            os.close(fd)


ECHO, SOLICITATION = b"\x80\0\0\0\0\0\0\0", b"\x87\0\0\0\0\0\0\0" + bytes(16)
OPTIONS = bytes((58, 0, 1, 4, 0, 0, 0, 0))


@pytest.mark.parametrize("policy", ["suppress", "guard=strict"])
@HANDS
def test_of_ipv6_only_what_may_be_nd_goes_to_the_core(hand: str, policy: str) -> None:
    with policed(hand, policy) as (lab, switch), wires(lab) as (one, two, _):
        ends = int(lab["pod2"].mac), int(lab["pod1"].mac)
        addresses = lab["pod1"].ipv6.ip.packed + lab["pod2"].ipv6.ip.packed

        def ipv6(next_header: int, payload: bytes) -> bytes:
            packet = struct.pack("!IHBB", 6 << 28, len(payload), next_header, 255) + addresses + payload
            return ethernet(*ends, ethertype=IPV6, payload=packet)

        def counted() -> tuple[int, int]:
            port = switch.counters().ports["pod1"]
            return port.fast, port.rx_frames

        know_each_other(lab, switch)
        udp = ipv6(17, struct.pack("!HHHH", 9, 9, 8, 0))
        sent = heard = 0

        def all_heard() -> bool:
            nonlocal heard
            heard += two.arrived().count(udp)
            return heard == sent

        def is_promoted() -> bool:
            nonlocal sent
            one.send(udp)
            sent += 1
            eventually(all_heard, "the frame")
            return any(pair.ethertype == IPV6 for pair in pairs(switch))

        eventually(is_promoted, "a pair")
        for frame, fast in (
            (udp, 1),
            (ipv6(58, ECHO), 1),
            (ipv6(58, SOLICITATION), 0),
            (ipv6(60, OPTIONS + SOLICITATION), 0),
            (ipv6(0, OPTIONS + SOLICITATION), 0),
            (ipv6(44, bytes((58, 0, 0, 0, 0, 0, 0, 1)) + SOLICITATION), 0),
            (ipv6(6, bytes(20)), 1),
        ):
            before = counted()
            one.send(frame)
            # What goes to the core is counted there; the pods' own kernels may say something meanwhile.
            eventually(lambda b=before, f=fast: counted()[not f] > b[not f], frame.hex())  # type: ignore[misc]
            assert counted()[0] - before[0] == fast, frame.hex()


def test_to_a_port_that_takes_smaller_frames_the_core_forwards() -> None:
    with fast() as (lab, switch):
        know_each_other(lab, switch)
        port = lab["pod2"].port.name
        lab.run_host(["ip", "link", "set", port, "mtu", "1400"])
        eventually(lambda: not any(p.ingress == 0 for p in switch._fast.lane.head.pairs), "what leads there")  # type: ignore[union-attr]

        def only_back() -> bool:  # back it is no matter
            assert lab["pod1"].ping("pod2", family=4, timeout=PATIENCE).received == 1
            return [p.ingress for p in switch._fast.lane.head.pairs] == [1]  # type: ignore[union-attr]

        eventually(only_back, "the way back alone")
        with wires(lab) as (one, *_):
            one.send(ethernet(int(lab["pod2"].mac), int(lab["pod1"].mac), payload=bytes(1480)))
            eventually(lambda: switch.counters().ports["pod2"].tx_dropped["too_big"] == 1, "the drop")
