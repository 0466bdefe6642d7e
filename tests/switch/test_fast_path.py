"""The fast path's head, with a hand in memory: what core and hand forward together is what the model says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pair as plain
import pytest
from frames import GROUP, TEST_ETHERTYPE, ethernet, tag
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import (
    Add,
    Advance,
    Flush,
    History,
    Process,
    Remove,
    SetFlags,
    SetLink,
    Step,
    Tick,
    flag_sets,
    histories,
    weighted,
)

from fastbridge.switch.fast_path.hand import Pair, RefusedError
from fastbridge.switch.fast_path.head import FastPath

A, B, C = 0x02_00_00_00_00_01, 0x02_00_00_00_00_02, 0x02_00_00_00_00_03


class FakeHand:
    """A kernel in memory: forwards what is promoted, as the real hands do, by ingress and the first 14 bytes."""

    name = "fake"

    def __init__(self, clock: Any, refuse: int = 0) -> None:
        self.clock, self.refuse = clock, refuse
        self.pairs: dict[Pair, int] = {}
        self.used: dict[Pair, float] = {}
        self.forwarded: Counter[tuple[int, str]] = Counter()
        self.calls: list[str] = []

    def forward(self, ingress: int, frame: bytes) -> int | None:
        """The port a frame goes to without the core, or None."""
        if len(frame) < 14:
            return None
        destination, source = int.from_bytes(frame[:6], "big"), int.from_bytes(frame[6:12], "big")
        pair = Pair(ingress, destination, source, int.from_bytes(frame[12:14], "big"))
        egress = self.pairs.get(pair)
        if egress is not None:
            self.used[pair] = self.clock()
            self.forwarded.update({(ingress, "frames"): 1, (ingress, "bytes"): len(frame)})
            self.forwarded.update({(egress, "sent"): 1, (egress, "sent_bytes"): len(frame)})
        return egress

    def promote(self, pairs: Mapping[Pair, int]) -> None:
        self.calls.append("promote")
        if self.refuse:
            self.refuse -= 1
            raise RefusedError("no room")
        self.pairs.update(pairs)

    def revoke(self, pairs: Iterable[Pair]) -> None:
        self.calls.append("revoke")
        for pair in pairs:
            del self.pairs[pair]  # a pair is revoked once, and only if it was promoted
            self.used.pop(pair, None)

    def idle(self) -> Mapping[Pair, float]:
        return {pair: self.clock() - used for pair, used in self.used.items()}

    def clear(self) -> None:
        self.pairs.clear()

    def close(self) -> None:
        self.pairs.clear()
        self.calls.append("close")


class WithFastPath(plain.Pair):
    """A core with a fast path, and a model that knows none."""

    def begin(self) -> None:
        self.hand = FakeHand(self.clock)
        self.fast = FastPath(self.core._dataplane, self.core._entries, self.hand, self.core._now_ms)
        plainly = self.core.process

        def process(ingress: int, frames: Sequence[bytes]) -> list[Any]:
            out = []
            for frame in frames:
                egress = self.hand.forward(ingress, frame)
                out += plainly(ingress, [frame]) if egress is None else [plain_egress(egress, frame)]
                self.fast.read()
            return out

        self.core.process = process  # type: ignore[method-assign]

    def compare(self) -> None:
        """What is promoted is what the FDB says, after every step; ages and counts are those of all frames."""
        self.fast.refresh()
        for pair, egress in self.fast.pairs.items():
            assert self.hand.pairs[pair] == egress
            found = self.core.fdb.lookup(pair.destination)
            assert found is not None and found.port == self.core.ports[egress].name
        assert plain.core_fdb(self.core) == plain.model_fdb(self.model)
        counters = self.core.counters()
        kernel = self.hand.forwarded
        for index, port in enumerate(self.model.ports):
            counted = counters.ports[port.name]
            assert counted.rx_frames + kernel[index, "frames"] == port.counts["rx_frames"]
            assert counted.forwarded + kernel[index, "frames"] == port.counts["forwarded"]
            assert counted.tx_frames + kernel[index, "sent"] == port.counts["tx_frames"]
            assert counted.tx_bytes + kernel[index, "sent_bytes"] == port.counts["tx_bytes"]
            assert plain.nonzero(counted.dropped) == port.dropped


def plain_egress(port: int, frame: bytes) -> Any:
    from fastbridge import Egress

    return Egress(port, frame)


def both_of(history: History) -> WithFastPath:
    made = plain.pair(history, plain.whole)
    both = WithFastPath(made.core, made.model, made.clock, made.split)
    both.begin()
    return both


def hooked(both: WithFastPath, step: Step) -> None:
    """A step, and what a switch tells its fast path of it."""
    match step:
        case Add(mac, _, _) | Remove(mac, _):
            before = both.compare
            both.compare = lambda: None  # type: ignore[method-assign]
            both.live(step)
            both.compare = before  # type: ignore[method-assign]
            both.fast.revoke_station(mac)
            both.compare()
        case SetFlags(port, _) | SetLink(port, _):
            before = both.compare
            both.compare = lambda: None  # type: ignore[method-assign]
            both.live(step)
            both.compare = before  # type: ignore[method-assign]
            both.fast.revoke_port(port)
            both.compare()
        case _:
            both.live(step)


talk = st.builds(
    ethernet,
    st.sampled_from([A, B, C, A, B, C, GROUP]),
    st.sampled_from([A, B, C]),
    st.sampled_from([b"", b"", b"", b"", tag(5)]),
    ethertype=st.sampled_from([TEST_ETHERTYPE, TEST_ETHERTYPE, 0x0800, 0x0806, 0x05DC]),
)


@st.composite
def conversations(draw: st.DrawFn) -> History:
    """Few stations, mostly where they were, that talk to each other: what is promoted is used, and revoked."""
    port, station = st.integers(0, 2), st.sampled_from([A, B, C])
    home = {A: 0, B: 1, C: 2}
    at_home = st.tuples(station, st.lists(talk, min_size=1, max_size=4)).map(
        lambda pick: Process(home[pick[0]], [f[:6] + pick[0].to_bytes(6, "big") + f[12:] for f in pick[1]])
    )
    flags = st.builds(SetFlags, port, flag_sets)
    step = weighted(
        (20, at_home),
        (3, st.builds(Process, port, st.lists(talk, max_size=3))),
        (1, st.builds(Advance, st.integers(0, 200))),
        (1, st.builds(Tick)),
        (1, st.builds(Add, station, port, st.just(0))),
        (1, st.builds(Remove, station, st.just(0))),
        (1, st.builds(Flush, port | st.none())),
        (1, flags),
        (1, st.builds(SetLink, port, st.sampled_from(["up", "up", "down", "blocked"]))),
    )
    return History(
        3, draw(st.sampled_from([300.0, None, 4.0])), 1024, False, draw(st.lists(step, min_size=20, max_size=60))
    )


def live(history: History) -> None:
    both = both_of(history)
    for step in history.steps:
        hooked(both, step)


@given(conversations())
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_any_conversation(history: History) -> None:
    live(history)


@pytest.mark.slow
@given(conversations())
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_many_conversations(history: History) -> None:
    live(history)


@given(histories())
@settings(max_examples=100)
def test_any_history(history: History) -> None:
    live(replace(history, ageing=300.0, damping=0.0))
