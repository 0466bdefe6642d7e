"""Real traffic between pods on default offloads: ping, TCP, UDP; what goes in comes out, by hash."""

from __future__ import annotations

import hashlib
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from live import PATIENCE, stage
from streams import MEGABYTE, SOL_UDP, UDP_SEGMENT, Stream, address, datagram_sockets, families, socket_in

from fastbridge import Lab, Switch
from fastbridge.lab.links import Links

pytestmark = pytest.mark.live


def echo_datagrams(client: Any, server: Any, family: int, sizes: list[int]) -> None:
    """Datagrams there and back, one at a time, so that a lost one is the switch's fault."""
    with datagram_sockets(client, server, family) as (one, two):
        for n, size in enumerate(sizes):
            datagram = hashlib.shake_128(n.to_bytes(4, "big")).digest(size)
            one.sendto(datagram, two.getsockname())
            got, sender = two.recvfrom(1 << 16)
            assert got == datagram
            two.sendto(got[::-1], sender)
            assert one.recv(1 << 16) == datagram[::-1]


@families
def test_ping(family: int) -> None:
    with stage(3) as (lab, switch):
        for one in lab:
            for two in lab:
                if one is not two:
                    result = one.ping(two, count=3, interval=0.01, family=family, timeout=PATIENCE)
                    assert (result.sent, result.received, len(result.rtts)) == (3, 3, 3)
                    assert all(rtt > 0 for rtt in result.rtts)
        assert {entry.mac for entry in switch.fdb if entry.vlan == 0} >= {pod.mac for pod in lab}
        assert {pod.mac: pod.name for pod in lab} == {pod.mac: switch.fdb.lookup(pod.mac).port for pod in lab}


def test_a_hundred_pods() -> None:
    with stage(100) as (lab, switch):
        pods = lab.pods
        for one, two in zip(pods, pods[1:] + pods[:1], strict=True):
            assert one.ping(two, timeout=PATIENCE)
        assert all(switch.fdb.lookup(pod.mac).port == pod.name for pod in pods)


def test_no_switch_no_ping() -> None:
    with Lab(2) as lab:
        assert not lab["pod1"].ping("pod2", timeout=0.2)


@families
def test_tcp_both_ways_at_once(family: int) -> None:
    with stage(2) as (lab, switch):
        with Stream(lab["pod1"], lab["pod2"], family) as stream:
            stream.exchange(megabytes=100)
        total = switch.counters().total
        assert total.rx_bytes > 200 * MEGABYTE
        assert total.rx_bytes / total.rx_frames > 1514  # GSO frames were carried whole
        assert not total.dropped.get("truncated")


def test_tcp_between_every_two_pods_at_the_same_time() -> None:
    with stage(4) as (lab, _), ThreadPoolExecutor() as pool:
        pods = list(lab)
        streams = [Stream(one, two, 4) for one in pods for two in pods if one is not two]
        try:
            for future in [pool.submit(stream.exchange, 3) for stream in streams]:
                future.result()
        finally:
            for stream in streams:
                stream.__exit__()


@families
def test_udp_both_ways(family: int) -> None:
    """Every length near the edges, and datagrams that IP fragments."""
    sizes = [*range(65), *range(1_440, 1_480), 4_000, 9_000, 30_000, 65_000]
    with stage(2) as (lab, _):
        echo_datagrams(lab["pod1"], lab["pod2"], family, sizes)
        echo_datagrams(lab["pod2"], lab["pod1"], family, sizes)


@families
@pytest.mark.parametrize("segment", [100, 1_200, 1_400])
def test_udp_gso(family: int, segment: int) -> None:
    """One send of many datagrams travels as one frame and arrives as many."""
    with (
        stage(2) as (lab, switch),
        socket_in(lab["pod1"], family, socket.SOCK_DGRAM) as one,
        socket_in(lab["pod2"], family, socket.SOCK_DGRAM) as two,
    ):
        assert lab["pod1"].ping(lab["pod2"], family=family, timeout=PATIENCE)
        one.setsockopt(SOL_UDP, UDP_SEGMENT, segment)
        data = hashlib.shake_128(b"gso").digest(segment * 20 + 17)
        before = switch.counters().ports["pod1"]
        one.sendto(data, two.getsockname())
        parts = [two.recv(1 << 16) for _ in range(21)]
        assert b"".join(parts) == data
        assert [len(part) for part in parts] == [segment] * 20 + [17]
        after = switch.counters().ports["pod1"]
        assert after.rx_bytes - before.rx_bytes > len(data)
        assert after.rx_frames - before.rx_frames < 21


@families
@pytest.mark.parametrize("mtu", [1_280, 9_000])
def test_mtu(family: int, mtu: int) -> None:
    headers = 28 if family == 4 else 48
    with stage(2, mtu=mtu) as (lab, _):
        pods = lab["pod1"], lab["pod2"]
        assert pods[0].ping(pods[1], family=family, timeout=PATIENCE)
        echo_datagrams(*pods, family, [mtu - headers - 1, mtu - headers, mtu - headers + 1, 60_000])
        with Stream(*pods, family) as stream:
            stream.exchange(megabytes=10)


def test_frame_too_big_for_the_egress_port_is_counted() -> None:
    """Pod ends may have different MTUs; a frame that does not fit the way out is dropped, and says so."""
    with stage(2, mtu=9_000) as (lab, switch):
        one, two = lab["pod1"], lab["pod2"]
        assert one.ping(two, timeout=PATIENCE)
        with Links(lab.namespace) as links:
            links.set("pod2", mtu=1_500)
        with datagram_sockets(one, two, 4) as (sender, receiver):
            sender.sendto(b"x" * 8_000, receiver.getsockname())
            sender.sendto(b"y" * 1_000, receiver.getsockname())
            assert receiver.recv(1 << 16) == b"y" * 1_000
        assert switch.counters().ports["pod2"].tx_dropped["too_big"] == 1
        assert one.ping(two, timeout=PATIENCE)


def test_any_program_in_a_pod() -> None:
    """The README's example: a web server in one pod, a client in another."""
    serve = (
        "import http.server, sys\n"
        "server = http.server.HTTPServer((sys.argv[1], 0), http.server.SimpleHTTPRequestHandler)\n"
        "print(server.server_port, flush=True)\n"
        "server.serve_forever()\n"
    )
    fetch = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=60).status)"
    with stage(2) as (lab, _):
        ip = address(lab["pod2"], 4)
        with lab["pod2"].popen(
            [sys.executable, "-c", serve, ip], stdout=-1, stderr=-3, cwd="/proc/self/fdinfo", text=True
        ) as server:
            port = server.stdout.readline().strip()
            result = lab["pod1"].run([sys.executable, "-c", fetch, f"http://{ip}:{port}/"], timeout=PATIENCE)
            assert result.stdout == "200\n"
            server.kill()


def test_two_switches_in_one_process() -> None:
    with Lab(2) as left, Lab(2) as right, Switch(left.ports), Switch(right.ports):
        assert left["pod1"].ping("pod2", timeout=PATIENCE)
        assert right["pod1"].ping("pod2", timeout=PATIENCE)
