"""What is said while a switch runs: never by who decides or forwards, and in moderation."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator

import arp_nd_frames as make
import pytest
from arp_nd_frames import A, B
from clock import Clock
from effort import few
from live import PATIENCE, eventually

from fastbridge import Lab, MacAddress, Switch, Topology
from fastbridge.journal import Journal
from fastbridge.outbox import Outbox

LOG = logging.getLogger("fastbridge.tests")
ROOM = 1 << 20  # characters that an outbox holds


class Reader:
    """Takes a line whenever it may."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.may = threading.Event()

    def __call__(self, line: str) -> None:
        assert self.may.wait(PATIENCE)
        self.lines.append(line)


def make_outbox(write: object) -> Outbox[str]:
    return Outbox("test", write, "{} lost".format, len)  # type: ignore[arg-type]


# The outbox.


def test_lines_are_written_in_order() -> None:
    reader = Reader()
    reader.may.set()
    box = make_outbox(reader)
    lines = [f"line {n}" for n in range(1000)]
    for line in lines:
        box.put(line)
    assert box.close(PATIENCE)
    assert reader.lines == lines


def test_a_reader_that_stops_costs_lines_but_no_time() -> None:
    reader, line = Reader(), "x" * (ROOM // 16)
    box = make_outbox(reader)
    for _ in range(116):
        box.put(line)  # would never return if it waited
    reader.may.set()
    eventually(lambda: len(reader.lines) == 17, "what fits, and the word of the loss")
    assert reader.lines == [*[line] * 16, "100 lost"]
    box.put("more")
    assert box.close(PATIENCE)
    assert reader.lines[17:] == ["more"]


def test_half_the_room_is_free_before_lines_are_taken_again() -> None:
    """So that not every other line tells of a loss."""
    steps = threading.Semaphore(0)
    lines: list[str] = []

    def write(line: str) -> None:
        assert steps.acquire(timeout=PATIENCE)
        lines.append(line)

    box, line = make_outbox(write), "x" * (ROOM // 16)
    for _ in range(17):
        box.put(line)
    for _ in range(4):
        steps.release()
    eventually(lambda: len(lines) == 4, "four lines")
    box.put(line)
    for _ in range(100):
        steps.release()
    assert box.close(PATIENCE)
    assert lines == [*[line] * 16, "2 lost"]


def test_the_last_line_is_always_taken() -> None:
    reader = Reader()
    box = make_outbox(reader)
    for _ in range(20):
        box.put("x" * (ROOM // 16))
    box.put("the end", always=True)
    reader.may.set()
    assert box.close(PATIENCE)
    assert reader.lines[16:] == ["4 lost", "the end"]


def test_one_line_is_taken_however_long_it_is() -> None:
    reader = Reader()
    reader.may.set()
    box = make_outbox(reader)
    box.put("x" * 3 * ROOM)
    assert box.close(PATIENCE)
    assert len(reader.lines) == 1


def test_a_reader_that_does_not_come_back_is_left_behind() -> None:
    reader = Reader()
    box = make_outbox(reader)
    box.put("line")
    assert not box.close(0.01)
    reader.may.set()
    assert box.close(PATIENCE)


def test_what_writing_raises_is_kept_and_the_next_line_is_written() -> None:
    lines: list[str] = []

    def write(line: str) -> None:
        if line == "bad":
            raise SystemExit("a handler ends its thread")
        lines.append(line)

    box = make_outbox(write)
    box.put("bad")
    eventually(lambda: box.error is not None, "the error")
    box.put("good")
    assert box.close(PATIENCE)
    assert isinstance(box.error, SystemExit)
    assert lines == ["1 lost", "good"]


# The journal.


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    said = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return said


def test_a_thing_is_told_once_in_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    journal = Journal(clock)
    for seconds in 0, 5, 4.9, 0.2, 9.9:
        clock.now += seconds
        journal.warn(LOG, "things", f"at {clock.now:g}", thing="one")
        journal.tick()
    assert messages(caplog) == ["at 1000", "at 1010.1"]


def test_a_kind_is_told_twenty_times_and_then_as_a_number(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    journal = Journal(clock)
    for n in range(3010):
        for _ in range(2):
            journal.warn(LOG, "things", f"thing {n}", thing=str(n))
    journal.warn(LOG, "others", "another kind", thing="0")
    assert messages(caplog) == [*(f"thing {n}" for n in range(20)), "another kind"]
    clock.now += 9.9
    journal.tick()
    assert messages(caplog) == []
    clock.now += 0.1
    journal.tick()
    journal.tick()
    assert messages(caplog) == ["and 2,990 more things in 10 s"]
    for n in range(21):
        journal.warn(LOG, "things", f"thing {n}", thing=str(n))
    clock.now += 10
    journal.warn(LOG, "things", "late", thing="late")  # without a tick
    assert messages(caplog)[20:] == ["and 1 more things in 10 s", "late"]


def test_the_rest_is_told_when_it_stops(caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(Clock())
    journal.start()
    for n in range(25):
        journal.warn(LOG, "things", f"thing {n}")
    journal.stop()
    eventually(lambda: len(caplog.records) == 21, "all lines")  # it waits for handlers, but not for ever
    assert messages(caplog)[20:] == ["and 5 more things in 10 s"]


def test_a_silent_level_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(Clock())
    with caplog.at_level(logging.ERROR, "fastbridge"):
        journal.warn(LOG, "things", "not wanted")
    assert messages(caplog) == []


@pytest.mark.parametrize("policy", few(1, ["guard", "suppress", "guard=strict"]))
def test_a_thousand_claims_are_twenty_lines(policy: str, caplog: pytest.LogCaptureFixture) -> None:
    """Conflicts, and what guard drops."""
    clock = Clock()
    switch = Switch.in_memory(3, policy=policy, clock=clock)
    addresses = [f"10.0.{n >> 8}.{n & 255}" for n in range(256, 1256)]
    if policy == "guard=strict":
        for address in addresses:
            switch.neighbours.add(address, A, 0)
    switch.process(0, [bytes(make.arp(1, A, address, address)) for address in addresses])
    claims = [bytes(make.arp(1, B, address, address)) for address in addresses]
    for _ in range(2):
        switch.process(1, claims)
    assert switch.neighbours.conflict_count >= 1000
    said = messages(caplog)
    assert len(said) == 20 and all(str(MacAddress(B)) in line for line in said)
    clock.now += 10
    switch.tick()
    assert messages(caplog) == ["and 980 more conflicts about addresses in 10 s"]


# As a library: whose handlers they are, and what they do, is the application's.


class Blocking(logging.Handler):
    """An application's, whose reader has gone to lunch."""

    def __init__(self) -> None:
        super().__init__()
        self.released, self.reached = threading.Event(), threading.Event()
        self.said: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append((record.getMessage(), threading.current_thread().name))
        self.reached.set()
        self.released.wait()


@pytest.fixture
def blocking() -> Iterator[Blocking]:
    handler = Blocking()
    logger = logging.getLogger("fastbridge")
    logger.addHandler(handler)
    yield handler
    handler.released.set()
    logger.removeHandler(handler)


@pytest.mark.live
def test_a_handler_that_blocks_stops_nothing(blocking: Blocking) -> None:
    with Lab(Topology.of(4, ipv6=None)) as lab, Switch(lab.ports, policy="guard,suppress") as switch:
        one, two, three, four = lab
        for pod in one, three:
            assert pod.ping(two, timeout=PATIENCE)
        with three.socket(17, 3, 0) as wire:
            wire.bind((three.interface, 0))
            wire.send(bytes(make.arp(1, str(three.mac), "10.0.0.2", "10.0.0.2")))
        assert blocking.reached.wait(PATIENCE)
        assert four.ping(one, timeout=PATIENCE) and four.ping(
            two, timeout=PATIENCE
        )  # by ARP, which nobody has asked before
        switch.remove_port("pod3")
        lab["pod4"].port.delete()
        eventually(lambda: [p.state for p in switch.ports if p.name == "pod4"] == ["gone"], "the lost link")
        began = time.monotonic()
        switch.stop()
        assert time.monotonic() - began < PATIENCE / 2
        ((text, thread),) = blocking.said
        assert "on pod3 claims it" in text
        assert thread != "fastbridge-policy"
        blocking.released.set()
        eventually(lambda: any("pod4" in text for text, _ in blocking.said), "what waited")
