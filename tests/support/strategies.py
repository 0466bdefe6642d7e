"""Random frames and random histories: small address pools, so that hits, moves and collisions really happen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from frames import GROUP, TEST_ETHERTYPE, ethernet, tag
from hypothesis import strategies as st
from model import DEFAULT_FLAGS

STATIONS = [0x02_00_00_00_00_00 + n for n in range(1, 4)] + [0x00_00_00_00_00_01, 0xFE_FF_FF_FF_FF_FF]
GROUPS = [GROUP, 0x33_33_00_00_00_01, 0x01_00_5E_00_00_01]
LINK_LOCAL = [0x01_80_C2_00_00_00 | n for n in (0, 2, 3, 0xE, 0xF, 0x10)]  # the last one is just outside
VIDS = [0, 1, 5, 4094]


def weighted(*choices: tuple[int, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """One of several strategies, as often as its weight says (one_of() takes the same one twice for one)."""
    wheel = [strategy for weight, strategy in choices for _ in range(weight)]
    return st.integers(0, len(wheel) - 1).flatmap(wheel.__getitem__)


stations = st.sampled_from(STATIONS)
vids = st.sampled_from(VIDS)
tags = st.builds(
    lambda vid, tpid, priority: tag(vid, tpid=tpid, priority=priority),
    vids | st.just(4095),
    st.sampled_from([0x8100, 0x88A8]),
    st.integers(0, 7),
)
good_frames = st.builds(
    lambda destination, source, stack, ethertype, payload: ethernet(
        destination, source, b"".join(stack), ethertype=ethertype, payload=payload
    ),
    weighted((3, stations), (2, st.sampled_from(GROUPS)), (1, st.sampled_from(LINK_LOCAL))),
    weighted((15, stations), (1, st.sampled_from([0, *GROUPS]))),
    weighted((4, st.just([])), (1, st.lists(tags, max_size=2))),
    weighted((9, st.just(TEST_ETHERTYPE)), (1, st.sampled_from([0x0000, 0x05DC, 0x8100, 0x88A8, 0x9100, 0xFFFF]))),
    st.binary(max_size=6),
)
cut_frames = st.builds(lambda frame, length: frame[:length], good_frames, st.integers(0, 20))
# Few flags off at a time, or nothing would go through.
flag_sets = st.builds(
    lambda off, on: frozenset(set(DEFAULT_FLAGS) - off | on),
    st.sets(st.sampled_from(DEFAULT_FLAGS), max_size=2),
    st.sets(st.sampled_from(["isolated", "hairpin", "locked"]), max_size=2),
)
storm_kinds = st.sampled_from(["broadcast", "multicast", "unicast"])
# Around a bucket's edges: fractions, less than one at once, intervals that are no whole ns, and more than comes.
rates = st.sampled_from([0.5, 1, 3, 4, 7.3, 8, 32, 1e6, 1e9])
frames = weighted((10, good_frames), (1, cut_frames), (1, st.binary(max_size=24)))


@dataclass(frozen=True)
class Process:
    ingress: int
    frames: list[bytes]


@dataclass(frozen=True)
class Advance:
    """Time goes by, in eighths of a second: exact as float and as milliseconds."""

    eighths: int


@dataclass(frozen=True)
class Tick:
    pass


@dataclass(frozen=True)
class Add:
    mac: int
    port: int
    vid: int


@dataclass(frozen=True)
class Remove:
    mac: int
    vid: int


@dataclass(frozen=True)
class Flush:
    port: int | None


@dataclass(frozen=True)
class SetFlags:
    port: int
    flags: frozenset[str]


@dataclass(frozen=True)
class SetStormControl:
    port: int
    rates: dict[str, float]  # frames a second by kind; a kind that is not there has no limit


@dataclass(frozen=True)
class SetLink:
    port: int
    link: str


Step = Process | Advance | Tick | Add | Remove | Flush | SetFlags | SetStormControl | SetLink


@dataclass(frozen=True)
class History:
    """A switch and what happens to it."""

    ports: int
    ageing: float | None
    capacity: int
    filter_link_local: bool
    steps: list[Step]
    damping: float = 0.0


@st.composite
def histories(draw: st.DrawFn) -> History:
    ports = draw(st.integers(2, 5))
    port = st.integers(0, ports - 1)
    flags = st.builds(SetFlags, port, flag_sets)
    storm = st.builds(SetStormControl, port, st.dictionaries(storm_kinds, rates, max_size=3))
    step = weighted(
        (12, st.builds(Process, port, st.lists(frames, max_size=12))),
        (3, st.builds(Advance, st.integers(0, 20))),
        (1, st.builds(Tick)),
        (2, st.builds(Add, stations, port, vids)),
        (1, st.builds(Remove, stations, vids)),
        (1, st.builds(Flush, port | st.none())),
        (2, flags),
        (1, storm),
        (1, st.builds(SetLink, port, st.sampled_from(["up", "up", "down", "blocked"]))),
    )
    # What nearly all frames live under: nothing, each port its own flags, or (seldom by chance) two isolated ones.
    isolated = [SetFlags(n, frozenset((*DEFAULT_FLAGS, "isolated"))) for n in (0, 1)]
    rules = draw(st.just([]) | st.lists(flags | storm, min_size=2, max_size=6) | st.just(isolated))
    return History(
        ports=ports,
        ageing=draw(st.sampled_from([300.0, None, 1.0, 0.125, 0])),
        # 1: the FDB is full and nobody may evict, as the model says; which entry is evicted, test_fdb.py covers
        capacity=draw(st.sampled_from([1024, 1024, 1])),
        filter_link_local=draw(st.booleans()),
        steps=rules + draw(st.lists(step, min_size=1, max_size=30)),
        damping=draw(st.sampled_from([0.0, 0.0, 0.125, 1.0, 60.0])),
    )
