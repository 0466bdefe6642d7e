"""Frames that are odd, and ports that are: each arrives as it was sent, by the kernel or by the core."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fast import HANDS, fast, forwarded, need, pairs
from frames import GROUP, ethernet, tag
from gso import NEEDS_CSUM, gso_frame
from live import Wire, eventually, next_own, wires
from streams import Stream

from fastbridge import LabError, Switch, Topology
from fastbridge.lab.links import Links

pytestmark = pytest.mark.live

IPV4, IPV6 = 0x0800, 0x86DD
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x2, 0x1000


def promote(switch: Switch, one: Wire, two: Wire, *ethertypes: int) -> None:
    """Have the kernel forward what one sends to two."""
    two.mark()

    def done() -> bool:
        two.arrived()
        for ethertype in ethertypes:
            one.send(ethernet(two.mac, one.mac, ethertype=ethertype, payload=b"not seen by next_own"))
        known = {pair.ethertype for pair in pairs(switch) if (pair.source, pair.destination) == (one.mac, two.mac)}
        return known >= set(ethertypes)

    eventually(done, "the pair promoted")
    two.heard_before(one.mark())


@pytest.mark.parametrize("size", [1_400, 9_000, 60_000])
@HANDS
def test_frames_to_be_cut_and_summed_arrive_whole(hand: str, size: int) -> None:
    with fast(hand) as (lab, switch), wires(lab) as (one, two, _):
        promote(switch, one, two, IPV4, IPV6)
        (before,) = forwarded(switch, "pod1")
        for version in (4, 6):
            sent, header = gso_frame(two.mac, one.mac, b"", version, size)
            one.send(sent, header)
            got, got_header = next_own(two)
            assert got == sent
            assert (got_header.csum_start, got_header.csum_offset) == (header.csum_start, 16)
            assert got_header.flags & NEEDS_CSUM
            assert (got_header.gso_type, got_header.gso_size) == (header.gso_type, header.gso_size)
        eventually(lambda: forwarded(switch, "pod1") == [before + 2], "the count")


@pytest.mark.parametrize(
    "tags",
    [tag(5, priority=2), tag(0, priority=7), tag(5, tpid=0x88A8), tag(100, tpid=0x88A8) + tag(7)],
    ids=["802.1Q", "priority", "802.1ad", "QinQ"],
)
@HANDS
def test_tags_pass_by_the_core_though_their_stations_are_promoted(hand: str, tags: bytes) -> None:
    with fast(hand) as (lab, switch), wires(lab) as (one, two, three):
        promote(switch, one, two, IPV4)
        two.send(ethernet(GROUP, two.mac, tags))  # so that two is known in this VLAN
        assert next_own(one)[0] == next_own(three)[0] == ethernet(GROUP, two.mac, tags)
        before = switch.counters().ports["pod1"].fast
        small = ethernet(two.mac, one.mac, tags, ethertype=IPV4)
        large, header = gso_frame(two.mac, one.mac, tags, 4, 20_000)
        for _ in range(3):
            for frame in ((small,), (large, header)):
                one.send(*frame)
                assert next_own(two)[0] == frame[0]
        assert switch.counters().ports["pod1"].fast == before


@HANDS
def test_big_tcp(hand: str) -> None:
    """Frames of up to 200,000 bytes."""
    with fast(hand, Topology.of(2)) as (lab, switch):
        try:
            for pod in lab:
                for namespace, name in ((pod.namespace, "eth0"), (lab.namespace, pod.port.name)):
                    with Links(namespace) as links:
                        links.set(name, gso_max_size=200_000)
        except LabError as error:
            pytest.skip(f"this kernel has none: {error}")

        def by_the_kernel() -> bool:
            with Stream(lab["pod1"], lab["pod2"], 6) as stream:
                stream.exchange(30)
            return switch.counters().total.fast > 100

        eventually(by_the_kernel, "frames that the kernel forwards")
        assert not switch.counters().total.dropped["truncated"]


@HANDS
def test_a_pod_that_bridges(hand: str) -> None:
    """Its interface's own MAC address is not that of the station behind it."""
    with fast(hand) as (lab, switch):
        station = "02:00:00:00:77:77"
        for command in (
            f"ip link add br0 address {station} type bridge",
            "ip link set eth0 master br0",
            "ip link set br0 up",
            "ip addr add 10.0.0.77/24 dev br0",
        ):
            done = lab["pod2"].run(command.split(), check=False)
            if "Unknown device type" in done.stderr:
                pytest.skip("no bridges here")
            assert done.returncode == 0, done.stderr
        mac = int(station.replace(":", ""), 16)

        def promoted() -> bool:
            lab["pod1"].run(["ping", "-c1", "-W3", "10.0.0.77"], check=False)
            return {mac} <= {pair.source for pair in pairs(switch)} & {pair.destination for pair in pairs(switch)}

        eventually(promoted, "the station's pairs promoted")
        one, two = forwarded(switch, "pod1", "pod2")
        lab["pod1"].run(["ping", "-c10", "-i0.01", "-W30", "10.0.0.77"])
        eventually(lambda: forwarded(switch, "pod1", "pod2") == [one + 10, two + 10], "the count")
        with Stream(lab["pod1"], lab["pod3"], 4) as stream:
            stream.exchange(1)


@contextmanager
def tap(name: str) -> Iterator[int]:
    """A tap interface, up; yields the descriptor of its other end."""
    try:
        end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    except OSError as error:
        pytest.skip(f"no taps here: {error.strerror}")
    try:
        fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
        Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
        subprocess.run(f"ip link set {name} up".split(), check=True)
        yield end
    finally:
        os.close(end)


@HANDS
def test_taps_are_ports(hand: str) -> None:
    need(hand)
    a, b = 0x02_00_00_00_00_0A, 0x02_00_00_00_00_0B
    with (
        tap("t1") as one,
        tap("t2") as two,
        Switch(["t1", "t2"], fast_path=hand, loop_detection=False) as switch,
    ):
        os.write(two, ethernet(GROUP, b))
        hello = ethernet(b, a, payload=b"fastbridge".ljust(50))

        def arrived() -> bool:
            try:
                return os.read(two, 2048) == hello
            except BlockingIOError:
                return False

        def passed() -> bool:
            os.write(one, hello)
            eventually(arrived, "the frame")
            return switch.counters().ports["t1"].fast >= 10

        eventually(passed, "ten frames forwarded by the kernel")
        port = switch.counters().ports["t1"]
        assert port.rx_frames >= 1 and port.rx_missed == 0
