"""The fast path's head, with a hand in memory: what core and hand forward together is what the model says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pair as plain
import pytest
from effort import examples
from fake_hand import FakeHand
from frames import GROUP, TEST_ETHERTYPE, ethernet, tag
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live import eventually
from model import DEFAULT_FLAGS
from strategies import (
    HOSTS,
    IPV4,
    IPV6,
    Add,
    AddNeighbour,
    Advance,
    Flush,
    History,
    Process,
    Remove,
    RemoveNeighbour,
    SetFlags,
    SetLink,
    SetPolicy,
    Step,
    Sweep,
    Tick,
    arp,
    flag_sets,
    guarded_histories,
    histories,
    ip_packet,
    nd,
    policies,
    weighted,
)

from fastbridge.policy.builtin import parse_policy
from fastbridge.switch.fast_path.hand import NoInterfaceError
from fastbridge.switch.fast_path.head import FastPath

A, B, C = 0x02_00_00_00_00_01, 0x02_00_00_00_00_02, 0x02_00_00_00_00_03


class WithFastPath(plain.Pair):
    """A core with a fast path, and a model that knows none."""

    def begin(self, lagging: bool) -> None:
        self.lagging, self.telling = lagging, False
        self.hand = FakeHand(self.clock)
        self.fast = FastPath(self.core._dataplane, self.core._entries, self.hand, self.core._now_ms, self.core._journal)
        for index in range(len(self.core.ports)):
            self.fast.set_port(index, 1500)
        self.core._policing.bindings.on_change = self.fast.follow_bindings
        self.core.fdb.on_change = self.fast.check
        plainly = self.core.process

        def process(ingress: int, frames: Sequence[bytes]) -> list[Any]:
            out = []
            for frame in frames:
                self.fast.read()
                egress = self.hand.forward(ingress, frame)
                out += plainly(ingress, [frame]) if egress is None else [plain_egress(egress, frame)]
                self.fast.hear()  # of a pair that is revoked it is not known any more
                self.core._policing.bind()  # as its thread does
                if not self.lagging:
                    self.fast.read()
            return out

        self.core.process = process  # type: ignore[method-assign]

    def compare(self) -> None:
        """What is promoted is what the FDB says, after every step; ages and counts are those of all frames."""
        if self.telling:
            return
        self.fast.hear()
        assert self.hand.pairs == self.fast.pairs
        for pair, egress in {} if self.lagging else self.fast.pairs.items():
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


def both_of(history: History, *, lagging: bool = False) -> WithFastPath:
    """lagging: the head reads what the core has named when the next frame comes, whatever has happened meanwhile."""
    made = plain.pair(history, plain.whole)
    both = WithFastPath(made.core, made.model, made.clock, made.split)
    both.begin(lagging)
    return both


def hooked(both: WithFastPath, step: Step) -> None:
    """A step, and what a switch tells its fast path of it."""
    if isinstance(step, Process):  # what is punted is decided frame by frame here
        for frame in step.frames:
            both.live(Process(step.ingress, [frame]))
        return
    both.telling = True
    both.live(step)
    match step:
        case Add(mac, _, _) | Remove(mac, _):
            both.fast.revoke_station(mac)
        case SetFlags(port, _) | SetLink(port, _):
            both.fast.revoke_port(port)
        case SetPolicy(port, policy):
            both.fast.set_policy(port, plain.Watch() if policy == "watch" else parse_policy(policy))
        case Advance() | Tick():
            both.fast.check()
    both.telling = False
    both.compare()


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


@given(conversations(), st.booleans())
@settings(max_examples=examples(120), suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_any_conversation(history: History, lagging: bool) -> None:
    both = both_of(history, lagging=lagging)
    for step in history.steps:
        hooked(both, step)


@given(histories())
@settings(max_examples=examples(60))
def test_any_history(history: History) -> None:
    both = both_of(replace(history, ageing=300.0, damping=0.0))
    for step in history.steps:
        hooked(both, step)


@st.composite
def guarded_conversations(draw: st.DrawFn) -> History:
    """Likewise with IP behind guards: mostly from one's own addresses, at times from another's, and bindings change."""
    port, number = st.integers(0, 2), st.integers(0, 2)
    address = st.sampled_from([*IPV4, *IPV6])

    def said(home: int, who: int, version: int, whose: int, to: int, what: int) -> Process:
        source = (IPV4 if version == 4 else IPV6)[whose]
        ethertype, packet = (0x0800 if version == 4 else 0x86DD), ip_packet(source, bytes(8))
        if what == 0 and version == 4:
            ethertype, packet = 0x0806, arp(1, HOSTS[who], source, source)
        elif what == 1 and version == 6:
            packet = nd(136, source, source, HOSTS[who], 0x20, False)
        elif what == 2 and version == 6:
            packet = packet[:6] + b"\x3c" + packet[7:]  # behind destination options
        elif what == 3:
            ethertype = TEST_ETHERTYPE
        return Process(home, [ethernet(HOSTS[to], HOSTS[who], ethertype=ethertype, payload=packet)])

    honest = st.builds(
        lambda who, version, to, what: said(who, who, version, who, to, what),
        number,
        st.sampled_from([4, 6]),
        number,
        st.integers(0, 11),
    )
    step = weighted(
        (30, honest),
        (5, st.builds(said, port, number, st.sampled_from([4, 6]), number, number, st.integers(0, 5))),
        (1, st.builds(Advance, st.integers(0, 8))),
        (1, st.builds(Sweep)),
        (2, st.builds(SetPolicy, port, policies)),
        (2, st.builds(AddNeighbour, address, st.sampled_from(HOSTS), port, st.just(0))),
        (1, st.builds(RemoveNeighbour, address, st.just(0))),
        (1, st.builds(SetLink, port, st.sampled_from(["up", "up", "down", "blocked"]))),
    )
    first = draw(st.sampled_from(["guard", "guard", "guard=strict", "guard=router", "watch"]))
    owners: list[Step] = [AddNeighbour(ips[n], HOSTS[n], n, 0) for n in range(3) for ips in (IPV4, IPV6)]
    known = [said(n, n, 4, n, (n + 1) % 3, 9) for n in range(3)]
    begin = [*(SetPolicy(n, first) for n in range(3)), *(owners if draw(st.booleans()) else []), *known]
    steps = begin + draw(st.lists(step, min_size=20, max_size=60))
    return History(3, 300.0, 1024, False, steps, neighbour_ageing=draw(st.sampled_from([60.0, 1.0])))


@given(guarded_conversations(), st.booleans())
@settings(max_examples=examples(100), suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_any_guarded_conversation(history: History, lagging: bool) -> None:
    both = both_of(history, lagging=lagging)
    for step in history.steps:
        hooked(both, step)


@given(guarded_histories(), st.booleans())
@settings(max_examples=examples(30), suppress_health_check=[HealthCheck.too_slow])
def test_any_guarded_history(history: History, lagging: bool) -> None:
    both = both_of(history, lagging=lagging)
    for step in history.steps:
        hooked(both, step)


def test_a_port_that_makes_up_stations_leaves_room_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastbridge.switch.fast_path.head.MOST_PAIRS", 12)
    both = both_of(History(4, 300.0, 1024, False, []))
    both.core.process(1, [ethernet(GROUP, B)])

    def pairs_of(port: int) -> int:
        return sum(pair.ingress == port for pair in both.fast.pairs)

    for port, most in ((0, 6), (2, 3), (3, 2)):
        both.core.process(port, [ethernet(B, 0x02_00_00_00_00_00 | port << 16 | n) for n in range(0x100, 0x120)])
        assert pairs_of(port) == most
    assert both.fast.refused == 3 * 32 - 11
    both.fast.revoke_port(0)
    both.core.process(2, [ethernet(B, 0x02_00_00_00_00_00 | 2 << 16 | n) for n in range(0x200, 0x220)])
    assert pairs_of(2) == 5  # of the 12, 2 are taken by another


def test_nothing_is_promoted_to_a_port_that_the_hand_has_not() -> None:
    both = both_of(History(2, 300.0, 1024, False, []))
    both.fast.remove_port(1)
    talk = [(1, ethernet(GROUP, B)), *((n % 2, ethernet([B, A][n % 2], [A, B][n % 2])) for n in range(4))]
    for port, frame in talk:
        both.core.process(port, [frame])
    assert both.hand.pairs == {}


def test_a_kernel_that_refuses_leaves_all_to_the_core() -> None:
    both = both_of(History(2, 300.0, 1024, False, []))
    both.hand.refuse = 1
    for port, frame in ((1, ethernet(GROUP, B)), (0, ethernet(B, A)), (0, ethernet(B, A, payload=b"again"))):
        both.core.process(port, [frame])
    assert (both.hand.pairs, both.fast.pairs, both.fast.refused) == ({}, {}, 1)


def test_an_interface_that_has_just_gone_is_not_a_full_fast_path(caplog: pytest.LogCaptureFixture) -> None:
    both = both_of(History(2, 300.0, 1024, False, []))
    both.hand.refuse, both.hand.refusal = 1, NoInterfaceError
    for port, frame in ((1, ethernet(GROUP, B)), (0, ethernet(B, A))):
        both.core.process(port, [frame])
    assert (both.hand.pairs, both.fast.refused, caplog.messages) == ({}, 0, [])
    both.clock.now += 1  # it is named again
    both.core.process(0, [ethernet(B, A, payload=b"again")])
    assert len(both.hand.pairs) == 1


def test_what_the_kernel_does_not_clear_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastbridge.switch.fast_path.head.HEARD_SECONDS", 0.01)
    both = both_of(History(2, 300.0, 1024, False, []))
    for port, frame in ((1, ethernet(GROUP, B)), (0, ethernet(B, A))):
        both.core.process(port, [frame])
    both.hand.broken = both.hand.stuck = True
    both.fast.revoke_station(A)
    assert both.fast.failed and both.fast.pairs == {} and len(both.hand.pairs) == 1
    both.hand.stuck = False
    both.fast.start()
    try:
        eventually(lambda: both.hand.pairs == {}, "an empty kernel")
    finally:
        both.fast.stop()


def test_a_pair_that_was_never_used_gives_its_room_back(monkeypatch: pytest.MonkeyPatch) -> None:
    both = both_of(History(2, 300.0, 1024, False, []))
    for port, frame in ((1, ethernet(GROUP, B)), (0, ethernet(B, A))):
        both.core.process(port, [frame])
    both.fast.hear()
    assert len(both.hand.pairs) == 1
    monkeypatch.setattr("fastbridge.switch.fast_path.head.IDLE_SECONDS", -1.0)
    both.fast.hear()
    assert both.hand.pairs == both.fast.pairs == {}


@pytest.mark.parametrize("what", ["revoke", "look"])
def test_a_kernel_that_revokes_no_more_forwards_nothing(what: str) -> None:
    both = both_of(History(2, 300.0, 1024, False, []))
    frames = (1, ethernet(GROUP, B)), (0, ethernet(B, A))
    for port, frame in frames:
        both.core.process(port, [frame])
    assert len(both.hand.pairs) == 1
    if what == "look":
        both.fast.revoke_port(0)
    both.hand.broken = True
    if what == "look":
        both.fast.set_policy(0, parse_policy("guard"))
    else:
        both.fast.revoke_station(A)
    assert both.hand.pairs == both.fast.pairs == {}
    both.clock.now += 1
    for port, frame in frames:
        both.core.process(port, [frame])
    assert both.hand.pairs == {}


@pytest.mark.parametrize("flag", ["isolated", "locked", "learning", None])
def test_what_was_named_before_a_rule_came_is_not_promoted_after_it(flag: str | None) -> None:
    both = both_of(History(2, 300.0, 1024, False, []), lagging=True)
    flags = frozenset(set(DEFAULT_FLAGS) ^ ({flag} if flag else set()))
    said = Process(0, [ethernet(B, A)])
    for step in (Process(1, [ethernet(GROUP, B)]), said, SetFlags(0, flags), SetFlags(1, flags), said, said):
        hooked(both, step)
    assert (both.fast.promoted, both.fast.revoked) == (0 if flag else 1, 0)
