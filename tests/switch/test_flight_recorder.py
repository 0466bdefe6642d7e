"""The flight recorder: the last frames, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest
from accounts import unsent
from capture_files import statistics, tshark
from fast import know_each_other
from frames import GROUP, ethernet
from hypothesis import given
from hypothesis import strategies as st
from live import eventually, stage, wires

from fastbridge import ConfigError, Switch
from fastbridge.switch import capture as capture_module

X, Y = 0x02_00_00_00_00_01, 0x02_00_00_00_00_02


@given(
    sizes=st.lists(st.integers(0, 900), max_size=60),
    room=st.sampled_from([2048, 2056, 4096, 1 << 22]),
    limit=st.sampled_from([1, 7, 10_000]),
)
def test_it_has_the_last_frames_of_a_capture(sizes: list[int], room: int, limit: int) -> None:
    switch = Switch.in_memory(["a", "b"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(capture_module, "_ROOM_OF_LAST", room)
        recorder = switch.flight_recorder(limit)
    with switch.capture() as capture:
        for number, size in enumerate(sizes):
            switch.process("a", [ethernet(GROUP, X, payload=b"%d " % number + bytes(size))])
        seen = capture.read()
    told = [event._replace(time_ns=0) for event in recorder.events]
    assert told == [event._replace(time_ns=0) for event in seen][len(seen) - len(told) :]
    assert recorder.seen == len(seen) and len(told) <= limit
    # A record has some 70 bytes beside the frame, and the ring loses less than a record's size at its end.
    fewest = next(
        (n for n in range(len(sizes)) if sum(size + 100 for size in sizes[-n - 1 :]) + 1000 > room), len(sizes)
    )
    assert len(told) >= min(limit, fewest)


def test_the_file_says_how_many_frames_there_were(tmp_path: Path) -> None:
    switch, path = Switch.in_memory(["a", "b"]), tmp_path / "last.pcapng"
    recorder = switch.flight_recorder(limit=2)
    switch.process("a", [ethernet(GROUP, X)] * 3)
    switch.process("b", [ethernet(X, 0)])
    path.write_bytes(recorder.pcapng(["who asked"]))
    switch.process("a", [ethernet(GROUP, X)])
    assert [(event.ingress, event.fate) for event in recorder.events] == [
        ("a", "flooded to b"),
        ("b", "dropped (bad_source)"),
    ]
    assert tshark(path, "frame.interface_name", "frame.comment") == [
        ("a", "flooded → b"),
        ("b", "dropped: bad_source"),
    ]
    assert b"who asked" in path.read_bytes() and b"the last 2 of 4 frames" in path.read_bytes()
    assert statistics(path) == {"a": (1, 0, 1), "b": (1, 0, 1)}


def test_a_limit_out_of_range_is_one_line() -> None:
    switch = Switch.in_memory(2)
    for limit in (0, (1 << 20) + 1):
        with pytest.raises(ConfigError, match=f"keeps 1 … 1048576 frames, not {limit}"):
            switch.flight_recorder(limit)


@pytest.mark.live
@pytest.mark.parametrize("workers", [1, 2])
def test_it_is_read_after_the_switch_has_stopped(workers: int) -> None:
    with stage(2, fast_path="off", workers=workers) as (lab, switch), wires(lab) as (one, two):
        recorder = switch.flight_recorder(limit=5)
        for number in range(20):
            one.send(ethernet(GROUP, one.mac, payload=b"fastbridge %d" % number))
        two.heard_before(one.mark())
        switch.stop()
    assert len(recorder.events) == min(5 * workers, len(recorder.events)) >= 5
    assert {event.action for event in recorder.events} - {"unsent"} == {"flooded"}
    with pytest.raises(ConfigError, match="was stopped"):
        switch.flight_recorder()


@pytest.mark.live
def test_the_fast_path_goes_on() -> None:
    with stage(2, fast_path="nft") as (lab, switch):

        def received() -> int:
            total = switch.counters().total
            return total.rx_frames + unsent(total)

        recorder = switch.flight_recorder()
        before = received()  # pods say some things of their own accord, also before and between
        if switch.fast_path == "off":
            pytest.skip("there is no nf_tables here")
        know_each_other(lab, switch)
        assert lab["pod1"].ping("pod2", count=10, interval=0.01, timeout=60)
        eventually(lambda: switch.counters().total.fast >= 20, "it goes on")  # one reading may be some frames short
        assert received() - before <= recorder.seen <= received()
