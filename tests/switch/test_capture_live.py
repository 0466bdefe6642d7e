"""Captures and mirrors of a switch whose ports are interfaces."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from accounts import unsent
from capture_files import capinfos, needs_libpcap, read_blocks, statistics, tshark
from frames import GROUP, ethernet
from live import PATIENCE, eventually, stage, wires
from streams import Stream, families

from fastbridge import ConfigError, Lab, Switch, Topology
from fastbridge.lab.links import Links
from fastbridge.switch.state import StateFile

pytestmark = pytest.mark.live

X, Y = 0x02_00_00_00_AA_01, 0x02_00_00_00_AA_02


def seen(switch: Switch) -> dict[str, int]:
    """What a capture has of each port: the frames received, and the copies not sent, which a busy machine makes."""
    return {name: port.rx_frames + unsent(port) for name, port in switch.counters().ports.items()}


@families
@pytest.mark.core_path
def test_every_frame_is_in_the_file_and_its_checksum_is_right(tmp_path: Path, family: int) -> None:
    """The pods leave checksums pending, and 64 KB frames whole."""
    path = tmp_path / "tcp.pcapng"
    with stage(2) as (lab, switch):
        first = seen(switch)
        with switch.capture(path) as capture, Stream(lab["pod1"], lab["pod2"], family) as stream:
            began = seen(switch)
            stream.exchange(4)
            ended = seen(switch)
            eventually(lambda: capture.frames >= sum(ended.values()) - sum(began.values()), "the frames")
        assert capture.lost == 0
        last = seen(switch)
    for name, (accepted, lost, written) in statistics(path).items():
        assert ended[name] - began[name] <= written <= last[name] - first[name]
        assert (accepted, lost) == (written, 0)
    checks = ("-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-Y", "tcp")
    rows = tshark(path, "tcp.checksum.status", "frame.len", "frame.comment", options=checks)
    assert {status for status, _, _ in rows} == {"1"}  # good
    large = [said for _, length, said in rows if int(length) > 2000 and not said.startswith("not sent")]
    assert large and all("GSO: to be cut into frames of 14" in said for said in large)


@pytest.mark.core_path
def test_a_copy_that_is_not_sent_is_seen_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "unsent.pcapng"
    with stage(2, mtu=9_000) as (lab, switch), wires(lab) as (one, two):
        two.send(ethernet(GROUP, Y))
        eventually(lambda: switch.fdb.lookup(Y), "a station")
        with Links(lab.namespace) as links:
            links.set("pod2", mtu=1_500)
        with switch.capture(path, reasons=["too_big"]) as capture:
            one.send(ethernet(Y, X, payload=bytes(2000)))
            eventually(lambda: capture.frames, "the copy that was not sent")
        assert switch.counters().ports["pod2"].tx_dropped["too_big"] == 1
    assert tshark(path, "frame.interface_name", "frame.comment", "frame.len") == [("pod2", "not sent: too_big", "2014")]


@needs_libpcap
@pytest.mark.core_path
def test_the_switchs_own_frames_are_seen() -> None:
    """`suppress` answers for pod2: the question is consumed, and the answer is the switch's."""
    with (
        Lab(3) as lab,
        Switch(lab.ports, policy="suppress", trusted=True) as switch,
        switch.capture(ports=["pod1"], filter="arp") as capture,
    ):
        assert lab["pod1"].ping("pod2", timeout=PATIENCE)
        seen: list[Any] = []
        eventually(lambda: seen.extend(capture.read()) or any(not each.ingress for each in seen), "question and answer")
    question, answer = seen[0], next(each for each in seen if not each.ingress)  # pod1 may have asked twice
    assert (question.ingress, question.action) == ("pod1", "consumed")
    assert (answer.ingress, answer.egress) == ("", ("pod1",))
    assert "the switch → ARP reply" in str(answer)


@needs_libpcap
@pytest.mark.both_paths
def test_a_capture_sees_all_and_one_of_drops_leaves_the_fast_path_alone() -> None:
    with stage(2) as (lab, switch):
        assert lab["pod1"].ping("pod2", count=5, timeout=PATIENCE)
        with switch.capture(drops=True) as drops:
            if switch.fast_path != "off":
                before = switch.counters().total.fast

                def fast() -> bool:
                    lab["pod1"].ping("pod2", count=2, timeout=PATIENCE)
                    return switch.counters().total.fast > before

                eventually(fast, "frames by the fast path")
            assert {(event.action, event.reason) for event in drops.read()} <= {("unsent", "costly")}
        with switch.capture(filter="icmp") as capture:
            assert lab["pod1"].ping("pod2", count=5, timeout=PATIENCE)
            seen: list[Any] = []
            eventually(lambda: seen.extend(capture.read()) or len(seen) >= 10, "ten frames")
        assert len(seen) == 10


def received_more(switch: Switch, name: str, before: int) -> bool:
    return switch.counters().ports[name].rx_frames > before


def test_a_port_that_is_made_again_is_captured_again(tmp_path: Path) -> None:
    path = tmp_path / "again.pcapng"
    with Lab(Topology.of(3, ipv6=None)) as lab, Switch(lab.ports, loop_detection=False) as switch, wires(lab) as ends:
        one, _, _ = ends
        with switch.capture(path, ports=["pod1"]) as capture:
            for round_ in range(3):
                before = switch.counters().ports["pod1"].rx_frames
                one.send(ethernet(GROUP, X, payload=b"fastbridge %d" % round_))
                eventually(partial(received_more, switch, "pod1", before), "the frame")
                switch.remove_port("pod1")
                switch.add_port(next(port for port in lab.ports if port.name == "pod1"))
        assert capture.lost == 0
    rows = tshark(path, "frame.interface_name", "data.data", "frame.comment")
    named = Counter(name for name, data, said in rows if "666173746272" in data and "not sent" not in said)
    assert named == {"pod1": 3}


# Mirrors.


def mirrored(switch: Switch, *sources: str) -> int:
    """Frames from and to these ports."""
    ports = switch.counters().ports
    return sum(ports[name].rx_frames + ports[name].tx_frames for name in sources)


@contextmanager
def tcpdump(pod: Any, path: Path) -> Iterator[None]:
    """Writes what comes in at a pod into a file."""
    command = ["tcpdump", "-i", pod.interface, "-w", str(path), "-U", "-n", "-Q", "in", "-B", "65536"]
    try:
        process = pod.popen(command, stderr=subprocess.PIPE, text=True)
    except FileNotFoundError:
        pytest.skip("tcpdump is not installed")
    try:
        assert process.stderr is not None
        while "listening" not in (line := process.stderr.readline()):
            assert line, "tcpdump has ended"
            if "Couldn't change" in line:
                pytest.skip(f"tcpdump becomes another user, which a user namespace forbids: {line}")
        yield
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)


@pytest.mark.both_paths
def test_a_mirror_shows_exactly_what_passes_a_port(tmp_path: Path) -> None:
    path = tmp_path / "span.pcap"
    with Lab(Topology.of(3, ipv6=None)) as lab, Switch(lab.ports, loop_detection=False) as switch:
        with tcpdump(lab["pod3"], path), switch.mirror(["pod1"], "pod3") as mirror:
            before, port = mirrored(switch, "pod1"), switch.counters().ports["pod3"]
            sent, unsent_before = port.tx_frames, unsent(port)
            assert lab["pod1"].ping("pod2", count=10, timeout=PATIENCE)
            with Stream(lab["pod1"], lab["pod2"], 4) as stream:
                stream.exchange(2)

            def quiet() -> bool:  # the last segment may wait in a ring
                count = mirror.frames + mirror.lost
                time.sleep(0.1)
                waiting = any(ring.waiting for ring in switch.load().rings.values())
                return not waiting and count == mirror.frames + mirror.lost == mirrored(switch, "pod1") - before

            eventually(quiet, "the copies")
            assert mirror.lost == unsent(switch.counters().ports["pod3"]) - unsent_before
            assert [port.state for port in switch.ports] == ["up", "up", "blocked"]
            assert switch.counters().ports["pod3"].tx_frames - sent == mirror.frames
            count = mirror.frames
            eventually(lambda: int(capinfos(path).get("Number of packets", "0")) >= count, "tcpdump's file")
        assert int(capinfos(path)["Number of packets"]) == count
        assert [port.state for port in switch.ports] == ["up"] * 3
        assert lab["pod1"].ping("pod3", timeout=PATIENCE)


def test_a_mirrors_port_is_nothing_else() -> None:
    with (
        Lab(Topology.of(4, ipv6=None)) as lab,
        Switch(lab.ports, loop_detection=False, policy="flood") as switch,
        wires(lab) as (one, two, three, four),
    ):
        with switch.mirror(["pod1"], "pod3"):
            two.send(ethernet(GROUP, Y, payload=b"fastbridge from pod2"))  # goes to pod1, so it is shown; once
            three.send(ethernet(GROUP, X, payload=b"fastbridge from pod3"))  # goes nowhere
            eventually(lambda: switch.counters().ports["pod3"].dropped["blocked"] >= 1, "the drop")
            eventually(lambda: switch.fdb.lookup(Y), "pod2's frame")
            mark = one.mark()
            assert three.heard_before(mark) == [ethernet(GROUP, Y, payload=b"fastbridge from pod2")]
            assert four.heard_before(mark) == [ethernet(GROUP, Y, payload=b"fastbridge from pod2")]
            for sources, to in ((["pod2"], "pod3"), (["pod3"], "pod3"), ([], "pod4")):
                with pytest.raises(ConfigError):
                    switch.mirror(sources, to)
        assert switch.mirrors == ()


def test_a_mirror_ends_with_its_port_and_follows_its_sources() -> None:
    with Lab(Topology.of(3, ipv6=None)) as lab, Switch(lab.ports, loop_detection=False) as switch, wires(lab) as ends:
        one, _, three = ends
        mirror = switch.mirror(["pod1"], "pod3")
        port = {port.name: port for port in lab.ports}
        switch.remove_port("pod1")
        switch.add_port(port["pod1"])
        one.send(ethernet(GROUP, X))
        assert three.heard_before(one.mark()) == [ethernet(GROUP, X)]
        switch.remove_port("pod3")
        assert switch.mirrors == ()
        one.send(ethernet(GROUP, X))
        switch.add_port(port["pod3"])
        assert switch.flags("pod3").coalesce
        assert [each.state for each in switch.ports] == ["up"] * 3
        mirror.close()


def test_the_configuration_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "all.pcapng"
    with Lab(Topology.of(2, ipv6=None)) as lab, Switch(lab.ports, loop_detection=False) as switch:
        switch.set_flags("pod2", isolated=True)
        switch.fdb.add("02:00:00:00:00:01", "pod1")
        with switch.capture(path):
            pass
        assert f"configuration:\n{switch.dump_config()}" in read_blocks(path)[0].options.get_all("opt_comment")


def test_what_a_mirror_changes_is_not_kept(tmp_path: Path) -> None:
    state = StateFile(tmp_path / "state.json")

    def kept(switch: Switch) -> list[dict[str, bool]]:
        state.save(switch)
        return [port["flags"] for port in json.loads(state.path.read_text())["ports"]]

    with Lab(Topology.of(3, ipv6=None)) as lab, Switch(lab.ports, loop_detection=False) as switch:
        switch.set_flags("pod2", coalesce=False)
        before = switch.dump_config()
        with switch.mirror(["pod1"], "pod2"), switch.mirror(["pod1"], "pod3"):
            assert not switch.flags("pod3").coalesce
            assert switch.dump_config() == before
            assert kept(switch) == [{}, {"coalesce": False}, {}]
        assert not switch.flags("pod2").coalesce and switch.flags("pod3").coalesce
        with switch.mirror(["pod1"], "pod3"):
            switch.set_flags("pod3", coalesce=False)
            assert kept(switch)[2] == {"coalesce": False}
        assert not switch.flags("pod3").coalesce


def test_what_a_mirror_cannot_send_is_its_loss() -> None:
    with stage(3, ports_fail=True) as (lab, switch), wires(lab) as (one, two, _):
        two.send(ethernet(GROUP, Y))
        eventually(lambda: switch.fdb.lookup(Y), "a station")
        with switch.mirror(["pod1"], "pod3") as mirror:
            lab["pod3"].set_down()
            eventually(lambda: next(p.state for p in switch.ports if p.name == "pod3") == "down", "pod3 down")
            one.send(ethernet(Y, X))
            one.send(ethernet(Y, X))
            eventually(lambda: mirror.frames + mirror.lost >= 2, "the copies")
            lost = mirror.lost  # read first
            assert lost <= sum(switch.counters().ports["pod3"].tx_dropped.values())


@needs_libpcap
@pytest.mark.core_path
def test_several_workers_fill_one_file(tmp_path: Path) -> None:
    path = tmp_path / "workers.pcapng"
    with stage(3, workers=min(2, len(os.sched_getaffinity(0)))) as (lab, switch):
        with switch.capture(path, filter="icmp") as capture:
            for source, target in (("pod1", "pod2"), ("pod2", "pod3"), ("pod3", "pod1")):
                assert lab[source].ping(target, count=5, timeout=PATIENCE)
            eventually(lambda: capture.frames >= 30, "the frames")
        workers = len({queue for (queue,) in tshark(path, "frame.interface_queue")})
    assert workers == min(2, len(os.sched_getaffinity(0)))
    assert len(set(tshark(path, "frame.packet_id"))) == 30


def test_a_forked_child_leaves_the_parents_capture_alone(tmp_path: Path) -> None:
    path = tmp_path / "parent.pcapng"
    with Lab(Topology.of(2, ipv6=None)) as lab, Switch(lab.ports, loop_detection=False) as switch, wires(lab) as ends:
        with switch.capture(path) as capture:
            child = os.fork()
            if not child:
                status = 1
                try:
                    capture.close()
                    with pytest.raises(ConfigError, match="runs in process"):
                        switch.capture()
                    with pytest.raises(ConfigError, match="runs in process"):
                        switch.mirror(["pod1"], "pod2")
                    status = 0
                finally:
                    os._exit(status)
            assert os.waitpid(child, 0)[1] == 0
            ends[0].send(ethernet(GROUP, X))
            eventually(lambda: capture.frames >= 1, "the frame")
        assert (capture.frames, capture.lost) == (1, 0)
    assert statistics(path)["pod1"] == (1, 0, 1)


def test_a_stopped_switch_has_ended_all_captures_and_begins_none(tmp_path: Path) -> None:
    path = tmp_path / "all.pcapng"
    with Lab(Topology.of(2, ipv6=None)) as lab:
        with Switch(lab.ports, loop_detection=False) as switch:
            capture = switch.capture(path)
            mirror = switch.mirror(["pod1"], "pod2")
        assert capture.wait(PATIENCE)
        capture.close()
        mirror.close()
        assert statistics(path) == {"pod1": (0, 0, 0), "pod2": (0, 0, 0)}
        for begin in (switch.capture, lambda: switch.mirror(["pod1"], "pod2")):
            with pytest.raises(ConfigError, match="was stopped"):
                begin()
