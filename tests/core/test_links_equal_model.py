"""The core's links do what the model's do: frame for frame, byte for byte, time for time; and the accounts add up."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from effort import examples
from frames import GROUP, ethernet
from hypothesis import given, settings
from hypothesis import strategies as st
from link_model import Link, Stream
from linked import (
    MS,
    UNIFORM,
    LinkedHistory,
    LinkedPair,
    SetLinks,
    Wait,
    gso_stories,
    linked_histories,
    live_gso,
    some_stages,
    times,
)
from segmentation import CHECK_OFFSET, TCP, UDP, Packet, complete
from strategies import HOSTS, Process

from fastbridge import Arrival, ConfigError, Egress, MemorySwitch
from fastbridge.core.links import Links
from fastbridge.links.stages import Stages


def live(history: LinkedHistory) -> LinkedPair:
    both = LinkedPair(history.ports)
    for step in history.steps:
        both.live(step)
    return both


@given(linked_histories())
@settings(max_examples=examples(300))
def test_any_history(history: LinkedHistory) -> None:
    live(history)


@given(linked_histories(policed=True))
@settings(max_examples=examples(200))
def test_any_policed_history(history: LinkedHistory) -> None:
    live(history)


@given(gso_stories)
@settings(max_examples=examples(200))
def test_gso_frames_pending_checksums_and_tunnels(story: list[Any]) -> None:
    live_gso(story)


@pytest.mark.parametrize(("protocol", "kept"), [(TCP, 0), (UDP, 0xFFFF)])
def test_a_pending_checksum_may_come_to_zero(protocol: int, kept: int) -> None:
    """Once in 65,536 frames. A bit of the frame is flipped, so the core completes the checksum."""
    packet = Packet(protocol=protocol, destination=HOSTS[1], source=HOSTS[0])
    at = 14 + 20 + CHECK_OFFSET[protocol]
    payloads = (n.to_bytes(2, "big") for n in range(1 << 16))
    pending = (packet.but(payload=payload, pending=True).message() for payload in payloads)
    message = next(each for each in pending if complete(each)[at : at + 2] == kept.to_bytes(2, "big"))
    live_gso([{FROM_POD: Stages(corrupt=1.0)}, [(message, complete(message))], 1_000 * MS])


def test_a_frame_without_bytes_waits_for_a_trace_as_any_other() -> None:
    steps = ((0, 1_000, -1), (4_769, 0, -1), (412_817, 1_000_000, -1))
    live(
        LinkedHistory(
            2,
            [
                SetLinks({FROM_POD: Stages(steps=steps, period_ns=11_889_153)}, True),
                Process(0, [ethernet(B, A, payload=b"one"), b"", ethernet(B, A, payload=b"two")]),
                Wait(10_000 * MS),
            ],
        )
    )


A, B = 0x02_00_00_00_00_01, 0x02_00_00_00_00_02
TO_POD, FROM_POD, PAIR = ("to_pod", None, 1), ("from_pod", 0, None), ("pair", 0, 1)


class Wire:
    """Numbered frames from port 0 to port 1."""

    def __init__(self) -> None:
        self.switch = MemorySwitch(3, clock=None)
        self.switch.fdb.add(B, "1")
        self.links = Links(self.switch._dataplane)
        self.sent, self.got = 0, list[tuple[float, bytes]]()

    def set(self, links: dict[Any, Stages | None], *, restart: bool = True) -> None:
        self.links.set(links, restart=restart, now=self.switch._link_time())

    def send(self, count: int = 1) -> None:
        now = self.switch._link_time() / 1e9
        for _ in range(count):
            self.sent += 1
            frame = ethernet(B, A, payload=self.sent.to_bytes(4, "big"))
            self.got += [(now, egress.frame) for egress in self.switch.process(0, [frame])]

    def wait(self, ns: int) -> None:
        self.got += [(time, frame) for time, _, frame in self.switch.advance(ns / 1e9)]

    @property
    def numbers(self) -> list[int]:
        return [int.from_bytes(frame[14:18], "big") for _, frame in self.got]


# -- the random numbers --------------------------------------------------------------------------------


def test_the_random_numbers_are_splitmix64() -> None:
    """The first numbers of the seed 0 stand in many books; stream 1 begins one step later."""
    stream = Stream(0, 0)
    stream.state = 0
    assert [stream.draw() for _ in range(3)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert Stream(0, 1).state == 0xE220A8397B1DCDAF


@given(some_stages(), some_stages(), st.lists(times, max_size=8))
@settings(max_examples=examples(50))
def test_the_same_seed_gives_the_same_bytes_at_the_same_times(to: Stages, back: Stages, story: list[int]) -> None:
    runs = []
    for _ in range(2):
        wire = Wire()
        wire.set({TO_POD: to, FROM_POD: back})
        for ns in [*story, 10_000 * MS]:
            wire.send(5)
            wire.wait(ns)
        runs.append(wire.got)
    assert runs[0] == runs[1]


def test_another_seed_gives_others() -> None:
    got = []
    for seed in 1, 2:
        wire = Wire()
        wire.set({TO_POD: Stages(seed=seed, loss=0.5)})
        wire.send(64)
        got.append(wire.numbers)
    assert got[0] != got[1]


def test_a_link_that_is_set_again_begins_anew_and_one_that_is_changed_goes_on() -> None:
    wire, stages = Wire(), Stages(seed=1, loss=0.5)
    wire.set({TO_POD: stages})
    wire.send(64)
    first = wire.numbers
    wire.set({TO_POD: stages})
    wire.send(64)
    assert [number - 64 for number in wire.numbers[len(first) :]] == first
    wire.set({TO_POD: stages}, restart=False)
    before = len(wire.numbers)
    wire.send(64)
    assert [number - 128 for number in wire.numbers[before:]] != first


# -- zero means zero, and order is kept ----------------------------------------------------------------


@given(some_stages())
@settings(max_examples=examples(50))
def test_zero_means_zero(before: Stages) -> None:
    wire = Wire()
    wire.set({TO_POD: before, FROM_POD: before})
    wire.send(9)
    wire.set({TO_POD: Stages(), FROM_POD: None})
    wire.wait(10**15)
    wire.got.clear()
    now, numbers = wire.switch._link_time() / 1e9, list(range(wire.sent + 1, wire.sent + 10))
    wire.send(9)
    assert wire.numbers == numbers
    assert {time for time, _ in wire.got} == {now}


@pytest.mark.parametrize("rate", [0, 10_000_000])
def test_jitter_keeps_the_order_unless_it_is_asked_not_to(rate: int) -> None:
    for keeps_order in True, False:
        wire = Wire()
        wire.set(
            {TO_POD: Stages(delay_ns=20 * MS, jitter_ns=20 * MS, table=UNIFORM, keeps_order=keeps_order, rate=rate)}
        )
        for _ in range(200):
            wire.send()
            wire.wait(MS // 100)
        wire.wait(1000 * MS)
        assert sorted(wire.numbers) == list(range(1, 201))
        assert (wire.numbers == sorted(wire.numbers)) == keeps_order


delays = st.builds(
    lambda delay, jitter, rate: Stages(delay_ns=delay, jitter_ns=jitter, table=UNIFORM if jitter else (), rate=rate),
    times,
    times,
    st.sampled_from([0, 0, 100_000, 10_000_000]),
)
changes = st.dictionaries(st.sampled_from([TO_POD, FROM_POD, PAIR]), delays | st.none(), min_size=1)


@given(st.lists(st.tuples(changes, st.booleans(), times), min_size=1, max_size=8))
@settings(max_examples=examples(100))
def test_no_frame_is_lost_or_overtakes_another_when_a_link_changes(story: list[tuple[Any, bool, int]]) -> None:
    """Not even when a pair takes the place of its port's link, or gives it back."""
    wire = Wire()
    for links, restart, ns in story:
        wire.send(3)
        wire.set(links, restart=restart)
        wire.send(3)
        wire.wait(ns)
        if ns % 2:
            wire.links.tidy()
    wire.wait(10**13)
    assert wire.numbers == list(range(1, wire.sent + 1))
    assert all(before <= after for (before, _), (after, _) in pairwise(wire.got))


def test_a_pair_that_is_taken_off_gives_its_frames_back_to_the_port_at_once() -> None:
    wire = Wire()
    wire.set({TO_POD: Stages(delay_ns=20 * MS), PAIR: Stages(cut=True)})
    wire.send()
    wire.set({PAIR: None})
    wire.send()
    wire.wait(100 * MS)
    assert [(time, frame[14:18]) for time, frame in wire.got] == [(0.02, b"\0\0\0\2")]


# -- rates that change ---------------------------------------------------------------------------------


def test_steps_that_serve_less_than_a_bit_add_up() -> None:
    """A bit takes a second; a period of 3 ns has a step of 1 ns at this rate, and is dark else."""
    wire = Wire()
    wire.set({TO_POD: Stages(steps=((0, 1, -1), (1, 0, -1)), period_ns=3)})
    wire.send()
    bits = 8 * len(ethernet(B, A, payload=bytes(4)))
    wire.wait(10**15)
    assert wire.got[0][0] == pytest.approx(3 * bits, abs=1e-8)


@given(
    st.integers(1, 1000),
    st.lists(st.tuples(st.integers(1, 50), st.sampled_from([0, 7, 1000, 8_000])), min_size=1, max_size=5),
    st.booleans(),
)
def test_the_model_serves_whole_periods_as_it_would_one_by_one(bits: int, parts: list[Any], late: bool) -> None:
    """Ticks of a ms, in which so many bits at so many a second leave."""
    parts = [*parts, (1, 500)]
    starts, at = [], 0
    for length, rate in parts:
        starts.append((at * MS, rate, -1))
        at += length
    link = Link(None)
    stages = Stages(steps=tuple(starts), period_ns=at * MS)
    rates = [rate for length, rate in parts for _ in range(length)]
    start, left = 3 if late else 0, bits * 1000
    tick = start
    while left > rates[tick % at]:
        left -= rates[tick % at]
        tick += 1
    done = tick * MS + (left * MS + rates[tick % at] // 2) // rates[tick % at]
    assert link.serve(stages, start * MS, bits) == done


# -- the accounts, and time ----------------------------------------------------------------------------


def test_the_pool_has_an_end() -> None:
    """What has no room is dropped as by a full queue. The pool is empty when all has arrived."""
    wire = Wire()
    wire.set({TO_POD: Stages(delay_ns=1000 * MS)})
    frame, count = ethernet(B, A, payload=bytes(60_000)), 5_000
    wire.switch.process(0, [frame] * count)
    port = wire.switch.counters().ports["1"]
    assert 0 < port.tx_dropped["link_queue"] < count
    assert port.tx_in_flight + port.tx_dropped["link_queue"] == count
    assert wire.links.memory[0] <= 256 << 20
    assert len(wire.switch.advance(1)) == port.tx_in_flight
    assert wire.links.memory[0] == 0


def test_a_flood_takes_each_ports_link() -> None:
    both = LinkedPair(3)
    both.live(SetLinks({TO_POD: Stages(delay_ns=5 * MS), ("to_pod", None, 2): Stages(delay_ns=MS)}, True))
    both.live(Process(0, [ethernet(GROUP, A)]))
    for _ in range(3):
        both.live(Wait(3 * MS))


def test_time_is_told_with_each_arrival() -> None:
    switch = MemorySwitch(2, clock=None)
    assert switch.next_due is None
    switch.set_link(1, "to_pod.delay=20ms")
    frame = ethernet(GROUP, A)
    assert switch.process(0, [frame]) == []
    assert switch.next_due == 0.02
    assert switch.advance(0.019) == []
    assert switch.next_due == 0.001
    assert switch.advance(1) == [Arrival(0.02, 1, frame)]
    switch.set_link(1, None)
    assert switch.process(0, [frame]) == [Egress(1, frame)]
    assert switch.advance(0) == []


def test_a_clock_of_ones_own_delivers_what_is_due_by_then() -> None:
    now = 100.0
    switch = MemorySwitch(2, clock=lambda: now)
    switch.set_link(1, "to_pod.delay=20ms")
    one, other = ethernet(GROUP, A, payload=b"one"), ethernet(GROUP, A, payload=b"other")
    switch.process(0, [one])
    now += 0.5
    assert switch.process(0, [other]) == [Egress(1, one)]
    assert switch.advance(0.5) == [Arrival(0.52, 1, other)]


@pytest.mark.parametrize("seconds", [-0.1, float("nan"), float("inf")])
def test_time_does_not_go_back(seconds: float) -> None:
    with pytest.raises(ConfigError, match=f"time passes by 0 seconds or more, not by {seconds}"):
        MemorySwitch(2, clock=None).advance(seconds)
