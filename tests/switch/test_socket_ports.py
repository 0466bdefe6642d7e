"""Ports that are Python objects: in memory, and on a running switch that has no other port, so without any right."""

from __future__ import annotations

import asyncio
import os
import random
import re
import select
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from accounts import check_copies, check_fates
from arp_nd_frames import arp
from asked import Asked
from frames import GROUP, ethernet, tag
from gso import checksum, gso_frame
from live import PATIENCE, Wire, eventually
from scapy.layers.inet import UDP
from scapy.layers.l2 import Ether

from fastbridge import ConfigError, Lab, MemorySwitch, PortError, PortSettings, SocketPort, Switch
from fastbridge.metrics import plain_text
from fastbridge.switch.state import StateFile
from fastbridge.waiting import wait_for

ONE, TWO, THREE = 0x020000000001, 0x020000000002, 0x020000000003


@pytest.fixture(params=["memory", "live"])
def switch(request: pytest.FixtureRequest) -> Iterator[MemorySwitch | Switch]:
    if request.param == "memory":
        yield MemorySwitch([])
    else:
        with Switch([], loop_detection=False) as running:  # frames made by hand let stations flap
            yield running


@pytest.fixture
def ports(switch: MemorySwitch | Switch) -> Iterator[list[SocketPort]]:
    made = [switch.add_socket_port(name) for name in "abc"]
    yield made
    counters = switch.counters()
    check_fates(counters)
    for port in made:
        port.close()


def heard(port: SocketPort) -> list[bytes]:
    """All that waits."""
    frames = []
    while wait_for(port.fileno(), select.POLLIN, 0):
        frames.append(port.recv(0))
    return frames


def test_frames_go_where_the_switch_sends_them(switch: MemorySwitch | Switch, ports: list[SocketPort]) -> None:
    a, b, _ = ports
    everyone, tagged = ethernet(GROUP, ONE), ethernet(GROUP, ONE, tag(7))
    a.send(everyone)
    a.send(tagged)
    assert [heard(port) for port in ports] == [[], [everyone, tagged], [everyone, tagged]]
    answer = ethernet(ONE, TWO)
    b.send(answer)
    assert [heard(port) for port in ports] == [[answer], [], []]
    entry = switch.fdb.lookup(TWO)
    assert entry and entry.port == "b"
    counters = switch.counters().ports
    assert (counters["a"].rx_frames, counters["a"].flooded, counters["b"].forwarded) == (2, 2, 1)
    for name, copies in {"a": 1, "b": 2, "c": 2}.items():
        check_copies(counters[name], copies)
        assert counters[name].tx_frames == copies
    assert switch.explain(a, ethernet(TWO, ONE)).egress == ("b",)


def test_it_is_a_port_like_any_other(switch: MemorySwitch | Switch) -> None:
    """Of many frames each goes where a plain port's would, and is counted so."""
    draw = random.Random(7)
    plain = MemorySwitch(4)
    ports = [switch.add_socket_port(str(n)) for n in range(4)]
    for number in range(400):
        source, destination = ONE + draw.randrange(8), draw.choice([GROUP, *range(ONE, ONE + 8)])
        frame = ethernet(destination, source, draw.choice([b"", tag(5)]), payload=b"%d" % number)
        ingress = draw.randrange(4)
        ports[ingress].send(frame)
        copies = plain.process(ingress, [frame])
        assert [(n, each) for n, port in enumerate(ports) for each in heard(port)] == copies
    counted = switch.counters()
    assert replace(counted, time=0.0) == replace(plain.counters(), time=0.0)
    assert counted.moved and counted.total.dropped["filtered"] and counted.total.flooded and counted.total.forwarded
    for port in ports:
        port.close()


def test_a_port_that_nobody_reads_loses_frames_and_counts_them(
    switch: MemorySwitch | Switch, ports: list[SocketPort]
) -> None:
    a, b, c = ports
    sent = 0
    while not switch.counters().ports["b"].tx_dropped["full"]:
        assert sent < 100_000
        for _ in range(100):
            a.send(ethernet(GROUP, ONE, payload=b"%d" % sent))
            heard(c)
            sent += 1
    counters = switch.counters().ports["b"]
    check_copies(counters, sent)
    got = heard(b)
    assert len(got) == counters.tx_frames == sent - counters.tx_dropped["full"]
    assert got == [ethernet(GROUP, ONE, payload=b"%d" % n) for n in range(len(got))]  # the first ones
    assert switch.counters().ports["c"].tx_frames == sent


def test_waiting_for_a_frame(ports: list[SocketPort]) -> None:
    a, b, _ = ports
    with pytest.raises(TimeoutError, match=r"port b has got no frame within 0\.01 s"):
        b.recv(0.01)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(b.recv(PATIENCE)))
    reader.start()
    a.send(ethernet(GROUP, ONE))
    reader.join(PATIENCE)
    assert got == [ethernet(GROUP, ONE)]


def test_many_threads_may_send() -> None:
    """Whichever worker reads other ports: frames of one port stay in order, and none is lost."""
    workers = min(2, len(os.sched_getaffinity(0)))
    with Switch([], workers=workers) as switch, switch.add_socket_port("all") as everyone:
        ports = [switch.add_socket_port(f"port{n}") for n in range(3)]

        def send(number: int) -> None:
            for n in range(100):
                ports[number].send(ethernet(0x020000000099, ONE + number, payload=b"%d %d" % (number, n)))

        everyone.send(ethernet(GROUP, 0x020000000099))  # what follows is for this port alone
        threads = [threading.Thread(target=send, args=(n,)) for n in range(3)]
        for thread in threads:
            thread.start()
        got = [everyone.recv(PATIENCE)[14:].split() for _ in range(300)]
        for thread in threads:
            thread.join()
        for number in range(3):
            assert [int(n) for who, n in got if int(who) == number] == list(range(100))
        assert switch.counters().ports["all"].tx_frames == 300
        for port in ports:
            port.close()


def test_an_event_loop_can_wait_for_frames(ports: list[SocketPort]) -> None:
    a, b, _ = ports

    async def listen() -> bytes:
        loop = asyncio.get_running_loop()
        frame: asyncio.Future[bytes] = loop.create_future()
        loop.add_reader(b, lambda: frame.set_result(b.recv(0)))
        a.send(ethernet(GROUP, ONE))
        try:
            return await asyncio.wait_for(frame, PATIENCE)
        finally:
            loop.remove_reader(b)

    assert asyncio.run(listen()) == ethernet(GROUP, ONE)


def test_a_port_that_is_closed_leaves_the_switch(switch: MemorySwitch | Switch) -> None:
    with switch.add_socket_port("a") as a, switch.add_socket_port("b") as b:
        assert "a" in switch.ports and repr(a) == "<SocketPort a>"
        errors: list[str] = []

        def listen() -> None:
            with pytest.raises(PortError) as error:
                a.recv(PATIENCE)
            errors.append(str(error.value))

        reader = threading.Thread(target=listen)
        reader.start()
        a.close()
        reader.join(PATIENCE)
        said = "port a is closed, or its switch has stopped; add_socket_port() makes a new one"
        assert errors == [said] and "a" not in switch.ports
        assert (a.fileno(), repr(a)) == (-1, "<SocketPort a, closed>")
        for use in (a.recv, lambda: a.send(ethernet(GROUP, ONE))):
            with pytest.raises(PortError) as error:
                use()
            assert str(error.value) == said
        with switch.add_socket_port(
            "a"
        ) as again:  # it may have the index of the first one, which must not speak for it
            with pytest.raises(PortError):
                a.send(ethernet(GROUP, ONE))
            a.close()
            again.send(ethernet(GROUP, ONE))
            assert b.recv(PATIENCE) == ethernet(GROUP, ONE)
    assert not switch.ports
    assert switch.counters().total.rx_frames == 1


def test_a_port_that_is_closed_just_before_it_waits(ports: list[SocketPort], monkeypatch: pytest.MonkeyPatch) -> None:
    one, number = ports[0], ports[0].fileno()

    def closed_meanwhile(_: SocketPort) -> int:
        monkeypatch.undo()
        one.close()
        return number

    monkeypatch.setattr(SocketPort, "fileno", closed_meanwhile)
    with pytest.raises(PortError, match="is closed"):
        one.recv(PATIENCE)


def test_somebody_else_may_remove_it(switch: MemorySwitch | Switch) -> None:
    with switch.add_socket_port("a") as a, switch.add_socket_port("b") as b:
        b.send(ethernet(GROUP, TWO))
        switch.remove_port("a")
        assert a.recv() == ethernet(GROUP, TWO)  # it had come before
        with pytest.raises(PortError, match="port a is closed"):
            a.recv()


def test_bad_requests_are_one_line(switch: MemorySwitch | Switch) -> None:
    with switch.add_socket_port("a") as a:
        with pytest.raises(ConfigError, match=r"^a is a port of this switch already$"):
            switch.add_socket_port("a")
        for name in "", "a b", "a>b", "eth0:1", "a/b", "sixteen-letters-", 7:
            with pytest.raises(ConfigError, match="cannot be a port's name: 1 to 15 characters"):
                switch.add_socket_port(name)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="bytes"):
            a.send("frame")  # type: ignore[arg-type]
        assert [port.name for port in switch.ports] == ["a"]
        a.send(b"")  # not an Ethernet frame: that is counted, as one off a wire would be
        assert switch.counters().ports["a"].dropped["runt"] == 1


def test_what_cannot_join_leaves_nothing(switch: MemorySwitch | Switch, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ConfigError(f"no {name}")

    with monkeypatch.context() as patched:
        patched.setattr(switch, "on_port", refuse)
        with pytest.raises(ConfigError, match="no a"):
            switch.add_socket_port("a")
    assert not switch.ports
    with switch.add_socket_port("a") as a, switch.add_socket_port("b") as b:
        a.send(ethernet(GROUP, ONE))
        assert b.recv() == ethernet(GROUP, ONE)


def test_a_checksum_that_was_left_to_the_device_is_complete_and_large_frames_come_as_on_a_wire() -> None:
    switch = MemorySwitch(["pod"])
    with switch.add_socket_port("probe") as probe:
        for version in 4, 6:
            frame, header = gso_frame(GROUP, ONE, tag(5), version, 2_500)
            assert switch.process_offloaded("pod", [header.pack() + frame]) == []
            pieces = [probe.recv(0) for _ in range(3)]
            start = header.csum_start
            assert [len(piece) - start - 20 for piece in pieces] == [1_000, 1_000, 500]
            assert b"".join(piece[start + 20 :] for piece in pieces) == frame[start + 20 :]
            for piece in pieces:
                addresses = piece[start - 8 : start] if version == 4 else piece[start - 32 : start]
                assert checksum(addresses + struct.pack("!HH", 6, len(piece) - start) + piece[start:]) == 0
                assert piece[:18] == frame[:18]
        # To UDP a checksum of 0 would mean that there is none.
        summed_to_zero = ethernet(GROUP, ONE, ethertype=0x0800, payload=bytes(38) + b"\xff\xff")
        for offset, kept in (6, b"\xff\xff"), (16, b"\0\0"):
            switch.process_offloaded("pod", [struct.pack("=BBHHHH", 1, 0, 0, 0, 14, offset) + summed_to_zero])
            assert probe.recv(0)[14 + offset :][:2] == kept
        counters = switch.counters().ports["probe"]
        assert (counters.tx_frames, sum(counters.tx_dropped.values())) == (4, 0)


def test_in_memory_the_caller_gets_the_copies_that_no_socket_port_has() -> None:
    switch = MemorySwitch(["pod"], clock=None, policy="suppress")
    with switch.add_socket_port("probe") as probe, switch.add_socket_port("other") as other:
        copies = switch.process("pod", [ethernet(GROUP, ONE)])
        assert copies == [] and probe.recv(0) == other.recv(0) == ethernet(GROUP, ONE)
        # As send(), with the copy that this would lose.
        copies = switch.process("probe", [ethernet(GROUP, TWO)])
        assert [(switch.ports[copy.port].name, copy.frame) for copy in copies] == [("pod", ethernet(GROUP, TWO))]
        assert other.recv(0) == ethernet(GROUP, TWO)
        switch.set_link("probe", "delay=10ms")
        probe.send(ethernet(GROUP, TWO))
        assert switch.counters().ports["probe"].rx_in_flight == 1 and not heard(other)
        (arrival,) = switch.advance(0.01)
        assert switch.ports[arrival.port].name == "pod" and other.recv(0) == ethernet(GROUP, TWO)
        other.send(ethernet(TWO, THREE))
        assert switch.advance(0.01) == [] and probe.recv(0) == ethernet(TWO, THREE)
        switch.add_neighbour("10.0.0.9", "02:00:00:00:00:09", "pod")
        other.send(bytes(arp(1, "02:00:00:00:00:02", "10.0.0.2", "10.0.0.9")))
        assert other.recv(0) == bytes(arp(2, "02:00:00:00:00:09", "10.0.0.9", "10.0.0.2", to="02:00:00:00:00:02"))
    check_fates(switch.counters())


def test_a_running_switch_must_run() -> None:
    switch = Switch([])
    try:
        early = switch.add_socket_port("early")
        with pytest.raises(PortError, match="port early cannot send: its switch is not started; call start"):
            early.send(ethernet(GROUP, ONE))
        switch.start()
        early.send(ethernet(GROUP, ONE))
        with pytest.raises(ConfigError, match="a frame of 99999 bytes is too long: 73920 at most"):
            early.send(bytes(99_999))
    finally:
        switch.stop()
    with pytest.raises(PortError, match="port early is closed, or its switch has stopped"):
        early.recv()
    with pytest.raises(ConfigError, match="this switch was stopped"):
        switch.add_socket_port("late")
    early.close()
    assert switch.counters().ports["early"].rx_frames == 1


def test_links_hold_for_it_on_a_running_switch() -> None:
    with Switch([]) as switch, switch.add_socket_port("a") as a, switch.add_socket_port("b") as b:
        switch.set_link(a, "delay=5ms")
        switch.set_link(b, "delay=5ms")
        a.send(ethernet(GROUP, ONE))
        assert b.recv(PATIENCE) == ethernet(GROUP, ONE)
        counters = switch.counters().ports
        assert counters["a"].rx_in_flight == counters["b"].tx_in_flight == 0
        switch.cut("a", direction="from_pod")
        a.send(ethernet(GROUP, ONE))
        assert switch.counters().ports["a"].dropped["link_cut"] == 1
        check_fates(switch.counters())


def test_a_mirror_may_copy_to_it() -> None:
    with Switch([]) as switch, closing(switch.add_socket_port("ids")) as ids, switch.add_socket_port("a") as a:
        b = switch.add_socket_port("b")
        with b, switch.mirror([a], to=ids):
            b.send(ethernet(GROUP, TWO))
            a.send(ethernet(TWO, ONE))
            assert b.recv(PATIENCE) == ethernet(TWO, ONE)
            assert [ids.recv(PATIENCE) for _ in range(2)] == [ethernet(GROUP, TWO), ethernet(TWO, ONE)]


def test_settings_wait_for_it() -> None:
    settings = {"probe": PortSettings(flags={"isolated": True}, policy=None)}
    with Switch([], settings=settings) as switch, switch.add_socket_port("probe"):
        assert switch.flags("probe").isolated


def test_whoever_asks_a_running_switch_hears_of_it() -> None:
    with Switch([]) as switch, switch.add_socket_port("probe") as probe:
        probe.send(ethernet(GROUP, ONE))
        asked = Asked(switch)
        assert [(row["ifname"], row["state"], row["stations"]) for row in asked("port.list")] == [("probe", "up", 1)]
        assert asked("stats")[0]["rx_frames"] == 1
        assert asked("status")[0]["ports"]["up"] == 1
        assert asked("load")[0]["rings"] == {"probe": {"waiting": 0, "slots": 0}}
        assert 'fastbridge_port_receive_frames_total{port="probe"} 1.0' in plain_text(switch)


def test_no_file_says_that_there_is_one(tmp_path: Path) -> None:
    """A configuration cannot make it, and a state finds nothing of it again."""
    with Switch([]) as switch, switch.add_socket_port("a") as a, switch.add_socket_port("b"):
        switch.set_link("a", "delay=1ms")
        switch.set_link(("a", "b"), "delay=1ms")
        switch.fdb.add(TWO, "b")
        switch.add_neighbour("10.0.0.2", TWO, "b")
        a.send(ethernet(GROUP, ONE))
        eventually(lambda: switch.fdb.lookup(ONE))
        said = switch.dump_config()
        assert '"a"' not in said and '"b"' not in said and "10.0.0.2" not in said
        with pytest.raises(ConfigError, match=r"^a is a socket port, which has no carrier; close it instead$"):
            switch.set_carrier("a", False)
        switch.state = StateFile(tmp_path / "state")
        switch.save_state()
        assert "taken back" in switch.state.take_back(switch)
        assert not switch.interfaces


@pytest.mark.parametrize("make", ["MemorySwitch([])", "Switch([])"])
def test_a_forked_child_leaves_it_to_its_parent(make: str) -> None:
    script = f"""
import contextlib, os, sys
from fastbridge import MemorySwitch, PortError, Switch
switch = {make}
with switch if isinstance(switch, Switch) else contextlib.nullcontext():
    with switch.add_socket_port("a") as a, switch.add_socket_port("b") as b:
        pid = os.fork()
        if not pid:
            for use in b.recv, lambda: a.send(b""):
                with contextlib.suppress(PortError):
                    use()
                    os._exit(8)
            a.close()
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        a.send(b"\\xff" * 6 + bytes([2, 0, 0, 0, 0, 1, 0x88, 0xb5]))
        assert len(b.recv(60)) == 14
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=180)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.live
@pytest.mark.both_paths
def test_what_a_pods_stack_leaves_to_its_interface_is_complete() -> None:
    """Checksums, and the segments of large frames."""
    with Lab(2) as lab, Switch(lab.ports) as switch, switch.add_socket_port("probe") as probe:
        pod, own = lab["pod1"], 0x020000000009

        def next_with(is_wanted: Callable[[bytes], bool]) -> bytes:
            return next(frame for frame in iter(lambda: probe.recv(PATIENCE), b"") if is_wanted(frame))

        probe.send(ethernet(GROUP, own))  # where it is
        pod.run(["ip", "neigh", "add", "10.0.0.9", "lladdr", "02:00:00:00:00:09", "dev", "eth0"])
        with pod.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.sendto(b"fastbridge", ("10.0.0.9", 9))
        packet = Ether(next_with(lambda frame: b"fastbridge" in frame))
        sent = packet[UDP].chksum
        del packet[UDP].chksum
        assert sent == Ether(bytes(packet))[UDP].chksum
        large, header = gso_frame(own, int(pod.mac), b"", 4, 30_000)
        with closing(Wire(pod).socket) as raw:
            raw.send(header.pack() + large)
        pieces = [next_with(lambda frame: len(frame) > 1_000) for _ in range(30)]
        assert b"".join(piece[54:] for piece in pieces) == large[54:]
        check_fates(switch.counters())


def test_without_a_socket_there_is_no_port() -> None:
    script = """
import os, resource
from fastbridge import MemorySwitch, PortError
switch = MemorySwitch(["pod"])
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
ports = []
try:
    while len(ports) < 40:
        ports.append(switch.add_socket_port(f"probe{len(ports)}"))
except PortError as error:
    print(error)
assert len(switch.ports) == 1 + len(ports)
ports.pop().close()
ports.append(switch.add_socket_port("again"))
for port in ports:
    port.close()
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=180)
    said = (
        r"cannot make the socket of port probe\d+: Too many open files; raise the limit on open files \(ulimit -n\)\n"
    )
    assert done.stderr == "" and re.fullmatch(said, done.stdout)
