"""GSO frames that AF_PACKET cannot take as they are: what is inside a tunnel, and BIG TCP, on real veth pairs."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from effort import few
from frames import GROUP, ethernet, tag
from live import PATIENCE, eventually, in_the_end, stage, wires

from fastbridge import Lab, Switch
from fastbridge.lab.links import Links

pytestmark = [pytest.mark.live, pytest.mark.both_paths]

SIZE = 8_000_000
SERVE = """
import hashlib, socket, sys
server = socket.create_server((sys.argv[1], 5000), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
print("on", flush=True)
got, digest = server.accept()[0], hashlib.sha256()
while data := got.recv(1 << 20):
    digest.update(data)
print(digest.hexdigest(), flush=True)
"""
SEND = """
import socket, sys
with socket.create_connection((sys.argv[1], 5000)) as sock:
    sock.sendall(bytes(range(251)) * (int(sys.argv[2]) // 251))
"""
DIGEST = hashlib.sha256(bytes(range(251)) * (SIZE // 251)).hexdigest()


def carry(lab: Lab, address: str) -> str:
    """Send SIZE bytes by TCP from the first pod to an address of the second; returns the digest of what arrived."""
    one, two = lab
    server = two.popen([sys.executable, "-c", SERVE, address], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    with server.stdout as out:
        assert out.readline() == "on\n"
        one.run([sys.executable, "-c", SEND, address, str(SIZE)], timeout=3 * PATIENCE)
        digest = out.readline().strip()
    assert server.wait(PATIENCE) == 0
    return digest


@contextmanager
def tunnelled(link: str, six: bool, **options: bool) -> Iterator[tuple[Lab, Switch]]:
    with stage(2, **options) as (lab, switch):
        for n, pod in enumerate(lab, 1):
            ends = (f"fd00::{n}", f"fd00::{3 - n}") if six else (f"10.0.0.{n}", f"10.0.0.{3 - n}")
            added = pod.run(f"ip link add t0 type {link.format(*ends)}".split(), check=False)
            if "Unknown device type" in added.stderr or "not supported" in added.stderr:
                pytest.skip(f"this kernel has no such tunnel: {link.split()[0]}")
            assert added.returncode == 0, added.stderr
            pod.run(f"ip addr add 192.168.7.{n}/24 dev t0".split())
            pod.run(f"ip addr add fd07::{n}/64 dev t0 nodad".split())
            pod.run(["ip", "link", "set", "t0", "up", "mtu", "1400"])
        yield lab, switch


TUNNELS = {
    "vxlan": "vxlan id 7 dstport 4789 local {0} remote {1} dev eth0",
    "vxlan udpcsum": "vxlan id 7 dstport 4789 local {0} remote {1} dev eth0 udpcsum",
    "geneve": "geneve id 7 remote {1}",
    "gre": "gre local {0} remote {1}",
    "gre csum": "gre local {0} remote {1} csum",
    "ipip": "ipip local {0} remote {1}",
}


@pytest.mark.parametrize("address", few(1, ["192.168.7.2", "fd07::2"]), ids=["inner IPv4", "inner IPv6"])
@pytest.mark.parametrize("merging", [True, False], ids=["bundled", "one by one"])
@pytest.mark.parametrize("kind", TUNNELS)
def test_tcp_passes_a_tunnel_between_pods(kind: str, merging: bool, address: str) -> None:
    if kind == "ipip" and ":" in address:
        pytest.skip("IPIP carries IPv4 alone")
    with tunnelled(TUNNELS[kind], six=False, coalesce=merging) as (lab, switch):
        assert carry(lab, address) == DIGEST
        total = switch.counters().total
        assert (total.tx_dropped["refused"], total.tx_dropped["no_buffer"]) == (0, 0)
        # Fewer frames than segments: the GSO frames of the pod that sends came whole. (What comes back is mere ACKs.)
        # The core cuts them; the kernel forwards them whole.
        in_the_end(came_whole, switch)


def came_whole(switch: Switch) -> None:
    sender, receiver = (switch.counters().ports[name] for name in ("pod1", "pod2"))
    assert (sender.rx_bytes + sender.fast_bytes) / (sender.rx_frames + sender.fast) > 2_000
    assert sender.fast - receiver.tx_dropped["device"] <= receiver.fast_sent <= sender.fast


@pytest.mark.parametrize("kind", ["vxlan", "vxlan udpcsum"])
def test_tcp_passes_a_tunnel_over_ipv6(kind: str) -> None:
    with tunnelled(TUNNELS[kind], six=True) as (lab, _):
        assert carry(lab, "192.168.7.2") == DIGEST


def test_big_tcp_passes() -> None:
    """Frames of up to 200,000 bytes."""
    with stage(2) as (lab, switch):
        for pod in lab:
            sizes = ["gso_max_size", "200000", "gro_max_size", "200000"]
            grown = pod.run(["ip", "link", "set", "eth0", *sizes], check=False)
            if grown.returncode:
                pytest.skip(f"this kernel has no BIG TCP: {grown.stderr.strip()}")
        with switch.trace(limit=65536) as trace:
            assert carry(lab, "fd00::2") == DIGEST
            longest = max(event.length for event in trace.read())
        total = switch.counters().total
        assert not total.dropped["truncated"]
        assert longest > 65_600


def test_a_full_size_frame_under_an_8021ad_tag_has_a_reason_of_its_own_and_passes_a_larger_mtu(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """So that it is told from a frame that is longer than the MTU by itself; and one line says what to do."""
    with stage(2) as (lab, switch), wires(lab) as (one, two):
        with Links(lab["pod1"].namespace) as links:
            links.set("eth0", mtu=1504)  # or the raw socket that sends it is refused, too
        tagged = ethernet(GROUP, one.mac, tag(5, tpid=0x88A8), payload=b"fastbridge".ljust(1500))
        for _ in range(3):
            one.send(tagged)
            assert two.heard_before(one.mark()) == []
        assert switch.counters().ports["pod2"].tx_dropped["tagged_too_big"] == 3
        eventually(lambda: "port pod2 cannot send full-size frames under an 802.1ad tag" in caplog.text, "the line")
        assert caplog.text.count("tagged_too_big): raise the MTU of both ends of its link, 1500 here, by 8") == 1
        with Links(lab["pod2"].port.namespace) as links:
            links.set("pod2", mtu=1504)
        one.send(tagged)
        assert two.heard_before(one.mark()) == [tagged]
        assert sum(switch.counters().total.tx_dropped.values()) == 3
