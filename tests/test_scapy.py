"""scapy speaks by socket ports: srp, sniff, answering machines, bridges; in memory, on a running switch, with pods."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from capture_files import needs_libpcap
from live import PATIENCE, eventually
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import ARP, ARP_am, Ether
from scapy.packet import Packet
from scapy.sendrecv import AsyncSniffer, bridge_and_sniff, sendp, sniff, srp

from fastbridge import ConfigError, Lab, MemorySwitch, SocketPort, Switch
from fastbridge.scapy import FastbridgeInterface, FastbridgeSocket

A, B = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
EVERYONE = "ff:ff:ff:ff:ff:ff"
#: Addresses that pods have.
POD1, POD2 = "02:00:00:00:00:01", "02:00:00:00:00:02"


@pytest.fixture(params=["memory", "live"])
def switch(request: pytest.FixtureRequest) -> Iterator[MemorySwitch | Switch]:
    if request.param == "memory":
        yield MemorySwitch([])
    else:
        with Switch([]) as running:
            yield running


@pytest.fixture
def ports(switch: MemorySwitch | Switch) -> Iterator[tuple[SocketPort, SocketPort]]:
    with switch.add_socket_port("a") as a, switch.add_socket_port("b") as b:
        yield a, b


def question(ip: str) -> Packet:
    return Ether(src=A, dst=EVERYONE) / ARP(hwsrc=A, psrc="10.0.0.10", pdst=ip)


@contextmanager
def answering(machine: ARP_am) -> Iterator[None]:
    """While the context lasts."""
    sniffer = machine.bg()
    try:
        yield
    finally:
        eventually(lambda: getattr(sniffer, "continue_sniff", False), "the machine's start")  # scapy stops none before
        sniffer.stop()


@pytest.mark.parametrize("way", [pytest.param("interface", marks=needs_libpcap), "socket"])  # an ARP_am has a filter
def test_srp_is_answered_by_an_answering_machine(ports: tuple[SocketPort, SocketPort], way: str) -> None:
    a, b = ports
    about = {"IP_addr": "10.0.0.11", "ARP_addr": B, "verbose": 0}
    by_interface = way == "interface"
    machine = ARP_am(iface=FastbridgeInterface(b), **about) if by_interface else FastbridgeSocket(b).am(ARP_am, **about)
    with answering(machine):
        interface = FastbridgeInterface(a, mac=A)
        for ask in (
            lambda: FastbridgeSocket(a).sr1(question("10.0.0.11"), timeout=PATIENCE, verbose=0),
            lambda: srp(question("10.0.0.11"), iface=interface, timeout=PATIENCE, verbose=0)[0][0].answer,
        ):
            answer = ask()
            assert (answer[ARP].psrc, answer[ARP].hwsrc, answer.dst) == ("10.0.0.11", B, A)
        answers, unanswered = srp(question("10.0.0.12"), iface=interface, timeout=0.01, verbose=0)
        assert (len(answers), len(unanswered)) == (0, 1)


def test_sniff_hears_what_the_switch_sends_to_the_port(ports: tuple[SocketPort, SocketPort]) -> None:
    a, b = ports
    sniffer = AsyncSniffer(opened_socket=FastbridgeSocket(b), count=2)
    sniffer.start()
    sendp([question("10.0.0.1"), question("10.0.0.2")], socket=FastbridgeSocket(a), verbose=0)
    sniffer.join(PATIENCE)
    assert [packet[ARP].pdst for packet in sniffer.results] == ["10.0.0.1", "10.0.0.2"]
    assert all(packet.time for packet in sniffer.results)


@needs_libpcap
def test_a_sniffer_hears_what_its_filter_lets_through(ports: tuple[SocketPort, SocketPort]) -> None:
    a, b = ports
    echo = Ether(src=A, dst=EVERYONE) / IP(src="10.0.0.1", dst="10.0.0.5") / ICMP()
    sendp([question("10.0.0.3"), echo, question("10.0.0.4")], iface=FastbridgeInterface(a), verbose=0)
    heard = sniff(iface=FastbridgeInterface(b), filter="icmp", count=1, timeout=PATIENCE)
    assert [packet[IP].dst for packet in heard] == ["10.0.0.5"]
    assert Ether(b.recv(0))[ARP].pdst == "10.0.0.4"
    with pytest.raises(ConfigError, match="'no words' is no filter"):
        FastbridgeSocket(b, filter="no words")


def test_a_sniff_ends_when_the_port_is_closed(switch: MemorySwitch | Switch) -> None:
    with switch.add_socket_port("a") as a:
        sock = FastbridgeSocket(a)
        sniffer = AsyncSniffer(opened_socket=sock)
        sniffer.start()
        eventually(lambda: getattr(sniffer, "continue_sniff", False), "the sniffer")
    sniffer.join(PATIENCE)
    assert not sniffer.running and sock.closed and len(sniffer.results) == 0


def test_a_socket_that_is_closed_leaves_the_port(ports: tuple[SocketPort, SocketPort]) -> None:
    a, b = ports
    with FastbridgeSocket(a) as sock:
        sock.send(question("10.0.0.1"))
    a.send(bytes(question("10.0.0.2")))
    assert [Ether(b.recv(PATIENCE))[ARP].pdst for _ in range(2)] == ["10.0.0.1", "10.0.0.2"]


def test_bridge_and_sniff_joins_two_switches(ports: tuple[SocketPort, SocketPort]) -> None:
    """A scapy bridge between them, which changes what it carries one way."""
    a, b = ports
    other = MemorySwitch([])
    with other.add_socket_port("left") as left, other.add_socket_port("right") as right:

        def other_target(packet: Packet) -> Packet | bool:
            packet[ARP].pdst = "10.0.0.99"
            return packet

        heard = bridge_and_sniff(
            FastbridgeSocket(b),
            FastbridgeSocket(left),
            xfrm12=other_target,
            count=2,
            timeout=PATIENCE,
            started_callback=lambda: [a.send(bytes(question("10.0.0.1"))), right.send(bytes(question("10.0.0.2")))],
        )
        assert len(heard) == 2
        assert Ether(right.recv(PATIENCE))[ARP].pdst == "10.0.0.99"
        assert Ether(a.recv(PATIENCE))[ARP].pdst == "10.0.0.2"


def test_descriptors_may_have_any_number() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < 1200:
        pytest.skip("this user may have no more than 1,199 open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 1200), before[1]))
    try:
        with ExitStack() as stack:
            gc.collect()  # what is closed later leaves low numbers free
            last = 0
            while last < 1030:  # a new one has the lowest number that is free
                last = os.open(os.devnull, os.O_RDONLY)
                stack.callback(os.close, last)
            switch = MemorySwitch(["pod"])
            port = stack.enter_context(switch.add_socket_port("probe"))
            assert port.fileno() > 1023
            switch.process("pod", [bytes(question("10.0.0.1"))])
            assert len(sniff(opened_socket=FastbridgeSocket(port), count=1, timeout=PATIENCE)) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_what_an_interface_is_made_of_is_checked() -> None:
    with MemorySwitch(["pod"]).add_socket_port("probe") as port:
        with pytest.raises(ConfigError, match=r"^this takes a socket port, .*, not 'probe'$"):
            FastbridgeInterface("probe")  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="'zz'"):
            FastbridgeInterface(port, mac="zz")
        with pytest.raises(ConfigError, match=r"'10\.0\.0'"):
            FastbridgeInterface(port, ip="10.0.0")


@pytest.mark.live
def test_with_pods() -> None:
    with Lab(2) as lab, Switch(lab.ports) as switch, switch.add_socket_port("probe") as probe:
        found, lost = srp(
            Ether(src=A, dst=EVERYONE) / ARP(hwsrc=A, psrc="10.0.0.10", pdst=["10.0.0.1", "10.0.0.2"]),
            iface=FastbridgeInterface(probe, mac=A),
            timeout=PATIENCE,
            verbose=0,
        )
        assert {(answer[ARP].psrc, answer.src) for _, answer in found} == {("10.0.0.1", POD1), ("10.0.0.2", POD2)}
        assert len(lost) == 0
        echo = Ether(src=A, dst=POD2) / IP(src="10.0.0.10", dst="10.0.0.2") / ICMP(id=7) / b"fastbridge"
        machine = FastbridgeSocket(probe).am(ARP_am, IP_addr="10.0.0.10", ARP_addr=A, verbose=0)
        with answering(machine):  # the pod asks for it
            lab["pod2"].ping("10.0.0.10", timeout=0.01)
            eventually(lambda: any(str(n.ip) == "10.0.0.10" and str(n.mac) == A for n in lab["pod2"].neighbours()))
        answer = FastbridgeSocket(probe).sr1(echo, timeout=PATIENCE, verbose=0)
        assert answer[ICMP].type == 0 and bytes(answer[ICMP].payload) == b"fastbridge"


def test_without_scapy_the_way_out_is_named() -> None:
    script = "import sys; sys.modules['scapy'] = None; import fastbridge.scapy"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=180)
    said = "this takes the package scapy: in a clone of fastbridge, pip install -e '.[scapy]'"
    assert done.stderr.splitlines()[-1] == f"fastbridge.errors.ConfigError: {said}"
