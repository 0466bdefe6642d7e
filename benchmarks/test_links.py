"""Emulated links, calibrated by other people's programs: ping, iperf3, tcpdump and trafgen.

Every figure has a control beside it: the same without a link. The bench's method `emulation` measures the stages one by
one with its own tester (`fastbridge compare --methods emulation`); this is what users see.

    apt-get install iperf3 iputils-ping tcpdump netsniff-ng ethtool
    pytest --benchmark-only benchmarks/test_links.py      # some minutes; --link-seconds 30 for the length of the docs
"""

from __future__ import annotations

import json
import os
import random
import re
import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import pytest
from live import eventually

from fastbridge import Lab, PrivilegeError, Switch, Topology
from fastbridge.bench.engines.engine import lacks_program
from fastbridge.lab.pods import Pod

pytestmark = [pytest.mark.live, pytest.mark.benchmark(group="links")]

#: Of a full frame: what TCP carries (timestamps included in its header), and what it takes without FCS.
TCP_PAYLOAD, FULL_FRAME = 1448, 1514

#: TCP that keeps a queue filled. BBR, the default of some machines, empties it every ten seconds for 0.2 s (ProbeRTT),
#: and so leaves some 2 % of any rate unused, whatever the link does.
FILLS = ("cubic", "reno")


@pytest.fixture
def seconds(request: pytest.FixtureRequest) -> float:
    return float(request.config.getoption("--link-seconds"))


@contextmanager
def pods(count: int, **options: Any) -> Iterator[tuple[Lab, Switch]]:
    for package, program in (("iputils-ping", "ping"), ("iperf3", "iperf3")):
        if reason := lacks_program(package, program):
            pytest.skip(reason)
    try:
        with Lab(Topology.of(count, ipv6=None)) as lab, Switch(lab.ports, **options) as switch:
            yield lab, switch
    except PrivilegeError as error:
        pytest.skip(str(error))


def note(benchmark: Any, what: str, **figures: float) -> None:
    """Take the figures as they are: nothing is timed here."""
    benchmark.pedantic(lambda: None, rounds=1)
    benchmark.extra_info.update(what=what, figures={**figures, "load average": os.getloadavg()[0]})


def pings(source: Pod, target: Pod, count: int, interval: float) -> list[float]:
    """Round trips, in ms."""
    assert target.ipv4
    argv = ["ping", "-n", "-i", f"{interval}", "-c", f"{count}", str(target.ipv4.ip)]
    said = source.run(argv, timeout=20 + 2 * count * interval, check=False).stdout
    times = [float(each) for each in re.findall(r"time=([\d.]+) ms", said)]
    assert times, said[-300:]
    return times


def percentiles(times: list[float]) -> dict[str, float]:
    cuts = quantiles(times, n=100)
    return {"least ms": min(times), "p50 ms": cuts[49], "p99 ms": cuts[98], "answered": len(times)}


@contextmanager
def iperf3_server(pod: Pod) -> Iterator[None]:
    server = pod.popen(["iperf3", "-s"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: ":5201 " in pod.run(["ss", "-Hltn"]).stdout, "iperf3 to listen")
        yield
    finally:
        server.kill()
        server.wait()


def iperf3(source: Pod, target: Pod, *options: str, timeout: float) -> dict[str, Any]:
    assert target.ipv4
    said = source.run(["iperf3", "-J", "-c", str(target.ipv4.ip), *options], timeout=timeout).stdout
    end: dict[str, Any] = json.loads(said)["end"]
    return end


@contextmanager
def noise(source: Pod, target: Pod, rate: int, directory: Path) -> Iterator[None]:
    """Frames of 64 bytes at a rate, from one pod to another, while the block lasts."""
    if reason := lacks_program("netsniff-ng", "trafgen"):
        pytest.skip(reason)
    destination, origin = target.mac.packed, source.mac.packed
    frame = ", ".join(f"0x{byte:02x}" for byte in destination + origin + b"\x88\xb5" + bytes(46))
    configuration = directory / "noise.cfg"
    configuration.write_text("{ " + frame + " }")
    argv = ["trafgen", "--in", str(configuration), "--out", "eth0", "--rate", f"{rate}pps", "--no-cpu-stats"]
    sender = source.popen([*argv, "-P1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(1.0)
        assert sender.poll() is None
        yield
    finally:
        sender.kill()
        sender.wait()


REAL_TIME = pytest.mark.parametrize("real_time", [False, True], ids=["as others", "in real time"])


@REAL_TIME
@pytest.mark.parametrize("loaded", [False, True], ids=["alone", "beside 100,000 frames a second"])
@pytest.mark.parametrize("delay", ["0", "0.1ms", "1ms", "20ms", "300ms"], ids="{} each way".format)
def test_ping(benchmark: Any, tmp_path: Path, seconds: float, delay: str, loaded: bool, real_time: bool) -> None:
    """The round trip over two links; "0" is the control."""
    with pods(4, real_time=real_time) as (lab, switch):
        one, other, third, fourth = lab.pods
        pings(one, other, 3, 0.01)
        third.ping(fourth)
        for pod in (one, other):
            switch.set_link(pod.port.name, f"to_pod.delay={delay}" if delay != "0" else None)
        if not loaded:
            times = pings(one, other, int(seconds * 200), 0.005)
        else:
            with noise(third, fourth, 100_000, tmp_path):
                before = switch.counters().total
                times = pings(one, other, int(seconds * 200), 0.005)
                assert switch.counters().total.forwarded + switch.counters().total.fast > before.forwarded
        what = f"ping, {delay} each way, {'loaded' if loaded else 'alone'}{', in real time' if real_time else ''}"
        note(benchmark, what, **percentiles(times))


@REAL_TIME
def test_wake_up(benchmark: Any, seconds: float, real_time: bool) -> None:
    """Control of test_ping: how late the machine wakes a thread that sleeps. A ping over two links waits for two."""

    def sleeper() -> list[float]:
        if real_time:
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        late, due = [], time.monotonic()
        for _ in range(int(seconds * 200)):
            due = max(due + 0.005, time.monotonic())  # a long pause is one wake-up, not many
            time.sleep(max(0.0, due - time.monotonic()))
            late.append(1e3 * (time.monotonic() - due))
        return late

    with ThreadPoolExecutor(1) as pool:
        try:
            late = pool.submit(sleeper).result()
        except PermissionError:
            pytest.skip("this process may have no real-time threads")
    what = f"a bare thread's wake-ups, {'in real time' if real_time else 'as others'}"
    note(
        benchmark,
        what,
        **{"p50 late ms": median(late), "p99 late ms": quantiles(late, n=100)[98], "most late ms": max(late)},
    )


@pytest.mark.parametrize("delay", ["0", "10ms", "300ms"], ids="{} each way".format)
def test_tcp_over_delay(benchmark: Any, seconds: float, delay: str) -> None:
    """TCP's rate where the round trip is long: a window a round trip at most. "0" is the control."""
    with pods(2) as (lab, switch), iperf3_server(lab.pods[1]):
        one, other = lab.pods
        for pod in (one, other):
            pod.run(
                ["sysctl", "-qw", "net.ipv4.tcp_rmem=4096 131072 16777216", "net.ipv4.tcp_wmem=4096 65536 33554432"]
            )
            switch.set_link(pod.port.name, None if delay == "0" else f"to_pod.delay={delay}")
        round_trip = median(pings(one, other, 5, 0.2)) / 1e3
        omit = round(max(2.0, 20 * round_trip))
        end = iperf3(one, other, "-t", f"{seconds:.0f}", "-O", f"{omit}", timeout=60 + 3 * seconds + omit)
        rate, sender = end["sum_received"]["bits_per_second"], end["streams"][0]["sender"]
        window = sender["max_snd_wnd"]
        note(
            benchmark,
            f"TCP, {delay} each way",
            **{"Gb/s": rate / 1e9, "of window / RTT": rate * round_trip / 8 / window, "window MB": window / 1e6},
            **{"retransmits": sender["retransmits"], "RTT ms": 1e3 * round_trip},
        )


@pytest.mark.parametrize("loss", [0.01, 0.0005], ids="{:.2%}".format)
def test_loss(benchmark: Any, loss: float) -> None:
    """A million datagrams, as iperf3 counts them; the control is the same without a link.

    What iperf3 misses, and neither the link, the switch nor the receiver's full socket has lost, has no account."""
    count, size = 1_000_000, 64
    with pods(2) as (lab, switch), iperf3_server(lab.pods[1]):
        one, other = lab.pods
        lost, elsewhere = {}, {}
        for name, link in (("control", None), ("link", f"to_pod.loss={loss:.2%},seed=7")):
            switch.set_link(other.port.name, link)
            before = lost_by_machine(switch, other)
            options = ["-u", "-b", "10M", "-w", "2M", "-l", f"{size}", "-k", f"{count}"]
            end = iperf3(one, other, *options, timeout=180.0)["sum"]
            lost[name] = end["lost_packets"]
            elsewhere[name] = lost_by_machine(switch, other) - before
        of_link = switch.links[other.port.name].counts["to_pod"].lost
        deviation = (count * loss * (1 - loss)) ** 0.5
        z = (lost["link"] - elsewhere["link"] - count * loss) / deviation
        note(
            benchmark,
            f"loss {loss:.2%} of 1,000,000",
            **lost,
            wanted=count * loss,
            **{"lost by the link": of_link, "by a full socket or ring": elsewhere["link"], "standard deviations": z},
        )
        assert abs(z) <= 2.576


def lost_by_machine(switch: Switch, receiver: Pod) -> int:
    """Datagrams that a receiver's socket had no room for, and frames that the switch lost, but not to a link."""
    names, values = [
        line.split() for line in receiver.run(["cat", "/proc/net/snmp"]).stdout.splitlines() if "Udp:" in line
    ]
    total = switch.counters().total
    lost_sending = sum(count for reason, count in total.tx_dropped.items() if not reason.startswith("link_"))
    return int(values[names.index("RcvbufErrors")]) + total.rx_missed + lost_sending


def test_tcp_losses_are_single(benchmark: Any, seconds: float) -> None:
    """How many segments of a TCP stream are lost in a row: a geometric number at 1 %, never a whole GSO frame.

    The sender numbers its packets by their IPv4 ID, so what is missing among those that arrive is what was lost."""
    for package, program in (("tcpdump", "tcpdump"), ("ethtool", "ethtool")):
        if reason := lacks_program(package, program):
            pytest.skip(reason)
    with pods(2) as (lab, switch), iperf3_server(lab.pods[1]):
        one, other = lab.pods
        other.run(["ethtool", "-K", "eth0", "gro", "off"])
        switch.set_link(other.port.name, "to_pod.loss=1%,seed=7")
        argv = ["tcpdump", "-Z", "root", "-ni", "eth0", "-s", "64", "-B", "65536", "-w", "-", "dst port 5201"]
        with other.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as dump:
            time.sleep(1.0)
            ending = threading.Timer(min(seconds, 5) + 3, dump.terminate)
            ending.start()
            sender = threading.Thread(
                target=lambda: iperf3(one, other, "-t", f"{min(seconds, 5):.0f}", "-b", "300M", timeout=60.0)
            )
            sender.start()
            packets, text = dump.communicate()
            sender.join()
        said, runs = text.decode(), runs_of_losses(packets)
        lost = switch.links[other.port.name].counts["to_pod"].lost
        assert "0 packets dropped by kernel" in said, said
        count, in_runs = sum(runs.values()), sum(length * times for length, times in runs.items())
        note(
            benchmark,
            "TCP at 1 % loss",
            **{
                "runs of losses": count,
                "segments lost": in_runs,
                "mean run": in_runs / count,
                "longest run": max(runs),
            },
            **{"share of runs of one": runs[1] / count, "lost by the link": lost},
        )
        assert runs[1] / count > 0.95


def runs_of_losses(pcap: bytes) -> Counter[int]:
    """How often so many packets in a row are missing, by the IPv4 IDs of the stream with the most packets."""
    flows: dict[bytes, list[tuple[int, int]]] = {}
    at = 24
    while at + 16 <= len(pcap):
        (captured,) = struct.unpack_from("<I", pcap, at + 8)
        packet = pcap[at + 16 : at + 16 + captured]
        at += 16 + captured
        if len(packet) >= 54 and packet[12:14] == b"\x08\x00":
            payload = int.from_bytes(packet[16:18], "big") - 20 - 4 * (packet[46] >> 4)
            segments = max(1, -(-payload // TCP_PAYLOAD))  # a GSO frame has the numbers of all its segments
            flows.setdefault(packet[26:38], []).append((int.from_bytes(packet[18:20], "big"), segments))
    packets = max(flows.values(), key=len)
    gaps = ((later - earlier - segments) & 0xFFFF for (earlier, segments), (later, _) in pairwise(packets))
    return Counter(gap for gap in gaps if 0 < gap < 1000)


@pytest.mark.parametrize("rate", [1, 10, 100, 1000], ids="{} Mb/s".format)
def test_rate(benchmark: Any, seconds: float, rate: int) -> None:
    """TCP's goodput against the link's rate by payload and frame."""
    with pods(2) as (lab, switch), iperf3_server(lab.pods[1]):
        one, other = lab.pods
        switch.set_link(other.port.name, f"to_pod.rate={rate}mbit")
        allowed = one.run(["sysctl", "-n", "net.ipv4.tcp_available_congestion_control"]).stdout.split()
        control = next(each for each in FILLS if each in allowed)
        end = iperf3(one, other, "-C", control, "-t", f"{seconds:.0f}", timeout=60 + 2 * seconds)
        assert end["sender_tcp_congestion"] == control
        goodput = end["sum_received"]["bits_per_second"] / 1e6
        wanted = rate * TCP_PAYLOAD / FULL_FRAME
        note(benchmark, f"rate {rate} Mb/s, {control}", **{"goodput Mb/s": goodput, "of what can be": goodput / wanted})


@REAL_TIME
@pytest.mark.parametrize("workers", [1, 2], ids="{} workers".format)
def test_regions(benchmark: Any, workers: int, real_time: bool) -> None:
    """500 pods in 5 regions, with a matrix of delays; 10,000 pings of 400 random pairs while 50 pods send.

    Every pair takes two places in the neighbour table that all namespaces share, and it has 1,024 by default."""
    count, regions, pairs, each_pair, at_once = 500, 5, 400, 31, 50
    starting = 6
    rng = random.Random(7)
    ways = {(a, b): 5.0 if a == b else 20.0 + 15 * (abs(a - b)) for a in range(regions) for b in range(regions)}
    with pods(count, workers=workers, real_time=real_time) as (lab, switch):
        names = [pod.port.name for pod in lab.pods]
        began = time.perf_counter()
        switch.set_links(
            {
                (names[a], names[b]): f"delay={ways[a % regions, b % regions]}ms"
                for a in range(count)
                for b in range(count)
                if a != b
            }
        )
        took = time.perf_counter() - began

        def start(a: int, b: int, *options: str, output: int) -> subprocess.Popen[str]:
            target = lab.pods[b].ipv4
            assert target
            return lab.pods[a].popen(["ping", "-n", *options, str(target.ip)], stdout=output, text=True)

        senders = [start(i, i + 50, "-q", "-i", "0.01", "-s", "1000", output=subprocess.DEVNULL) for i in range(50)]
        off: list[float] = []
        asked = [tuple(rng.sample(range(count), 2)) for _ in range(pairs)]
        try:
            for at in range(0, pairs, at_once):
                some = asked[at : at + at_once]
                options = ("-c", f"{each_pair}", "-i", "0.2", "-W", "2")
                found = [start(a, b, *options, output=subprocess.PIPE) for a, b in some]
                for (a, b), ping in zip(some, found, strict=True):
                    times = re.findall(r"icmp_seq=(\d+) .*time=([\d.]+) ms", ping.communicate()[0])
                    # The first ones take ARP's time, too, and are beside programs that start.
                    wanted = 2 * ways[a % regions, b % regions]
                    off += [float(ms) - wanted for number, ms in times if int(number) > starting]
        finally:
            for sender in senders:
                sender.kill()
                sender.wait()
        missing = pairs * (each_pair - starting) - len(off)
        good = sum(abs(each) <= 1 for each in off) / len(off)
        resident = next(
            int(line.split()[1]) / 1024
            for line in Path("/proc/self/status").read_text().splitlines()
            if line.startswith("VmRSS")
        )
        note(
            benchmark,
            f"500 pods in 5 regions, {workers} workers{', in real time' if real_time else ''}",
            **{"pings": len(off), "unanswered": missing, "within 1 ms": good, "median off ms": median(off)},
            **{"p99 off ms": quantiles(off, n=100)[98], "seconds to set": took, "process MB": resident},
        )
