"""Captures of a switch in memory: what is in the file, read by other programs."""

from __future__ import annotations

import base64
import os
import select
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from capture_files import capinfos, needs_libpcap, read_blocks, statistics, tshark
from frames import GROUP, ethernet, tag
from hypothesis import given
from hypothesis import strategies as st
from live import PATIENCE

from fastbridge import CaptureError, ConfigError, Switch, pcapng
from fastbridge.core.filters import Filter
from fastbridge.core.tapping import Tap
from fastbridge.pcap_filter import compile_filter
from fastbridge.switch import capture as capture_module
from fastbridge.switch import file_capture
from fastbridge.switch.capture_verbs import CaptureStream, CaptureVerbs
from fastbridge.switch.recorder import Recorder
from fastbridge.waiting import wait_for

X, Y = 0x02_00_00_00_00_01, 0x02_00_00_00_00_02
FIELDS = ("frame.interface_name", "frame.comment", "frame.packet_id", "frame.packet_flags_direction")


def busy(switch: Any) -> None:
    """One frame flooded, three forwarded, one dropped."""
    switch.process(0, [ethernet(GROUP, X)])
    switch.process(1, [ethernet(X, Y)] * 3)
    switch.process(2, [ethernet(X, 0)])


def test_a_block_a_frame_with_its_fate(tmp_path: Path) -> None:
    switch, path = Switch.in_memory(["a", "b", "c"]), tmp_path / "all.pcapng"
    with switch.capture(path) as capture:
        busy(switch)
    assert (capture.frames, capture.lost) == (5, 0)
    said = [(name, comment) for name, comment, *_ in tshark(path, *FIELDS)]
    assert said == [
        ("a", "flooded → b, c; source learned"),
        ("b", "forwarded → a; source learned"),
        ("b", "forwarded → a"),
        ("b", "forwarded → a"),
        ("c", "dropped: bad_source"),
    ]
    assert {direction for *_, direction in tshark(path, *FIELDS)} == {"0x00000001"}
    received = {name: port.rx_frames for name, port in switch.counters().ports.items()}
    assert Counter(name for name, *_ in said) == received
    assert statistics(path) == {name: (count, 0, count) for name, count in received.items()}


def test_copies_have_the_packet_id_of_their_frame(tmp_path: Path) -> None:
    switch, path = Switch.in_memory(["a", "b", "c"]), tmp_path / "copies.pcapng"
    with switch.capture(path, copies=True):
        busy(switch)
    rows = tshark(path, *FIELDS)
    assert Counter((name, direction[-1]) for name, _, _, direction in rows) == {
        ("a", "1"): 1, ("b", "1"): 3, ("c", "1"): 1, ("a", "2"): 3, ("b", "2"): 1, ("c", "2"): 1,
    }  # fmt: skip
    first = [row for row in rows if row[2] == rows[0][2]]
    assert [(name, comment) for name, comment, *_ in first[1:]] == [("b", "copy of a"), ("c", "copy of a")]
    assert len({row[2] for row in rows}) == 5


def test_all_readers_agree(tmp_path: Path) -> None:
    """tshark, capinfos, scapy and python-pcapng: the same frames, times and names."""
    from scapy.utils import rdpcap

    switch, path = Switch.in_memory(["a", "b"]), tmp_path / "all.pcapng"
    sent = [ethernet(GROUP, X, payload=os.urandom(50 + n)) for n in range(20)]
    with switch.capture(path):
        switch.process("a", sent)
    assert [bytes(frame) for frame in rdpcap(str(path))] == sent
    blocks = [block for block in read_blocks(path) if type(block).__name__ == "EnhancedPacket"]
    assert [block.packet_data for block in blocks] == sent
    info = capinfos(path)
    assert (info["Number of packets"], info["Strict time order"]) == ("20", "True")
    assert info["File timestamp precision"] == "nanoseconds (9)"
    seconds = [float(time) for (time,) in tshark(path, "frame.time_epoch")]
    assert seconds == pytest.approx([block.timestamp for block in blocks], abs=1e-6)
    assert {frame.sniffed_on for frame in rdpcap(str(path))} == {"a"}


@needs_libpcap
def test_the_file_says_what_was_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("pcapng")
    switch, path = Switch.in_memory(["a", "b"]), tmp_path / "some.pcapng"
    with switch.capture(path, ports=["b"], reasons=["bad_source"], filter="ether[0] & 1 = 1", snap=60):
        pass
    head, interface, _ = read_blocks(path)
    assert head.options["shb_userappl"].startswith("fastbridge ")
    assert head.options.get_all("opt_comment") == [
        repr(switch),
        "capture: ports b; drops for bad_source; filter 'ether[0] & 1 = 1'; 60 bytes of a frame",
    ]
    assert (interface.options["if_name"], interface.snaplen) == ("b", 60)
    assert interface.options["if_filter"] == (0, b"ether[0] & 1 = 1")


@pytest.mark.parametrize(
    ("wish", "seen"),
    [
        ({}, ["flooded", "forwarded", "forwarded", "forwarded", "dropped"]),
        ({"drops": True}, ["dropped"]),
        ({"reasons": ["bad_source", "runt"]}, ["dropped"]),
        ({"reasons": ["runt"]}, []),
        ({"ports": ["c"]}, ["flooded", "dropped"]),
        ({"ports": ["a"]}, ["flooded", "forwarded", "forwarded", "forwarded"]),
        ({"ports": ["c"], "drops": True}, ["dropped"]),
        pytest.param({"filter": f"ether src {Y:012x}"}, ["forwarded"] * 3, marks=needs_libpcap),
        ({"count": 2}, ["flooded", "forwarded"]),
    ],
    ids=str,
)
def test_only_what_is_wished_for(wish: dict[str, Any], seen: list[str]) -> None:
    switch = Switch.in_memory(["a", "b", "c"])
    with switch.capture(**wish) as capture:
        busy(switch)
        assert [event.action for event in capture.read()] == seen
        assert capture.ended == ("count" in wish)


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        ({"reasons": ["rust"]}, "no drop reason 'rust'; there are: runt, "),
        ({"ports": ["d"]}, "no port 'd'; it has: a, b"),
        ({"count": 0}, "1 frame or more"),
        ({"snap": 0}, "1 … 1048576 bytes"),
        pytest.param({"filter": "foo bar"}, "is no filter", marks=needs_libpcap),
        ({"file": "/nonexistent/file"}, "cannot write /nonexistent/file: No such file"),
    ],
    ids=str,
)
def test_what_cannot_be_captured_is_one_line(wish: dict[str, Any], why: str) -> None:
    switch = Switch.in_memory(["a", "b"])
    with pytest.raises(ConfigError, match=why) as caught:
        switch.capture(**wish)
    assert "\n" not in str(caught.value)
    threads = {thread.name for thread in threading.enumerate()}
    assert "fastbridge-capture" not in threads


def test_each_reason_is_offered_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Switch.in_memory(2).capture(reasons=["rust"])
    offered = str(caught.value).partition("there are: ")[2].partition(";")[0].split(", ")
    assert len(offered) == len(set(offered)) and {"runt", "port_down", "link_queue"} <= set(offered)


ADDRESSES = st.sampled_from([X, Y, X + 0x10, GROUP, 0x01_80_C2_00_00_00, 0])
FRAMES = st.one_of(
    st.builds(
        ethernet, ADDRESSES, ADDRESSES, st.sampled_from([b"", tag(7), tag(7)[:3]]), payload=st.binary(max_size=60)
    ),
    st.binary(max_size=20),
)


@given(st.lists(st.tuples(st.integers(0, 2), st.lists(FRAMES, max_size=4)), max_size=12))
def test_a_capture_adds_up_to_the_counters(batches: list[tuple[int, list[bytes]]]) -> None:
    switch = Switch.in_memory(["a", "b", "c"], filter_link_local=True)
    with switch.capture() as capture:
        leaving = [copy for ingress, frames in batches for copy in switch.process(ingress, frames)]
        seen = capture.read()
    counted: Counter[tuple[str, str]] = Counter()
    for name, port in switch.counters().ports.items():
        fates = {"forwarded": port.forwarded, "flooded": port.flooded, "consumed": port.consumed, **port.dropped}
        counted.update({(name, fate): count for fate, count in fates.items()})
    assert Counter((event.ingress, event.reason or event.action) for event in seen) == +counted
    assert [event.frame for event in seen] == [frame for _, frames in batches for frame in frames]
    names = {port.index: port.name for port in switch.ports}
    assert [(name, event.frame) for event in seen for name in event.egress] == [
        (names[port], frame) for port, frame in leaving
    ]


def test_a_full_ring_loses_the_newest_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture_module, "_ROOM", 4096)
    switch, path = Switch.in_memory(["a", "b"]), tmp_path / "some.pcapng"
    capture = switch.capture()
    recorder = Recorder(capture)
    switch.process("a", [ethernet(GROUP, X, payload=b"%03d" % n) for n in range(100)])
    path.write_bytes(recorder.finish())
    kept = statistics(path)["a"][2]
    assert 0 < kept < 100
    assert statistics(path) == {"a": (100, 100 - kept, kept), "b": (0, 0, 0)}
    assert [data[-6:] for (data,) in tshark(path, "data.data")] == [(b"%03d" % n).hex() for n in range(kept)]


def test_a_ring_wraps_and_loses_nothing_that_is_read_in_time() -> None:
    switch = Switch.in_memory(["a", "b"])
    tap = Tap(switch._dataplane, snap=300, room=1000)
    tap.start()
    sent = [ethernet(GROUP, X, payload=os.urandom(n % 280)) for n in range(500)]
    seen = []
    for frame in sent:
        switch.process("a", [frame])
        seen += [row[4] for row in tap.read()]
    tap.stop()
    assert (seen, tap.counts) == (sent, (500, 0))


def test_what_is_not_read_at_once_is_still_announced() -> None:
    switch = Switch.in_memory(["a", "b"])
    tap = Tap(switch._dataplane, snap=100, room=1 << 16)
    tap.start()
    switch.process("a", [ethernet(GROUP, X)] * 10)
    taken = 0
    while wait_for(tap.fileno(), select.POLLIN, 0):
        taken += len(tap.read(1))  # a byte, and a frame
    assert taken == 10


def test_several_look_at_once_and_each_sees_all() -> None:
    switch = Switch.in_memory(["a", "b", "c"])
    with switch.capture() as one, switch.trace() as trace, switch.capture(drops=True) as drops:
        busy(switch)
        with switch.capture() as late:
            busy(switch)
        assert [len(capture.read()) for capture in (one, drops, late)] == [10, 2, 5]
        assert len(trace.read()) == 10


def test_a_capture_that_nobody_holds_ends() -> None:
    switch = Switch.in_memory(["a", "b", "c"])
    switch.capture()
    busy(switch)
    assert not switch._watching


@needs_libpcap
def test_ports_come_while_a_filter_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """That takes long where a name is looked up."""
    switch, begun, goes_on = Switch.in_memory(["a"]), threading.Event(), threading.Event()

    def slow(text: str) -> Filter:
        begun.set()
        assert goes_on.wait(PATIENCE)
        return compile_filter(text)

    monkeypatch.setattr(capture_module, "compile_filter", slow)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(switch.capture(filter="arp")))
    thread.start()
    assert begun.wait(PATIENCE)
    adding = threading.Thread(target=switch.add_port, args=("b",))
    adding.start()
    adding.join(PATIENCE)
    came = [port.name for port in switch.ports]
    goes_on.set()
    thread.join()
    adding.join()
    assert came == ["a", "b"] and len(found) == 1


def test_captures_may_end_while_all_are_told_of_ports() -> None:
    """In other threads than the one that tells them."""
    switch = Switch.in_memory(["a", "b"])
    kept = [switch.capture(drops=True) for _ in range(20)]
    watching, ends, ended = switch._watching, threading.Event(), 0

    def come_and_go() -> None:
        nonlocal ended
        while not ends.is_set():
            for capture in kept:
                watching.discard(capture)
                watching.add(capture)
            ended += 1

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        while ended < 2000:
            assert len(list(watching)) in (19, 20)
    finally:
        sys.setswitchinterval(usual)
        ends.set()
        thread.join()


def test_a_file_ends_before_it_is_too_large(tmp_path: Path) -> None:
    switch, path = Switch.in_memory(["a", "b"]), tmp_path / "small.pcapng"
    with switch.capture(path, most_bytes=2000) as capture:
        while not capture.ended:
            switch.process("a", [ethernet(GROUP, X)] * 10)
    rows = statistics(path)
    delivered = rows["a"][2]
    assert capture.frames == delivered == int(capinfos(path)["Number of packets"]) > 3
    assert 1800 < path.stat().st_size <= 2000


def test_a_limit_that_holds_no_frame_makes_no_file(tmp_path: Path) -> None:
    path = tmp_path / "none.pcapng"
    switch = Switch.in_memory(["a", "b"])
    with pytest.raises(ConfigError, match=r"a file of at most 10 bytes holds no frame: it begins with [0-9]{3} bytes"):
        switch.capture(path, most_bytes=10)
    assert not path.exists() and not list(switch._watching)


def test_the_readers_end_ends_the_capture() -> None:
    switch = Switch.in_memory(["a", "b"])
    reading, writing = os.pipe()
    with switch.capture(writing) as capture:
        os.close(reading)
        while not capture.ended:
            switch.process("a", [ethernet(GROUP, X)] * 10)
    os.close(writing)
    assert switch.process("a", [ethernet(GROUP, X)])


def test_a_pipe_that_nobody_reads_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_capture, "_PATIENCE", 0.1)
    monkeypatch.setattr(capture_module, "_ROOM", 1 << 18)
    switch = Switch.in_memory(["a", "b"])
    reading, writing = os.pipe()
    capture = switch.capture(writing)
    while not capture.lost:
        switch.process("a", [ethernet(GROUP, X, payload=bytes(1000))] * 100)
    with pytest.raises(CaptureError, match=r"cannot write file \d+: nobody reads it"):
        capture.close()
    capture.close()
    os.close(reading)
    os.close(writing)


def test_a_full_disk_is_said_at_the_end() -> None:
    switch = Switch.in_memory(["a", "b"])
    capture = switch.capture("/dev/full")
    assert capture.wait(60)
    with pytest.raises(CaptureError, match="cannot write /dev/full: No space left on device"):
        capture.close()


def test_an_event_loop_waits_for_its_descriptor() -> None:
    import asyncio

    switch = Switch.in_memory(["a", "b", "c"])

    async def watch() -> list[str]:
        loop, came = asyncio.get_running_loop(), asyncio.Event()
        with switch.capture() as capture:
            loop.add_reader(capture.fileno(), came.set)
            busy(switch)
            await came.wait()
            loop.remove_reader(capture.fileno())
            return [event.action for event in capture.read()]

    assert len(asyncio.run(watch())) == 5


def test_a_capture_can_be_iterated_over_until_it_ends() -> None:
    switch = Switch.in_memory(["a", "b", "c"])
    capture = switch.capture(count=5)
    busy(switch)
    assert [event.ingress for event in capture] == ["a", "b", "b", "b", "c"]


def next_events(stream: CaptureStream) -> list[dict[str, Any]] | None:
    """What comes next; a stream says so until it has ended."""
    assert wait_for(stream.fileno(), select.POLLIN, 0)
    return stream.read()


@pytest.mark.parametrize("text", [True, False])
def test_a_stream_of_events_ends_when_it_is_stopped(text: bool, tmp_path: Path) -> None:
    switch = Switch.in_memory(["a", "b", "c"])
    capture = switch.capture()
    stream = CaptureStream(capture, None if text else Recorder(capture), 7)
    busy(switch)
    assert wait_for(stream.fileno(), select.POLLIN, 0)
    events = stream.read()
    busy(switch)
    stream.stop()
    while (more := next_events(stream)) is not None:
        assert events is not None
        events += more
    assert events is not None and events[0] == {"event": "capture", "capture": 7}
    assert events[-1] == {"event": "ended", "frames": 10, "lost": 0}
    if text:
        assert [event["ifname"] for event in events[1:-1]] == ["a", "b", "b", "b", "c"] * 2
    else:
        path = tmp_path / "parts.pcapng"
        path.write_bytes(b"".join(base64.b64decode(event["pcapng"]) for event in events[1:-1]))
        assert statistics(path) == {"a": (2, 0, 2), "b": (6, 0, 6), "c": (2, 0, 2)}
    stream.close()
    assert stream.read() is None


@pytest.mark.parametrize("text", [True, False])
def test_the_tail_of_a_stopped_stream_comes_in_parts(text: bool, tmp_path: Path) -> None:
    """Much more waits than is read at once. All of it is told, and no event is large."""
    switch = Switch.in_memory(["a", "b"])
    capture = switch.capture()
    stream = CaptureStream(capture, None if text else Recorder(capture), 7)
    for _ in range(20):
        switch.process("a", [ethernet(X, Y, payload=bytes(1000))] * 100)
    stream.stop()
    events: list[dict[str, Any]] = []
    reads = 0
    while (more := next_events(stream)) is not None:
        events += more
        reads += 1
    assert events[-1] == {"event": "ended", "frames": 2000, "lost": 0}
    assert reads >= 2000 * 1000 // capture_module._AT_A_TIME
    if text:
        assert len(events[1:-1]) == 2000
    else:
        parts = [base64.b64decode(event["pcapng"]) for event in events[1:-1]]
        assert max(map(len, parts)) < 2 * capture_module._AT_A_TIME
        path = tmp_path / "parts.pcapng"
        path.write_bytes(b"".join(parts))
        assert statistics(path) == {"a": (2000, 0, 2000), "b": (0, 0, 0)}


def test_a_comment_that_is_too_long_says_that_it_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "long.pcapng"
    path.write_bytes(pcapng.section(["é" * 40_000, "short"]))
    long, short = read_blocks(path)[0].options.get_all("opt_comment")
    assert (long[:100], long[-7:], short) == ("é" * 100, "é (cut)", "short")
    assert 65_530 <= len(long.encode()) <= 65_535


def test_captures_by_the_control_socket_are_few() -> None:
    switch = Switch.in_memory(["a", "b"])
    captures = CaptureVerbs(switch.watch, switch.about)
    streams = [captures.capture(text=True) for _ in range(8)]
    with pytest.raises(ConfigError, match="8 captures run by the control socket, which is the most: end one of them"):
        captures.capture()
    assert captures.stop(1) == [{"capture": 1}]
    with pytest.raises(ConfigError, match="8 captures"):
        captures.capture()  # what the first one has yet to tell is in memory
    assert streams[0].read() == [{"event": "capture", "capture": 1}, {"event": "ended", "frames": 0, "lost": 0}]
    captures.capture().close()
    streams[1].close()
    del streams[2]
    for _ in range(3):
        streams.append(captures.capture())
    for stream in streams:
        stream.close()
