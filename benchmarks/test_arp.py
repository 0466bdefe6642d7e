"""Who asks whom: pods that resolve each other, and questions answered by the policy."""

from __future__ import annotations

import itertools
import socket
import struct
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address
from typing import Any

import pytest
from arp_parts import Sender, arp_request, percentile, switched
from work import Figures, Work, record

from fastbridge import Switch, Topology
from fastbridge.bench.machine.cpus import Layout
from fastbridge.lab.link_counters import interface_index
from fastbridge.lab.topology import kernel_has_ipv6
from fastbridge.open_files import reserve_files

PODS = 100
# All namespaces share one neighbour table of 1,024 entries (net.ipv4.neigh.default.gc_thresh3). An asker makes 99, and
# its questions as many in others.
ASKERS = 2
POLICIES = ("flood", "suppress")
FAMILIES = (4, 6) if kernel_has_ipv6() else (4,)
PORT = 9  # discard
PATIENCE, SETTLE, CHATTER = 5.0, 0.005, 1.5
SO_TIMESTAMPNS = 35
RTM_DELNEIGH, NLM_F_REQUEST, NDA_DST = 29, 1, 1
GROUP = bytes.fromhex("ff0200000000000000000001ff")  # of solicited nodes (RFC 4291 §2.7.1)

REQUESTS = 1000  # in memory: as many as the queue takes from one port
LIVE_SECONDS = 2.0


class Pods:
    """A lab's pods with a UDP socket each: a first datagram to a neighbour makes the kernel ask."""

    def __init__(self, stack: ExitStack, policy: str) -> None:
        reserve_files(PODS * 8)
        self.lab = switched(stack, Topology.of(PODS, ipv6="fd00::/64" if 6 in FAMILIES else None), policy)
        self.sockets: dict[int, list[socket.socket]] = {family: [] for family in FAMILIES}
        for pod in self.lab:
            pod.namespace.write_sysctl("net/ipv6/conf/eth0/router_solicitations", 0)
            for family, kind in (4, socket.AF_INET), (6, socket.AF_INET6):
                if family in FAMILIES:
                    sock = stack.enter_context(pod.socket(kind, socket.SOCK_DGRAM))
                    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
                    if family == 6:
                        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    sock.bind(("", PORT))
                    sock.setblocking(False)
                    self.sockets[family].append(sock)
        self.links = [stack.enter_context(pod.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)) for pod in self.lab]
        (self.index,) = {interface_index(link, pod.interface) for link, pod in zip(self.links, self.lab, strict=True)}
        self.addresses = {
            4: [pod.ipv4.ip.packed for pod in self.lab if pod.ipv4],
            6: [pod.ipv6.ip.packed for pod in self.lab if pod.ipv6],
        }
        self.seconds: dict[int, list[float]] = defaultdict(list)
        self.frames: dict[int, int] = defaultdict(int)

    def delivered(self, quiet: float) -> int:
        """Frames that reached the pods, once no more come."""
        frames = -1
        while (now := sum(pod.counters().rx_frames for pod in self.lab)) != frames:
            frames = now
            time.sleep(quiet)
        return frames

    def resolve(self, askers: range, family: int) -> None:
        """Let these pods send one datagram to every other one; none is known before, nor afterwards."""
        before = self.delivered(SETTLE)
        for asker in askers:
            for target, address in enumerate(self.addresses[family]):
                if target != asker:
                    where = str(ip_address(address)), PORT
                    self.sockets[family][asker].sendto(struct.pack("=Q", time.time_ns()), where)
        due = len(askers) * (PODS - 1)
        deadline, heard = time.monotonic() + PATIENCE, 0
        while heard < due:
            assert time.monotonic() < deadline, f"{due - heard} of {due} datagrams have not arrived"
            heard += sum(self.receive(sock, family) for sock in self.sockets[family])
        self.frames[family] += self.delivered(SETTLE) - before - due
        self.forget(askers, family)

    def receive(self, sock: socket.socket, family: int) -> int:
        """Note how long each datagram in a socket took, from its sending to the kernel's own time of arrival."""
        for count in itertools.count():
            try:
                data, [(_, _, stamp)], _, _ = sock.recvmsg(64, 64)
            except BlockingIOError:
                return count
            seconds, nanoseconds = struct.unpack("=qq", stamp)
            sent = struct.unpack("=Q", data)[0]
            self.seconds[family].append((seconds * 1_000_000_000 + nanoseconds - sent) * 1e-9)
        raise AssertionError

    def forget(self, askers: range, family: int) -> None:
        """Remove what the askers have learned, and what others have from their questions."""
        every = b"".join(map(self.removal, self.addresses[family]))
        if family == 6:  # the groups that solicitations went to
            every += b"".join(self.removal(GROUP + address[-3:]) for address in self.addresses[6])
        theirs = b"".join(self.removal(self.addresses[family][asker]) for asker in askers)
        for pod, link in enumerate(self.links):
            link.send(every if pod in askers else theirs)

    def removal(self, address: bytes) -> bytes:
        """RTM_DELNEIGH of eth0's neighbour at this address; of one that there is not, it does nothing."""
        family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
        body = (
            struct.pack("=BxxxiHBB", family, self.index, 0, 0, 0)
            + struct.pack("=HH", 4 + len(address), NDA_DST)
            + address
        )
        return struct.pack("=IHHII", 16 + len(body), RTM_DELNEIGH, NLM_F_REQUEST, 0, 0) + body


@pytest.fixture(scope="module")
def resolved() -> Iterator[dict[str, Pods]]:
    """All pairs, a few askers at a time, with each policy in turn."""
    with ExitStack() as stack:
        labs = {policy: Pods(stack, policy) for policy in POLICIES}
        for pods in labs.values():
            pods.delivered(CHATTER)  # until the kernels have introduced themselves
        for first, family in itertools.product(range(0, PODS, ASKERS), FAMILIES):
            for policy in POLICIES if first // ASKERS % 2 else POLICIES[::-1]:
                labs[policy].resolve(range(first, first + ASKERS), family)
        yield labs


@pytest.mark.live
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.benchmark(group="arp", timer=Work.time)
def test_resolve(benchmark: Any, resolved: dict[str, Pods], family: int, policy: str) -> None:
    pods = resolved[policy]
    samples = pods.seconds[family]
    figures: Figures = {
        "ms p50": percentile(samples, 0.5) * 1e3,
        "ms p99": percentile(samples, 0.99) * 1e3,
        "frames delivered to pods": pods.frames[family],
    }
    if policy != "flood":
        figures["% fewer than by flooding"] = 100 * (1 - pods.frames[family] / resolved["flood"].frames[family])
    what = f"all pairs of {PODS} pods, {'ARP' if family == 4 else 'ND'}"
    record(benchmark, samples, what, figures)


@pytest.mark.parametrize("policy", ["suppress", "guard,suppress"])
@pytest.mark.benchmark(group="arp")
def test_decide(benchmark: Any, policy: str) -> None:
    """Punt, read, decide, observe and send in memory: what one core of Python is good for."""
    plan = Topology.of(PODS, ipv6=None).pods
    switch = Switch.in_memory(PODS, policy=policy)
    for port, pod in enumerate(plan):
        switch.process(port, [arp_request(pod, pod)])
    frames = [arp_request(plan[0], plan[1 + n % (PODS - 1)]) for n in range(REQUESTS)]
    copies = benchmark.pedantic(switch.process, args=(0, frames), rounds=50, warmup_rounds=5)
    assert [copy.port for copy in copies] == [0] * REQUESTS
    if benchmark.stats:
        each = benchmark.stats.stats.median / REQUESTS
        benchmark.extra_info.update(what="request answered in Python", ns=each * 1e9, mega_per_second=1e-6 / each)


@pytest.mark.live
@pytest.mark.parametrize(
    ("policy", "rate"),
    [("suppress", 50_000), ("suppress", None), ("guard,suppress", None)],
    ids=["suppress-50k", "suppress-saturating", "guard,suppress-saturating"],
)
@pytest.mark.benchmark(group="arp", timer=Work.time)
def test_answers(benchmark: Any, policy: str, rate: float | None) -> None:
    """The same between pods: the switch's threads and the asker's stack share a CPU, the generator has another.

    What finds no room in the queue is flooded by suppress, which costs more than the answers, and dropped by guard.
    """
    layout = Layout.of_machine()
    with ExitStack() as stack:
        lab = switched(stack, Topology.of(20, ipv6=None), policy)
        asker, *owners = lab
        station = Sender(stack, asker, layout.sender)
        for owner in owners:
            assert owner.ping(asker)
        before, began = asker.counters().rx_frames, time.monotonic()
        station.begin([arp_request(asker, owner) for owner in owners], LIVE_SECONDS, rate)
        asked = station.end(LIVE_SECONDS + 5.0)
        answered = (asker.counters().rx_frames - before) / (time.monotonic() - began)
    figures = {"asked a second": round(asked), "answered a second": round(answered)}
    record(benchmark, [1 / answered], "request answered live", figures)
