"""Slow and fast path together say what the model says, frame for frame, on real kernels."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest
from fast import HANDS, need, pairs
from frames import GROUP, TEST_ETHERTYPE, ethernet, tag
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live import Wire, eventually, wires
from model import DEFAULT_FLAGS, FLAGS, Model
from pair import core_fdb, model_fdb, nonzero
from strategies import Add, Flush, Process, Remove, SetFlags, Step, weighted

from fastbridge import Lab, Switch, Topology
from fastbridge.switch.fast_path.hand import Pair

pytestmark = pytest.mark.live

HOME = {0x02_00_00_00_01_00 + n: n for n in range(3)}  # stations, and where they mostly are
UNKNOWN = 0x02_00_00_00_01_FF

port, station = st.integers(0, 2), st.sampled_from(list(HOME))
flags = st.builds(  # those that let the marks, broadcasts, pass
    lambda off, on: frozenset(set(DEFAULT_FLAGS) - off | on),
    st.sets(st.sampled_from(["learning", "unicast_flood"]), max_size=1),
    st.sets(st.just("hairpin")),
)
tags = weighted((8, st.just(b"")), *((1, st.just(made)) for made in (tag(5), tag(5, tpid=0x88A8), tag(0))))
ethertypes = weighted((12, st.just(TEST_ETHERTYPE)), (1, st.sampled_from([0x0800, 0x86DD, 0x0806, 0x0000])))
destinations = weighted((12, station), (1, st.just(UNKNOWN)), (1, st.just(GROUP)))
# Between steps, in seconds: the head promotes what the core named within some milliseconds; what was revoked is named
# again after 128.
pauses = weighted((20, st.just(0)), (20, st.just(0.002)), (1, st.just(0.14)))


@st.composite
def talks(draw: st.DrawFn) -> Process:
    """What a station says, some frames at a time, mostly where it was before."""
    source = draw(station)
    ingress = draw(weighted((12, st.just(HOME[source])), (1, port)))
    said = draw(st.lists(st.builds(ethernet, destinations, st.just(source), tags, ethertype=ethertypes), max_size=4))
    return Process(ingress, said)


steps = weighted(
    (40, talks()),
    (1, st.builds(Add, station, port, st.just(0))),
    (1, st.builds(Remove, station, st.just(0))),
    (1, st.builds(Flush, port | st.none())),
    (1, st.builds(SetFlags, port, flags)),
)


class Both:
    """A switch with a fast path, and the model, which knows none."""

    numbers = itertools.count()

    def __init__(self, switch: Switch, ends: list[Wire]) -> None:
        self.switch, self.ends = switch, ends
        self.model = Model(3, ageing=None, capacity=65_536, filter_link_local=False, clock=lambda: 0.0)
        self.offset = next(self.numbers) << 16  # each example has stations of its own
        for number in range(3):
            self.live(SetFlags(number, frozenset(DEFAULT_FLAGS)))
        for entry in list(switch.fdb):
            switch.fdb.remove(entry.mac, vlan=entry.vlan)
        self.before = switch.counters()
        for mac, home in HOME.items():
            self.live(Process(home, [ethernet(GROUP, mac)]))

    def live(self, step: Step) -> None:
        match step:
            case Process(ingress, frames):
                self.talk(ingress, [self.own(frame) for frame in frames])
            case Add(mac, at, vid):
                self.switch.fdb.add(mac + self.offset, at, vlan=vid)
                self.model.add(mac + self.offset, at, vid)
            case Remove(mac, vid):
                known = self.model.remove(mac + self.offset, vid)
                assert self.switch.fdb.remove(mac + self.offset, vlan=vid) == known
            case Flush(at):
                self.switch.fdb.flush(at)
                self.model.flush(at)
            case SetFlags(at, chosen):
                self.switch.set_flags(at, **{flag: flag in chosen for flag in FLAGS})
                self.model.ports[at].flags = set(chosen)

    def own(self, frame: bytes) -> bytes:
        """Between this example's stations, and like no other."""
        macs = [int.from_bytes(frame[at : at + 6], "big") for at in (0, 6)]
        named = [(mac if mac == GROUP else mac + self.offset).to_bytes(6, "big") for mac in macs]
        return b"".join(named) + frame[12:] + b" %d" % next(self.numbers)

    def talk(self, ingress: int, frames: list[bytes]) -> None:
        """Frames are heard where the model says; those of a pair in order, unless it was promoted just now."""
        expected = self.model.process(ingress, frames)
        mark = self.ends[ingress].send_in_order(frames)
        self.model.process(ingress, [mark])
        heard = {
            at: end.heard_before(mark)
            for at, end in enumerate(self.ends)
            if at != ingress or "hairpin" in self.model.ports[at].flags
        }
        # At its promotion a pair may be overtaken, also at one that comes after a revocation among these frames.
        promoted = {(p.destination, p.source, p.ethertype) for p in pairs(self.switch)}
        for at, got in heard.items():
            wanted = [frame for to, frame in expected if to == at]
            assert sorted(got) == sorted(wanted)
            for header in {frame[:14] for frame in wanted}:
                if split(header) not in promoted:
                    assert [f for f in got if f[:14] == header] == [f for f in wanted if f[:14] == header]
        eventually(lambda: not any(self.stale()), "the kernel's word that a moved station's pairs are revoked")

    def stale(self) -> Iterator[Pair]:
        """What is promoted though the FDB does not say it."""
        for pair, egress in pairs(self.switch).items():
            for mac, at in ((pair.source, pair.ingress), (pair.destination, egress)):
                entry = self.model.fdb.get((0, mac))
                if entry is None or entry.port != at:
                    yield pair

    def compare(self) -> None:
        """Every frame was learned from, and counted, once."""
        assert {key: entry[0] for key, entry in core_fdb(self.switch).items()} == {
            key: f"pod{int(entry[0]) + 1}" for key, entry in model_fdb(self.model).items()
        }
        after = self.switch.counters()
        assert after.moved - self.before.moved == self.model.counts["moved"]
        assert after.learned - self.before.learned == self.model.counts["learned"]
        for model, (name, port) in zip(self.model.ports, after.ports.items(), strict=True):
            began = self.before.ports[name]
            fast = port.fast - began.fast
            assert port.rx_frames - began.rx_frames + fast == model.counts["rx_frames"]
            assert port.forwarded - began.forwarded + fast == model.counts["forwarded"]
            assert port.flooded - began.flooded == model.counts["flooded"]
            assert nonzero({why: n - began.dropped[why] for why, n in port.dropped.items()}) == model.dropped
            assert port.rx_missed == 0 and not nonzero(port.tx_dropped)


def split(header: bytes) -> tuple[int, int, int]:
    return int.from_bytes(header[:6], "big"), int.from_bytes(header[6:12], "big"), int.from_bytes(header[12:], "big")


@HANDS
@pytest.mark.parametrize("examples", [pytest.param(5, id="some"), pytest.param(60, id="many", marks=pytest.mark.slow)])
def test_any_conversation(hand: str, examples: int) -> None:
    need(hand)
    with (
        Lab(Topology.of(3, ipv6=None)) as lab,
        Switch(lab.ports, fast_path=hand, ageing=None, loop_detection=False) as switch,
        wires(lab) as ends,
    ):

        @given(st.lists(st.tuples(steps, pauses), min_size=30, max_size=80))
        @settings(max_examples=examples, suppress_health_check=list(HealthCheck), database=None)
        def live(history: list[tuple[Step, float]]) -> None:
            both = Both(switch, ends)
            for step, pause in history:
                both.live(step)
                time.sleep(pause)
            both.compare()

        live()
        assert switch.counters().total.fast > 0
