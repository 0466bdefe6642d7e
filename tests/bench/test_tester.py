"""The tester: its frames as another decoder reads them, its generator on a pair of sockets, and live trials."""

from __future__ import annotations

import itertools
import os
import socket
import struct
import subprocess
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from effort import few
from live import PATIENCE, eventually, on_one_cpu
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP, Ether

from fastbridge.bench.engines.linux_bridge import LinuxBridge
from fastbridge.bench.engines.running import InKernel, Running
from fastbridge.bench.machine.child import Child
from fastbridge.bench.machine.cpus import Layout
from fastbridge.bench.testbed import Testbed
from fastbridge.bench.tester.frames import announcement, plan, station_mac
from fastbridge.bench.tester.offer import IMIX, Kind, Offer, Phase, Stream, full_mesh, steady
from fastbridge.bench.tester.samples import MissedError, SampleLog, Window
from fastbridge.bench.tester.tester import Tester as LiveTester  # pytest would collect a name that starts with Test
from fastbridge.bench.tester.trial import Trial
from fastbridge.core.tester.arrivals import Arrivals, Heard
from fastbridge.core.tester.traffic import Addresses, Generator, Lane, Sent
from fastbridge.errors import BenchError, ConfigError
from fastbridge.lab.topology import Lab, PodPlan, Topology
from fastbridge.switch.live import Switch

ONE, TWO = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"
STAMPED, OTHER = 0x88B5, 0x88B6
SO_TIMESTAMP = 29  # asm-generic/socket.h
Frames = list[bytes]


def frame(text: bytes = b"", size: int = 60, destination: bytes = TWO) -> bytes:
    return (destination + ONE + b"\x88\xb6" + text).ljust(size, b"\0")


# -- templates -----------------------------------------------------------------------------------

PODS: Any = Topology.of(4, ipv6=None).pods  # a plan has what a template needs of a pod


def made(stream: Stream, pods: Any = PODS) -> list[Any]:
    return [Ether(start[:length].ljust(length, b"\0")) for start, length in plan(stream, pods).templates]


def with_own_checksums(packet: Any) -> bytes:
    again = Ether(bytes(packet))
    for layer in (IP, UDP, ICMPv6ND_NS):
        if layer in again:
            del again[layer].fields["cksum" if layer is ICMPv6ND_NS else "chksum"]
    return bytes(again)


def test_addresses_behind_a_port() -> None:
    assert station_mac(ONE, 5, 0) == ONE
    assert station_mac(ONE, 0x102, 0x030405).hex(":") == "12:01:02:03:04:05"


def test_udp_as_scapy_reads_it() -> None:
    frames = made(Stream(1, (0, 2), (64, 1518), kind="udp", flows=3))
    assert len(frames) == 12  # all destinations of a size and flow, then the next
    for packet in frames:
        assert with_own_checksums(packet) == bytes(packet)
    assert [packet.dst for packet in frames[:2]] == ["02:00:00:00:00:01", "02:00:00:00:00:03"]
    assert [packet[IP].dst for packet in frames[:2]] == ["10.0.0.1", "10.0.0.3"]
    assert {(packet[IP].src, len(packet)) for packet in frames} == {("10.0.0.2", 60), ("10.0.0.2", 1514)}
    assert Counter((packet[IP].dst, len(packet), packet[UDP].sport) for packet in frames).most_common(1)[0][1] == 1
    assert {packet[UDP].sport for packet in frames} == {49152, 49153, 49154}


def test_arp_asks_everybody_for_nobody() -> None:
    (packet,) = made(Stream(1, kind="arp"))
    assert (packet.dst, packet.src, len(packet)) == ("ff:ff:ff:ff:ff:ff", "02:00:00:00:00:02", 60)
    asked = packet[ARP]
    assert (asked.op, asked.hwsrc, asked.psrc, asked.pdst) == (1, packet.src, "10.0.0.2", "10.0.255.253")
    (packet,) = made(Stream(1, (3,), kind="arp"))
    assert packet.dst == "02:00:00:00:00:04"


@pytest.mark.parametrize("destinations", [(), (0,)])
def test_nd_as_scapy_reads_it(destinations: tuple[int, ...]) -> None:
    (packet,) = made(Stream(1, destinations, kind="nd"))
    assert with_own_checksums(packet) == bytes(packet)
    assert packet[ICMPv6ND_NS].lladdr == packet.src == "02:00:00:00:00:02"
    if destinations:
        assert packet.dst == "02:00:00:00:00:01"
    else:
        assert (packet.dst, packet[IPv6].dst) == ("33:33:00:00:00:01", "ff02::1")


def test_every_destination_gets_every_size() -> None:
    stream = Stream(0, (1, 2, 3), IMIX)
    made_plan = plan(stream, PODS)
    turns = [(n % 3, made_plan.templates[n % len(made_plan.templates)][1]) for n in range(3 * 48)]
    for destination in range(3):
        assert Counter(size + 4 for to, size in turns if to == destination) == {64: 28, 570: 16, 1518: 4}


def test_an_announcement_goes_to_itself() -> None:
    whole = announcement(PODS, 2, 0, 1)
    assert whole.templates[0][0][:12] == PODS[2].mac.packed * 2 and whole.sources is None
    many = announcement(PODS, 2, 5, 10)
    assert many.sources is not None and many.sources == many.targets[0]


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (Stream(0, (1,), kind="udp"), "bare has no IPv4 address"),
        (Stream(0, kind="arp"), "bare has no IPv4 address"),
        (Stream(0, kind="nd", sources=2), "has one source"),
        (Stream(0, (1,), kind="udp", flows=16_385), "16385 flows: there are only 16384 source ports"),
        (Stream(0, (1, 2, 3), IMIX, kind="udp", flows=1001), "more than 65536 different frames"),
    ],
)
def test_what_cannot_be_made_says_why(stream: Stream, message: str) -> None:
    pods: Any = PODS if stream.flows > 1 else (PodPlan("bare", PODS[0].mac), *PODS[1:])
    with pytest.raises(BenchError, match=message):
        plan(stream, pods)


# -- generator -----------------------------------------------------------------------------------


def sent_by(make: Callable[[int], Generator], *phases: tuple[Any, Any, Any]) -> tuple[Sent, Frames]:
    """What a generator says it sent on a pair of sockets, and what came out of it."""
    into, out = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with into, out, ThreadPoolExecutor(1) as pool:
        reading = pool.submit(lambda: list(iter(lambda: out.recv(2048), b"")))
        try:
            sent = make(into.fileno()).send(phases)
        finally:
            into.shutdown(socket.SHUT_RDWR)
        return sent, reading.result()


def test_exactly_so_many_frames_in_turn() -> None:
    frames = [frame(b"%d" % n) for n in range(3)]
    sent, came = sent_by(lambda fd: Generator([Lane(fd, frames)]), (None, None, 1000))
    assert came == (frames * 334)[:1000]
    assert (sent.intended, sent.sent, sent.refused, sent.stamped) == (1000, (1000,), 0, 0)


@pytest.mark.parametrize(("rate", "longest"), [(20.0, 1), (None, 16)])
def test_lanes_take_turns(rate: float | None, longest: int) -> None:
    # Paced one frame each: at so low a rate no lane is ever behind by two rounds, unless the machine stands still.
    lanes = [[frame(b"%d" % lane)] for lane in range(3)]
    count = 12 if rate else 1000
    runs = [0]
    for _ in range(20 if rate else 1):
        sent, came = sent_by(lambda fd: Generator([Lane(fd, frames) for frames in lanes]), (None, rate, count))
        runs = [len(list(run)) for _, run in itertools.groupby(came)]
        if max(runs) == longest:
            break
    assert max(runs) == longest
    assert sum(sent.sent) == count and max(sent.sent) - min(sent.sent) <= longest
    assert Counter(came) == {lanes[n][0]: sent.sent[n] for n in range(3)}


def test_addresses_are_counted_in_place() -> None:
    def behind(port: int, number: int) -> bytes:
        return station_mac(bytes([2, 0, 0, 0, 0, port]), port, number)

    sources = Addresses(behind(9, 0), behind(9, 1), 0, 5)
    targets = [Addresses(behind(port, 0), behind(port, 1), 70_000, 300) for port in (1, 2)]
    lane = [frame(size=60), frame(size=70), frame(size=80)]
    _, came = sent_by(lambda fd: Generator([Lane(fd, lane, sources, targets)]), (None, None, 1500))
    for n, one in enumerate(came):
        assert one[:6] == behind(1 + n % 2, 70_000 + n // 2 % 300)
        assert one[6:12] == behind(9, n % 5)
        assert one[12:] == lane[n % 3][12:]


def test_one_in_n_is_stamped() -> None:
    log = array("Q", [0] * 100)
    lanes = [[frame(size=60), frame(size=200)], [frame(size=1514)]]
    before = time.time_ns()
    sent, came = sent_by(
        lambda fd: Generator([Lane(fd, frames) for frames in lanes], sample=7, log=log, trial=3), (None, None, 350)
    )
    after = time.time_ns()
    numbers = [n for n, one in enumerate(came) if one[12:14] == b"\x88\xb5"]
    assert numbers == list(range(0, 350, 7))
    assert sent.stamped == len(numbers) and sum(sent.sent) == 350
    stamped = [came[n] for n in numbers]
    assert {len(one) for one in stamped} == {60, 200, 1514}
    assert all(one[:12] == TWO + ONE for one in stamped)
    assert len({one[38:60] for one in stamped}) == len(stamped)
    assert before <= log[0] and list(log[:50]) == sorted(log[:50]) and log[49] <= after
    assert [struct.unpack_from("=IHHIQ", one, 18) for one in stamped] == [
        (3, one[22], len(one), n, log[n]) for n, one in enumerate(stamped)
    ]


def test_small_frames_are_not_stamped_and_a_full_log_ends_it() -> None:
    log = array("Q", [0] * 5)
    sent, came = sent_by(
        lambda fd: Generator([Lane(fd, [frame(size=59), frame(size=60)])], sample=3, log=log), (None, None, 100)
    )
    assert [n for n, one in enumerate(came) if one[12:14] == b"\x88\xb5"] == [3, 9, 15, 21, 27]
    assert sent.stamped == 5


def test_phases_follow_each_other_at_their_rates() -> None:
    sent, came = sent_by(lambda fd: Generator([Lane(fd, [frame()])]), (0.1, 1000.0, None), (None, 5000.0, 500))
    first, second = sent.phases
    assert (first.intended, second.intended, second.sent) == (100, 500, 500)
    assert first.sent <= 100 and len(came) == first.sent + 500
    assert first.seconds >= 0.1 and 0.1 <= second.seconds < PATIENCE  # not faster than asked, and not stuck
    assert sent.seconds == pytest.approx(first.seconds + second.seconds)


def test_what_the_kernel_refuses_is_counted_and_not_sent() -> None:
    into, out = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with into, out:
        into.setblocking(False)
        sent = Generator([Lane(into.fileno(), [frame()])]).send([(None, None, 100_000)])
    assert sent.refused and sent.intended == 100_000 == sent.refused + sum(sent.sent)


def test_the_stream_that_cannot_be_sent_is_named() -> None:
    into, out = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with into:
        out.close()
        with pytest.raises(OSError, match="stream 0: Connection refused"):
            Generator([Lane(into.fileno(), [frame()])]).send([(None, None, 1)])


@pytest.mark.parametrize(
    "bad",
    [
        lambda: Generator([]),
        lambda: Generator([Lane(0, [])]),
        lambda: Generator([Lane(0, [b"short"])]),
        lambda: Generator([Lane(0, [frame()])], sample=1),
        lambda: Generator([Lane(0, [frame()], Addresses(ONE, ONE, (1 << 24) - 1, 2))]),
        lambda: Generator([Lane(0, [frame()], Addresses(ONE, b"", 0, 2))]),
        lambda: Generator([Lane(0, [frame()])]).send([(1.0, None, 1)]),
        lambda: Generator([Lane(0, [frame()])]).send([(1.0, 0.0, None)]),
    ],
)
def test_a_generator_refuses_nonsense(bad: Callable[[], object]) -> None:
    with pytest.raises(ValueError):
        bad()


# -- samples -------------------------------------------------------------------------------------

NOTHING_WRONG = {"duplicated": 0, "reordered": 0, "corrupted": 0, "missed": 0, "early": 0}


@pytest.fixture
def log() -> Iterator[SampleLog]:
    made = SampleLog()
    yield made
    made.close()


def test_samples_of_known_latency(log: SampleLog) -> None:
    log.sent[:1000] = 10**18 + np.arange(1000) * 1_000_000
    log.arrived[:1000] = log.sent[:1000] + 5_000 + np.arange(1000) * 100
    log.arrived[[300, 700, 701]] = 0
    samples = log.samples(Window(1000, None, 4, 10**18 - 1_000_000), NOTHING_WRONG)
    assert (samples.sent, samples.received) == (1000, 997)
    assert samples.percentiles([100, 50]) == {
        50: pytest.approx(55_000, rel=2e-3),
        100: pytest.approx(104_900, rel=2e-3),
    }
    assert samples.last_lost == pytest.approx(0.702)
    assert samples.longest_gap == pytest.approx(0.0030003)
    log.arrived[:1000] = 0
    lost = log.samples(Window(1000, None, 4, 10**18), NOTHING_WRONG)
    assert (lost.received, lost.percentiles([50]), lost.longest_gap) == (0, {}, 0.0)
    log.clear()
    assert not log.sent[:1000].any()


def test_samples_of_a_broadcast_are_copies(log: SampleLog) -> None:
    log.sent[:2] = 10**18
    log.arrived[[1, 2, 3, 4, 6, 7]] = 10**18 + 1000  # the first from port 0, the second from port 1
    assert log.samples(Window(2, 3, 4, 10**18), NOTHING_WRONG).last_lost is None
    log.arrived[7] = 0
    samples = log.samples(Window(2, 3, 4, 10**18), NOTHING_WRONG)
    assert (samples.sent, samples.received, samples.last_lost) == (6, 5, 0.0)


def test_a_clock_set_back_is_no_latency(log: SampleLog) -> None:
    log.sent[:2], log.arrived[:2] = 10**18, 10**18 - 1
    with pytest.raises(MissedError, match="clock was set back"):
        log.samples(Window(2, None, 2, 10**18), NOTHING_WRONG)


def test_a_missing_histogram_names_the_extra(log: SampleLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hdrh.histogram", None)
    with pytest.raises(BenchError, match=r"pip install -e '\.\[bench\]'"):
        log.samples(Window(0, None, 2, 0), NOTHING_WRONG)


# -- arrivals ------------------------------------------------------------------------------------


def send_all(sender: socket.socket, frames: Iterable[bytes], lab: Lab) -> None:
    """Returns when the last one has arrived at the other pod."""
    with lab["pod2"].socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as last, on_one_cpu():
        last.bind(("eth0", OTHER))
        last.settimeout(PATIENCE)
        for one in (*frames, frame(b"last")):
            sender.send(one)
        while b"last" not in last.recv(2048):
            pass


def hear(frames: Frames, log: Any, *, trial: int = 1, streams: int = 2) -> tuple[Heard, Any, int, int]:
    """Send frames made by hand from one pod to another, and take them there."""
    arrived = array("Q", [0] * len(log))
    with Lab(Topology.of(2, ipv6=None)) as lab, lab.direct():
        sender, hearer = (pod.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) for pod in lab)
        with sender, hearer, ThreadPoolExecutor(1) as pool:
            sender.bind(("eth0", 0))
            arrivals = Arrivals([hearer.fileno()], log, arrived)
            hearer.bind(("eth0", STAMPED))
            arrivals.begin(trial, streams, False)
            before = time.time_ns()
            running = pool.submit(arrivals.run)
            send_all(sender, frames, lab)
            arrivals.stop()
            return running.result(), list(arrived), before, time.time_ns()


def stamped(count: int, streams: int = 2, size: int = 128) -> tuple[Frames, Any]:
    log = array("Q", [0] * count)
    _, frames = sent_by(
        lambda fd: Generator([Lane(fd, [frame(size=size)])] * streams, sample=1, log=log, trial=1), (None, None, count)
    )
    return frames, log


@pytest.mark.live
def test_arrivals_are_stamped_by_the_kernel() -> None:
    frames, log = stamped(20)
    # Nothing else is taken: no other EtherType, nothing without the magic, no other trial's.
    others = [frame(), frame(destination=b"\xff" * 6).replace(b"\x88\xb6", b"\x88\xb5")]
    heard, arrived, before, after = hear(frames + others, log)
    assert heard[:4] == (0, 0, 0, 0)
    assert before <= arrived[0] and arrived == sorted(arrived) and arrived[-1] <= after
    assert hear(frames, log, trial=2)[:2] == (Heard(0, 0, 0, 0, 0), [0] * 20)


@pytest.mark.live
def test_stamps_that_somebody_made_the_kernel_take_before_the_queue_are_counted() -> None:
    frames, log = stamped(20)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMP, 1)
        eventually(lambda: hear(frames, log)[0].early == 20, "the kernel to stamp early")


@pytest.mark.live
def test_duplicates_reordering_and_corruption_are_told_apart() -> None:
    frames, log = stamped(40)
    by_stream = [[one for one in frames if one[22] == stream] for stream in (0, 1)]
    late = by_stream[0].pop(3)
    order = [*by_stream[0], late, late, *by_stream[1]]  # other streams' order does not matter
    bad = by_stream[1][-1]
    for at in (0, 8, 20, 30, 38, 127):  # addresses, trial, time, pattern
        order.append(bad[:at] + bytes([bad[at] ^ 1]) + bad[at + 1 :])
    order += [bad[:-1], bad + b"\0"]
    heard, arrived, *_ = hear(order, log)
    assert heard[:4] == (1, 1, 8, 0)  # duplicated, reordered, corrupted, missed
    assert all(arrived)


@pytest.mark.live
def test_a_full_ring_is_the_receivers_own_loss() -> None:
    frames, log = stamped(1)
    with Lab(Topology.of(2, ipv6=None)) as lab, lab.direct():
        sender, hearer = (pod.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) for pod in lab)
        with sender, hearer:
            sender.bind(("eth0", 0))
            arrivals = Arrivals([hearer.fileno()], log, array("Q", [0]))
            hearer.bind(("eth0", STAMPED))
            arrivals.begin(1, 1, False)
            for _ in range(6):  # no more at once than the kernel holds on their way
                send_all(sender, frames * 500, lab)
            arrivals.stop()
            heard = arrivals.run()
    assert heard.missed > 500 and heard.missed + heard.duplicated + 1 == 3000


# -- live ----------------------------------------------------------------------------------------


class Unjoined(Running):
    """A switch that forwards nothing, until it is restarted."""

    command, buffers = "none", "none"

    def __init__(self, lab: Lab) -> None:
        self.lab, self.restarts, self.joined = lab, list[bool](), None

    def restart(self, kill: bool) -> None:
        self.restarts.append(kill)
        self.stop()
        self.joined = self.lab.bridge()
        self.joined.__enter__()

    def stop(self) -> None:
        if self.joined is not None:
            self.joined.__exit__(None, None, None)
            self.joined = None


@contextmanager
def bridged(pods: int = 3) -> Iterator[LiveTester]:
    with Testbed(LinuxBridge(), pods) as bed:
        yield bed.tester


def check_counts(trial: Trial, strays: int = 8) -> None:
    """Nothing is lost in a bridge without a queue; it adds IGMP reports of its own, flooded to all."""
    assert trial.intended and trial.offered and trial.expected is not None
    assert trial.offered + trial.refused <= trial.intended
    for port, received in enumerate(trial.received):
        senders = [stream for stream in trial.offer.streams if stream.source != port]
        if trial.offer.is_broadcast:
            wanted = sum(trial.sent[stream.source] for stream in senders)
        else:  # destinations in turn
            wanted = sum(
                trial.sent[stream.source] // len(stream.destinations)
                for stream in senders
                if port in stream.destinations
            )
        assert 0 <= received - wanted <= strays, f"port {port}"
    assert trial.loss_ratio == 0
    if trial.samples is not None:
        samples = trial.samples
        assert samples.sent > 0 and samples.received == samples.sent - samples.missed
        assert (samples.duplicated, samples.reordered, samples.corrupted) == (0, 0, 0)
        assert 0 < samples.percentiles([1])[1] < 1e9


@pytest.mark.live
@pytest.mark.slow
def test_every_kind_of_offer_through_a_bridge() -> None:
    with bridged(4) as tester:
        assert tester.ports == 4
        rate, seconds = 4000.0, 0.25
        one = Stream(0, (1,), (128,))
        for stream in (
            one,
            Stream(0, (1, 2), IMIX),
            Stream(2),
            Stream(0, (1, 2), kind="udp", flows=5),
            Stream(0, kind="arp"),
            Stream(0, (3,), kind="arp"),
            Stream(0, kind="nd"),
            Stream(0, (1,), (18, 40)),
            Stream(1, (0, 3), sources=500, targets=500),
        ):
            trial = tester.trial(steady(stream, seconds, rate, sample=0 if stream.sizes[0] < 64 else 10))
            check_counts(trial)
            assert trial.intended == 1000
            assert trial.cpu_switch_seconds is None and 0 < trial.window_seconds < trial.seconds
        mesh = tester.trial(steady(full_mesh(4), seconds, rate, sample=10))
        check_counts(mesh)
        assert len([sent for sent in mesh.sent if sent]) == 4
        unpaced = tester.trial(steady(one, seconds))
        check_counts(unpaced)
        assert unpaced.samples is None and (unpaced.frames_per_second or 0) > rate


@pytest.mark.parametrize(
    ("frames", "octets", "found"),
    [
        (10, 10 * 124, (10, 10 * 124)),
        (4, 4 * 42 + 10 * 82, (10, 10 * 124)),  # six have no headers of their own
        (5, 4 * 124 + 60, (5, 4 * 124 + 60)),  # one of them is another's
    ],
)
def test_coalesced_datagrams_are_told_apart_by_their_bytes(frames: int, octets: int, found: tuple[int, int]) -> None:
    phases = (Phase(1.0),)
    assert Offer((Stream(0, (1,), (128,), kind="udp"),), phases).apart(frames, octets) == found
    for other in Stream(0, (1,), (128,)), Stream(0, (1,), (128, 256), kind="udp"), Stream(0, (1,), (46,), kind="udp"):
        assert Offer((other,), phases).apart(frames, octets) == (frames, octets)


@pytest.mark.live
@pytest.mark.parametrize("size", [128, 1518])
def test_datagrams_that_the_switch_coalesces_are_counted_one_by_one(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with Lab(Topology.of(2, ipv6=None)) as lab:
        switch = Switch(lab.ports, fast_path="off")  # it merges what goes through the core
        running = InKernel("a switch of this process", lambda link: switch)
        # What waits in the ring of a switch that gets no CPU comes late.
        layout = Layout.of_machine()
        with running, LiveTester(lab, running, name="switch", layout=layout, settle=1.0) as tester:
            monkeypatch.setattr("fastbridge.bench.tester.tester.ATTEMPTS", 1)  # or the counters have those before, too
            for _ in range(100):  # until frames come faster than they are sent on one by one
                before = switch.counters().ports["pod2"]
                try:
                    trial = tester.trial(steady(Stream(0, (1,), (size,), kind="udp"), 0.25))
                except BenchError as error:
                    assert "the machine is too busy" in str(error)
                    continue
                after = switch.counters().ports["pod2"]
                assert abs(trial.received[1] - (after.tx_frames - before.tx_frames)) <= 2
                assert trial.loss_ratio is not None and 0 <= trial.loss_ratio < 1
                if after.coalesced > before.coalesced:
                    return
    raise AssertionError("nothing was coalesced")


@pytest.mark.live
@pytest.mark.parametrize("rate", [10_000.0, 50_000.0])
def test_what_is_offered_is_what_was_intended(rate: float) -> None:
    with bridged(2) as tester:
        for _ in range(100):  # the machine may be busy
            trial = tester.trial(steady(Stream(0, (1,)), 0.25, rate))
            assert trial.intended == 0.25 * rate
            if abs((trial.offered_rate or 0) / rate - 1) < 0.01 and (trial.offered or 0) > 0.99 * trial.intended:
                return
    pytest.fail(f"offered {trial.offered} of {trial.intended} frames in {trial.seconds} s")


@pytest.mark.live
def test_a_load_without_a_frame_is_refused() -> None:
    with bridged(2) as tester, pytest.raises(BenchError, match=r"a trial of 0\.3 s has no frame"):
        tester.trial(steady(Stream(0, (1,)), 0.3, 1.0))


@pytest.mark.live
def test_addresses_are_learned_anew_before_they_age(monkeypatch: pytest.MonkeyPatch) -> None:
    offer = steady(Stream(0, (1,), targets=50), 0.25, 4000.0)
    with bridged(2) as tester:
        tester.trial(offer)
        _, first = tester._learned
        tester.trial(offer)
        assert tester._learned[1] == first
        monkeypatch.setattr(
            "fastbridge.bench.tester.tester.AGEING", time.monotonic() - first + 0.1
        )  # less than the trial
        tester.trial(offer)
        assert tester._learned[1] > first


@pytest.mark.live
def test_a_clock_set_back_is_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, set_back = SampleLog.samples, [True]

    def samples(self: SampleLog, window: Window, heard: dict[str, int]) -> Any:
        if set_back and set_back.pop():
            self.sent[: window.stamped] += 10**12
        return whole(self, window, heard)

    monkeypatch.setattr(SampleLog, "samples", samples)
    with bridged(2) as tester:
        check_counts(tester.trial(steady(Stream(0, (1,)), 0.25, 4000.0, sample=10)))
    assert not set_back


def test_last_words_are_the_last_of_many() -> None:
    talk = "import sys; sys.stderr.write('x' * 9999 + '\\n' + 'the end\\n')"
    child = Child(subprocess.Popen, [sys.executable, "-c", talk], name="talker")
    child.process.wait(60)
    assert child.last_words() == ": the end"
    at = os.lseek(child._stderr.fileno(), 0, os.SEEK_CUR)
    assert at == 10_008  # the place is the child's, too: it would write over what it said
    child.stop()


@pytest.mark.live
def test_bursts_are_counted_to_the_frame() -> None:
    with bridged(2) as tester:
        trial = tester.trial(Offer((Stream(0, (1,)),), (Phase(frames=1000), Phase(frames=500, rate=5000)), sample=100))
        check_counts(trial)
        assert (trial.intended, trial.offered) == (1500, 1500)
        assert trial.window_seconds == trial.seconds and (trial.window_frames or 0) >= 1500
        assert trial.samples is not None and trial.samples.sent == 15


@pytest.mark.live
def test_learned_addresses_are_not_flooded_and_others_are() -> None:
    with bridged(3) as tester:
        offer = steady(Stream(0, (1,), targets=1000), 0.25, 4000.0)

        def all_flooded() -> bool:
            """With an empty FDB; a few may be lost.

            A trial that the machine is too busy for is not repeated by itself: it has learned.
            """
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    trial = tester.trial(replace(offer, learn=False))
                    return trial.received[2] >= 0.9 * (trial.offered or 1)
                except BenchError as error:
                    assert "too busy" in str(error) and time.monotonic() < deadline
                    tester.restart()

        assert all_flooded()
        assert tester.trial(offer).received[2] <= 8
        tester.restart()
        assert all_flooded()


@pytest.mark.live
def test_tcp_and_frames_in_one_tester() -> None:
    with bridged(2) as tester:
        trial = tester.trial(steady(Stream(0, (1,), kind="tcp"), 1.0))
        assert trial.gigabits_per_second > 0.01 and trial.offered is None and trial.window_frames is None
        check_counts(tester.trial(steady(Stream(1, (0,)), 0.25, 4000.0)))
        with pytest.raises(ConfigError, match="one destination"):
            tester.trial(steady(Stream(0, kind="tcp"), 0.2))
        with pytest.raises(ConfigError, match="only pings have a rate"):
            tester.trial(steady(Stream(0, (1,), kind="tcp"), 0.2, 1000.0))


@pytest.mark.live
def test_several_connections_of_a_program_that_the_scheduler_places() -> None:
    with bridged(2) as tester:
        trial = tester.trial(steady(Stream(0, (1,), kind="tcp", flows=8, pinned=False), 1.0))
        assert trial.gigabits_per_second > 0.01
        (cpus,) = {
            len(os.sched_getaffinity(agent._child.process.pid))
            for (_, port, _), agent in tester._end_to_end._agents.items()
            if port == 1 and agent._child is not None
        }
        assert cpus == len(os.sched_getaffinity(0))


@pytest.mark.live
@pytest.mark.parametrize("kind", few(1, ["tcp-rr", "tcp-crr"]))
def test_requests_are_answered_each_in_its_time(kind: Kind) -> None:
    with bridged(2) as tester:
        for _ in range(2):  # the second begins where the first has ended
            before = tester._pods[1].counters().rx_frames
            trial = tester.trial(steady(Stream(0, (1,), kind=kind), 1.0))
            samples = trial.samples
            assert samples is not None and samples.received == samples.sent > 0
            assert trial.window_bytes == 2 * samples.received and trial.offered is None
            assert tester._pods[1].counters().rx_frames - before >= (5 if kind == "tcp-crr" else 1) * samples.received
            median = samples.percentiles([50.0])[50.0]
            assert 0 < median * 1e-9 < trial.seconds
        waiting = tester._pods[1].run(["cat", "/proc/net/sockstat"]).stdout
        assert "tw 0" in waiting.partition("TCP:")[2].partition("\n")[0]  # no port is used up


@pytest.mark.live
def test_pings_alone_and_beside_a_bulk_transfer() -> None:
    ping, bulk = Stream(0, (1,), kind="ping"), Stream(0, (1,), kind="tcp")
    with bridged(2) as tester:
        alone = tester.trial(steady(ping, 0.2, 500.0))
        assert alone.samples is not None and alone.samples.received == alone.samples.sent
        assert 0 < alone.samples.sent <= 101  # a late one delays the others
        assert alone.window_bytes == 56 * alone.samples.received

        def bulk_is_more() -> bool:
            beside = tester.trial(steady((ping, bulk), 0.2, 500.0))
            assert beside.samples is not None and beside.samples.received
            return beside.gigabits_per_second > 100 * alone.gigabits_per_second

        eventually(bulk_is_more, "a bulk transfer beside pings")


@pytest.mark.live
def test_a_ping_that_nobody_answers_is_lost() -> None:
    with bridged(2) as tester:
        pod = tester._pods[1]
        pod.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv4/icmp_echo_ignore_all"])
        with pytest.raises(BenchError, match="forwarded nothing"):
            tester.trial(steady(Stream(0, (1,), kind="ping"), 0.2, 100.0))


@pytest.mark.live
def test_requests_without_an_answer_end_with_a_reason() -> None:
    with (
        Lab(Topology.of(2, ipv6=None)) as lab,
        Unjoined(lab) as running,
        LiveTester(lab, running, name="late", layout=Layout.of_machine()) as tester,
        pytest.raises(BenchError, match=r"the tester in pod1: (timed out|No route to host|Connection timed out)"),
    ):
        tester.trial(steady(Stream(0, (1,), kind="tcp-rr"), 1.0))


@pytest.mark.live
@pytest.mark.slow
def test_an_engine_restarted_under_load() -> None:
    with (
        Lab(Topology.of(2, ipv6=None)) as lab,
        Unjoined(lab) as running,
        LiveTester(lab, running, name="late", layout=Layout.of_machine()) as tester,
    ):
        offer = steady(Stream(0, (1,)), 0.4, 5000.0, sample=10)
        with pytest.raises(BenchError, match="late forwarded nothing"):
            tester.trial(offer)
        # Broadcasts and bursts may vanish.
        assert tester.trial(steady(Stream(0), 0.25, 1000.0)).forwarded == 0
        assert tester.trial(Offer(offer.streams, (Phase(frames=1),))).forwarded == 0

        def restarted_in_the_middle() -> bool:
            """On a busy machine the bridge may be there late, or what was to be sent before comes after it."""
            running.stop()
            running.restarts.clear()
            try:
                trial = tester.trial(replace(offer, restart="killed"))
            except BenchError as error:
                assert "late forwarded nothing" in str(error)
                return False
            assert running.restarts == [True]
            assert trial.offered is not None and trial.forwarded is not None and trial.samples is not None
            assert trial.intended == 2000
            return (
                0 < trial.forwarded < 0.6 * trial.offered
                and 0.15 < (trial.samples.last_lost or 0) < trial.seconds
                and 0 < trial.samples.received < trial.samples.sent
            )

        eventually(restarted_in_the_middle, "a restart in the middle of a trial")


@pytest.mark.slow
@pytest.mark.live
@pytest.mark.parametrize("station", ["_senders", "_receiver"])
def test_a_station_that_dies_is_named_and_started_again(station: str) -> None:
    offer = steady(Stream(0, (1,)), 0.25, 4000.0, sample=10)
    with bridged(2) as tester:
        tester.trial(offer)
        found = getattr(tester, station)
        child = (found[0] if station == "_senders" else found)._child
        child.process.kill()
        eventually(lambda: child.process.poll() is not None)
        with pytest.raises(
            BenchError, match=f"the tester's {station.strip('_').removesuffix('s')} was killed by signal 9"
        ):
            tester.trial(offer)
        check_counts(tester.trial(offer))


@pytest.mark.live
@pytest.mark.slow
def test_a_trial_whose_window_was_missed_is_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    late = [0.3]

    def oversleep(moment: float) -> None:
        time.sleep(max(0.0, moment - time.monotonic()) + (late.pop() if late else 0.0))

    monkeypatch.setattr("fastbridge.bench.tester.tester._sleep_until", oversleep)
    offer = steady(Stream(0, (1,)), 0.25, 4000.0, sample=10)
    with bridged(2) as tester:
        check_counts(tester.trial(offer))
        assert not late
        late[:] = [0.3] * 6
        monkeypatch.setattr("fastbridge.bench.tester.tester.ATTEMPTS", 3)
        with pytest.raises(BenchError, match=r"bridge: no trial was valid: .* the windows were missed"):
            tester.trial(offer)
        late[:] = []
        monkeypatch.setattr("fastbridge.bench.tester.tester.ATTEMPTS", 100)
        check_counts(tester.trial(offer))


@pytest.mark.live
def test_frames_too_long_for_the_link_are_refused_and_the_others_sent() -> None:
    with bridged(2) as tester:
        trial = tester.trial(Offer((Stream(0, (1,), (1518, 1519)),), (Phase(frames=1000, rate=4000.0),)))
        assert (trial.intended, trial.offered, trial.refused) == (1000, 500, 500)
        check_counts(trial)


@pytest.mark.live
def test_what_the_lab_cannot_do_says_why() -> None:
    with bridged(2) as tester:
        with pytest.raises(ConfigError, match="there is no port 2"):
            tester.trial(steady(Stream(0, (2,)), 0.25))
        check_counts(tester.trial(steady(Stream(0, (1,)), 0.25, 4000.0)))
