"""Coalescing on real veth pairs: receivers see the very datagrams and streams that were sent.

Batches are sure to form where frames wait in the rings of a switch that has not started yet.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from effort import few
from frames import tag
from live import ETH_P_ALL, PATIENCE, SOL_PACKET, VnetHeader, Wire, check_accounts, eventually, stage, wires
from segmentation import GSO_NONE, TCP, UDP, UDP_L4, VNET, Packet, segment
from streams import SOL_UDP, Stream, datagram_sockets, families

from fastbridge import Lab, PortFlags, Switch, Topology
from fastbridge.core.dataplane import Dataplane, open_ring
from fastbridge.core.fdb import FdbAccess
from fastbridge.core.mac_table import MacTable
from fastbridge.core.port_rules import PortRules
from fastbridge.lab.links import Links
from fastbridge.lab.pods import Port
from fastbridge.switch.port_socket import open_port_sockets, start_receiving, takes_gso

pytestmark = [pytest.mark.live, pytest.mark.core_path]

UDP_GRO, PACKET_VNET_HDR = 104, 15
SIOCETHTOOL, STX, STSO, SGSO, SGRO = 0x8946, 0x17, 0x1F, 0x24, 0x2C


def set_offload(sock: socket.socket, interface: str, command: int, on: bool) -> None:
    """What `ethtool -K` does."""
    value = (ctypes.c_uint32 * 2)(command, on)
    with sock:
        fcntl.ioctl(sock, SIOCETHTOOL, struct.pack("16sP16x", interface.encode(), ctypes.addressof(value)))


@contextmanager
def waiting(lab: Lab, **options: Any) -> Iterator[Switch]:
    """A switch, not started yet: what is sent now waits in its rings."""
    switch = Switch(lab.ports, **options)
    try:
        yield switch
        check_accounts(switch)
    finally:
        switch.stop()


def introduce(lab: Lab) -> None:
    """Let the pods know each other, by a switch that is gone then."""
    with Switch(lab.ports):
        for family in 4, 6:
            assert lab["pod1"].ping(lab["pod2"], family=family, timeout=PATIENCE)


SIZES = {
    "equal": [100] * 200,
    "full": [1_400] * 100,
    "tiny": [1] * 200,
    "unequal": [size for n in range(20) for size in (500, 500, 500, 20, 700, 0, 699, 699, 1 + n)],
}


@families
@pytest.mark.parametrize("gro", [False, True], ids=["plain receiver", "UDP_GRO receiver"])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("connected", few(1, [False, True]), ids=["sendto", "connected"])
def test_datagrams(family: int, gro: bool, sizes: list[int], connected: bool) -> None:
    """An unconnected socket sends all its datagrams with the IPv4 ID 0, a connected one counts."""
    data = [hashlib.shake_128(b"%d" % n).digest(size) for n, size in enumerate(sizes)]
    with (
        Lab(2) as lab,
        datagram_sockets(lab["pod1"], lab["pod2"], family) as (one, two),
    ):
        introduce(lab)
        two.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        two.setsockopt(SOL_UDP, UDP_GRO, gro)
        if connected:
            one.connect(two.getsockname())
        with waiting(lab) as switch:
            switch.fdb.add(lab["pod2"].mac, "pod2")
            for datagram in data:
                _ = one.send(datagram) if connected else one.sendto(datagram, two.getsockname())
            switch.start()
            assert receive(two, len(data)) == data
            pod2 = switch.counters().ports["pod2"]
            assert pod2.coalesced >= len(data) // 3
            assert pod2.split == 0


def receive(sock: socket.socket, count: int) -> list[bytes]:
    """Datagrams, cut up again where the socket took several as one."""
    out: list[bytes] = []
    while len(out) < count:
        data, control, _, _ = sock.recvmsg(1 << 16, 64)
        size = next((struct.unpack("i", v)[0] for level, kind, v in control if (level, kind) == (SOL_UDP, UDP_GRO)), 0)
        out += [data[at : at + size] for at in range(0, len(data), size)] if size else [data]
    return out


@families
def test_a_stream_of_datagrams(family: int) -> None:
    """While the switch runs, many at a time: whatever it merges, order and boundaries stay."""
    with (
        stage(2) as (lab, switch),
        datagram_sockets(lab["pod1"], lab["pod2"], family) as (one, two),
    ):
        assert lab["pod1"].ping(lab["pod2"], family=family, timeout=PATIENCE)
        one.connect(two.getsockname())
        libc = ctypes.CDLL(None, use_errno=True)
        for burst in range(200):
            sent = [b"%d %d " % (burst, n) + bytes(64 - burst % 2 * n) for n in range(32)]
            assert libc.sendmmsg(one.fileno(), many(sent), len(sent), 0) == len(sent)
            assert receive(two, len(sent)) == sent
        eventually(lambda: switch.counters().ports["pod2"].coalesced > 0, "a merged frame")


class _Message(ctypes.Structure):  # struct mmsghdr
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_long),  # an int, and what pads the struct msghdr
        ("sent", ctypes.c_long),
    )


class _Vector(ctypes.Structure):  # struct iovec
    _fields_ = (("base", ctypes.c_char_p), ("length", ctypes.c_size_t))


def many(datagrams: list[bytes]) -> ctypes.Array[_Message]:
    made = (_Message * len(datagrams))()
    made.vectors = (_Vector * len(datagrams))(*((d, len(d)) for d in datagrams))  # lives as long as the messages
    for n, message in enumerate(made):
        message.vectors, message.count = ctypes.addressof(made.vectors[n]), 1
    return made


OFFLOADS = {
    "segments, checksums pending": [STSO, SGSO],
    "segments with checksums": [STSO, SGSO, STX],
    "checksums, whole frames": [STX],
}


@families
@pytest.mark.parametrize("off", OFFLOADS.values(), ids=OFFLOADS)
def test_tcp_without_offloads(family: int, off: list[int]) -> None:
    """50 MB each way: with segmentation off at one end, real segments from there reach the switch, and merge."""
    with Lab(2) as lab:
        set_pod(lab["pod1"], off, False)
        with running(lab) as switch:
            with Stream(lab["pod1"], lab["pod2"], family) as stream:
                stream.exchange(megabytes=50)
            ports = switch.counters().ports
            assert ports["pod2"].coalesced > ports["pod2"].tx_frames // 10
            assert ports["pod1"].split == ports["pod2"].split == 0


@families
def test_no_program_in_a_pod_without_offloads_meets_a_frame_above_the_mtu(family: int) -> None:
    """Datagrams and a stream, each way; what a raw socket hears is what a sniffer or a user-space stack would."""
    with Lab(2) as lab:
        for pod in lab:
            set_pod(pod, [STSO, SGSO, SGRO], False)
        with running(lab) as switch, ears(lab["pod2"]) as ear:
            exchange(lab, family)
            total = switch.counters().total
            assert total.tx_frames > 1_000
            assert (total.coalesced, total.split) == (0, 0)
            heard = lengths(ear)
            assert len(heard) > 100
            assert max(heard) <= 1_514


def test_merged_frames_go_and_come_back_with_the_offloads_of_a_pod() -> None:
    """While the switch runs."""
    with Lab(2) as lab, running(lab) as switch, ears(lab["pod2"]) as ear:
        one, two = lab
        set_pod(one, [STSO, SGSO], False)

        def merged() -> bool:
            before = switch.counters().ports["pod2"].coalesced
            exchange(lab, 4)
            assert switch.flags("pod2").coalesce
            after = switch.counters().ports["pod2"].coalesced
            assert (max(lengths(ear)) > 1_514) == (after > before)
            return after > before

        for on in True, False, True:
            set_pod(two, [STSO], on)
            eventually(lambda on=on: [merged() for _ in range(3)] == [on] * 3, f"merged frames: {on}")  # type: ignore[misc]


def test_a_port_whose_pod_has_lost_its_interface_or_its_lab_merges_as_before() -> None:
    with Lab(1) as lab:
        port = lab.ports[0]
        assert port.pod_takes_merged()
        set_pod(lab["pod1"], [STSO], False)
        assert not port.pod_takes_merged()
        port.delete()
        assert port.pod_takes_merged()
    assert port.pod_takes_merged()


def test_many_pods_are_asked_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at a time, as 1,000 in a large lab: every one has its turn."""
    monkeypatch.setattr("fastbridge.switch.takes._AT_A_TIME", 2)
    asked: set[str] = set()
    ask = Port.pod_takes_merged

    def note(port: Port) -> bool:
        asked.add(port.name)
        return ask(port)

    monkeypatch.setattr(Port, "pod_takes_merged", note)
    with Lab(5) as lab, running(lab):
        asked.clear()
        eventually(lambda: asked == {port.name for port in lab.ports}, "a question to each pod")


def set_pod(pod: Any, commands: list[int], on: bool) -> None:
    for command in commands:
        set_offload(pod.socket(socket.AF_INET, socket.SOCK_DGRAM), pod.interface, command, on)


@contextmanager
def running(lab: Lab) -> Iterator[Switch]:
    with waiting(lab, loop_detection=False) as switch:
        switch.start()
        yield switch


@contextmanager
def ears(pod: Any) -> Iterator[socket.socket]:
    """A raw socket that knows no vnet header: it hears frames as a sniffer does."""
    with pod.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as ear:
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        ear.bind((pod.interface, ETH_P_ALL))
        ear.setblocking(False)
        yield ear


def lengths(ear: socket.socket) -> list[int]:
    """Of the frames that have come in by now."""
    found: list[int] = []
    with suppress(BlockingIOError):
        while True:
            data, _, _, address = ear.recvmsg(1 << 17)
            if address[2] != socket.PACKET_OUTGOING:
                found.append(len(data))
    return found


def exchange(lab: Lab, family: int) -> None:
    """Bursts of datagrams, and a stream."""
    one, two = lab
    assert one.ping(two, family=family, timeout=PATIENCE)
    libc = ctypes.CDLL(None, use_errno=True)
    for sender, receiver in (one, two), (two, one):
        with datagram_sockets(sender, receiver, family) as (out, into):
            out.connect(into.getsockname())
            for n in range(10):
                sent = [b"%d %d ".ljust(1_000) % (n, k) for k in range(10, 42)]
                assert libc.sendmmsg(out.fileno(), many(sent), len(sent), 0) == len(sent)
                assert receive(into, len(sent)) == sent
    with Stream(one, two, family) as stream:
        stream.exchange(megabytes=2)


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("version", few(1, [4, 6]))
@pytest.mark.parametrize("pending", [False, True], ids=["complete", "pending"])
@pytest.mark.parametrize(
    "tags",
    [b"", tag(5, priority=2), tag(5, tpid=0x88A8), tag(100, tpid=0x88A8) + tag(7)],
    ids=["untagged", "802.1Q", "802.1ad", "QinQ"],
)
def test_the_kernel_takes_merged_frames(tags: bytes, pending: bool, version: int, protocol: int) -> None:
    """Raw frames: what the other end hears, segmented, is what was sent."""
    with Lab(2) as lab, wires(lab) as (one, two), waiting(lab) as switch:
        switch.fdb.add(two.mac, "pod2", vlan=int.from_bytes(tags[2:4], "big") & 0xFFF)
        sent = run(one, two, 30, 700, version=version, protocol=protocol, pending=pending, tags=tags)
        for message in sent:
            one.send_message(message)
        switch.start()
        assert hear_all(two, [frame for message in sent for frame in segment(message)], tags) <= 10
        pod2 = switch.counters().ports["pod2"]
        assert (pod2.coalesced >= 20, pod2.split) == (True, 0)


def run(one: Wire, two: Wire, count: int, size: int, **fields: Any) -> list[bytes]:
    base = Packet(destination=two.mac, source=one.mac, payload=b"fastbridge".ljust(size, b"."), **fields)
    return [base.but(seq=n * size, ident=n).message() for n in range(count)]


def hear(wire: Wire, tags: bytes = b"") -> list[bytes]:
    """The next of the test's own frames, segmented."""
    while True:
        frame, header = wire.receive()
        if b"fastbridge" in frame:
            break
    shift = 4 if tags else 0  # the socket counts without the outer tag, which it has in metadata
    assert header.gso_type in (GSO_NONE, 1, 4, UDP_L4)
    headers = 14 + len(tags) + (40 if frame[14 + len(tags)] >> 4 == 6 else 20) + (8 if header.csum_offset == 6 else 20)
    if header.gso_type == GSO_NONE:
        return segment(VnetHeader(header.flags, 0, 0, 0, header.csum_start + shift, header.csum_offset).pack() + frame)
    # hdr_len is only a hint here: how much of the frame lies in one piece
    fields = (header.flags, header.gso_type, headers, header.gso_size, header.csum_start + shift, header.csum_offset)
    return segment(VNET.pack(*fields) + frame)


def hear_all(wire: Wire, expected: list[bytes], tags: bytes = b"") -> int:
    """Hear what is expected; says in how many frames: a busy kernel hands over the last after the switch began."""
    heard: list[bytes] = []
    messages = 0
    while len(heard) < len(expected):
        heard += hear(wire, tags)
        messages += 1
    assert heard == expected
    return messages


def test_what_is_too_big_alone_is_too_big_merged() -> None:
    """The kernel does not check the MTU of a GSO frame (packet_snd), so the switch must."""
    with Lab(2) as lab, wires(lab) as (one, two), waiting(lab) as switch:
        with Links(lab.namespace) as links:
            links.set("pod2", mtu=1_300)
        switch.fdb.add(two.mac, "pod2")
        sent = [message for size in (1_400, 1_200) for message in run(one, two, 20, size, protocol=UDP)]
        for message in sent:
            one.send_message(message)
        switch.start()
        messages = hear_all(two, [frame for message in sent[20:] for frame in segment(message)])
        pod2 = switch.counters().ports["pod2"]
        assert (pod2.tx_dropped["too_big"], pod2.coalesced) == (20, 20 - messages)


def test_the_mtu_may_change() -> None:
    with stage(2) as (lab, switch), wires(lab) as (one, two), Links(lab.namespace) as links:
        switch.fdb.add(two.mac, "pod2")
        for mtu, fits in (1_500, True), (1_000, False), (1_500, True):
            links.set("pod2", mtu=mtu)

            def sent(fits: bool = fits) -> bool:
                before = switch.counters().ports["pod2"]
                for message in run(one, two, 60, 1_200, protocol=UDP):
                    one.send_message(message)
                eventually(lambda: fate(switch) >= fate_of(before) + 60)
                after = switch.counters().ports["pod2"]
                return after.tx_frames == before.tx_frames + (60 if fits else 0)

            eventually(sent, f"an MTU of {mtu}")  # what was read up to 100 ms before may still count


def fate(switch: Switch) -> int:
    return fate_of(switch.counters().ports["pod2"])


def fate_of(port: Any) -> int:
    return int(port.tx_frames + sum(port.tx_dropped.values()))


def test_what_the_kernel_refuses_is_sent_frame_by_frame() -> None:
    """A TX socket that knows no vnet header stands for a kernel that refuses GSO: it takes them for frames too long."""
    with Lab(2) as lab, wires(lab) as (one, two):
        dataplane = Dataplane(MacTable(16, None))
        opened = []
        with Links(lab.namespace) as links:
            indices = [links.index(port.name) for port in lab.ports]
        for port, interface in zip(lab.ports, indices, strict=True):
            rx, tx = open_port_sockets(port, interface)
            tx.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 0)
            open_ring(rx.fileno(), 128)
            start_receiving([rx], interface, port.name)
            assert takes_gso(tx)
            index = dataplane.add_port([(0, rx.fileno(), 128)], tx.fileno())
            PortRules(dataplane).set_flags(index, PortFlags(coalesce=True).names)
            dataplane.set_blocked(index, False)
            opened += [rx, tx]
        try:
            FdbAccess(dataplane).add(two.mac, 0, 1)
            sent = run(one, two, 20, 700, protocol=UDP)
            for message in sent:
                one.send_message(message)
            thread = threading.Thread(target=dataplane.run)
            thread.start()
            heard = []
            while len(heard) < 20:
                frame, _ = two.receive()
                if b"fastbridge" in frame:
                    heard.append(frame)
            dataplane.stop()
            thread.join()
            assert heard == sent  # the vnet header as if it were the frame's beginning
            counts = dataplane.snapshot()[0][1]
            assert counts["tx_frames"] >= 20
            assert (counts["coalesced"], counts["split"], sum(counts["tx_dropped"].values())) == (0, 1, 0)
        finally:
            for sock in opened:
                sock.close()


def test_off() -> None:
    with Lab(Topology.of(2, ipv6=None)) as lab, wires(lab) as (one, two), waiting(lab, coalesce=False) as switch:
        assert not switch.flags("pod2").coalesce
        switch.fdb.add(two.mac, "pod2")
        sent = run(one, two, 10, 100)
        for message in sent:
            one.send_message(message)
        switch.start()
        assert [hear(two) for _ in sent] == [segment(message) for message in sent]
        assert switch.counters().total.coalesced == 0


def test_on_by_default_where_gso_frames_are_taken() -> None:
    with Lab(2) as lab:
        set_offload(lab.ports[1].open_socket(socket.AF_INET, socket.SOCK_DGRAM), "pod2", STSO, False)
        with Switch(lab.ports) as switch:
            assert [switch.flags(port.name).coalesce for port in switch.ports] == [True, False]
