"""A switch in virtual time and the model, both with links, that live the same and are compared after each step."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from typing import Any

from hypothesis import strategies as st
from link_model import Offloaded
from model import LinkKey, Model, Port
from offloaded import on_wire, read, sent
from pair import COUNTED, Pair, nonzero, whole
from strategies import (
    HOSTS,
    Add,
    Flush,
    Process,
    SetFlags,
    SetLink,
    SetPolicy,
    SetStormControl,
    Sweep,
    Tick,
    flag_sets,
    frames,
    host_frames,
    policies,
    rates,
    stations,
    storm_kinds,
    vids,
    weighted,
)

from fastbridge import Counters, MemorySwitch
from fastbridge.core.links import Links
from fastbridge.links.stages import Stages

MS = 1_000_000
COUNTS = ("entered", "lost", "queue_full", "cut", "duplicated", "corrupted", "reordered")


@dataclass(frozen=True)
class Wait:
    """Time goes by."""

    ns: int


@dataclass(frozen=True)
class SetLinks:
    """Links are set, changed (not restarted) or taken off (None)."""

    stages: dict[LinkKey, Stages | None]
    restart: bool

    def __repr__(self) -> str:
        """What is not as it always is; a table by its number."""
        return f"SetLinks({ {key: each and words_of(each) for key, each in self.stages.items()} }, {self.restart})"


def words_of(stages: Stages) -> dict[str, Any]:
    words = {each.name: getattr(stages, each.name) for each in fields(Stages)}
    words["table"] = TABLES.index(stages.table) if stages.table else ()
    return {name: value for name, value in words.items() if value != getattr(Stages(), name)}


@dataclass(frozen=True)
class Replace:
    """A port is taken out, and one with its name comes."""

    port: int


@dataclass(frozen=True)
class LinkedHistory:
    ports: int
    steps: list[Any]


class LinkedPair(Pair):
    """Virtual time: only advance() lets it pass."""

    core: MemorySwitch

    def __init__(self, ports: int, ageing: float | None = 0.05) -> None:
        options: dict[str, Any] = {"ageing": ageing, "capacity": 1024, "filter_link_local": False}
        self.core = MemorySwitch(ports, clock=None, neighbour_ageing=0.08, **options)
        self.links = Links(self.core._dataplane)
        self.now = 0
        clock = lambda: self.now / 1e9  # noqa: E731
        self.model = Model(ports, clock=clock, neighbour_ageing=0.08, **options)
        self.split = whole
        self.gone: list[Port] = []  # what was taken out

    def live(self, step: Any) -> None:
        match step:
            case Wait(ns):
                got = self.core.advance(ns / 1e9)
                assert [(round(time * 1e9), port, frame) for time, port, frame in got] == self.model.advance(
                    self.now + ns
                )
                self.now += ns
                self.compare()
            case SetLinks(stages, restart):
                self.links.set(stages, restart=restart, now=self.now)
                for key, each in stages.items():
                    self.model.set_link(key, each, restart=restart)
                self.compare()
            case Replace(port):
                name = self.core.ports[port].name
                self.core.remove_port(name)
                assert self.core.add_port(name).index == port
                self.gone.append(self.model.replace_port(port))
                self.compare()
            case _:
                if isinstance(step, Tick):
                    self.links.tidy()
                super().live(step)

    def compare(self) -> None:
        super().compare()
        self.compare_links()

    def compare_totals(self, counters: Counters) -> None:
        """The totals have the ports that were taken out."""
        ports = [*self.model.ports, *self.gone]
        for name in COUNTED:
            assert getattr(counters.total, name) == sum(port.counts[name] for port in ports), name
        for name in ("dropped", "tx_dropped"):
            assert nonzero(getattr(counters.total, name)) == sum((getattr(port, name) for port in ports), Counter())
        assert counters.total.rx_in_flight + counters.total.tx_in_flight == len(self.model.flights)

    def compare_links(self) -> None:
        state = self.links.state(self.now)
        links = {key: link for key, link in self.model.links.items() if link.stages}
        assert state.keys() == links.keys()
        for key, link in links.items():
            for name in COUNTS:
                assert state[key][name] == link.counts[name], (key, name)
            assert (state[key]["waiting"], state[key]["waiting_bytes"]) == (link.waiting, link.waiting_bytes), key
            queued = [bytes_ for at, bytes_ in link.queue if at > self.now]
            assert (state[key]["queued"], state[key]["queued_bytes"]) == (len(queued), sum(queued)), key
        assert (self.links.memory[0] > 0) == bool(self.model.flights)


class OffloadedPair(LinkedPair):
    """Frames are messages with vnet headers. What leaves is compared as a wire has it; the counters say whether GSO
    frames stayed whole."""

    def __init__(self) -> None:
        super().__init__(3)
        self.known = dict[bytes, Offloaded]()
        for port in 1, 2:
            for vlan in 0, 5:
                self.core.fdb.add(HOSTS[port], str(port), vlan=vlan)
                self.model.add(HOSTS[port], port, vlan)

    def send(self, ingress: int, message: bytes, frame: bytes) -> None:
        if isinstance(frame, Offloaded):
            self.known[message] = frame
        got = [(0, e.port, e.frame) for e in self.core.process_offloaded(ingress, [message])]
        wanted = [(0, *copy) for copy in self.model.process(ingress, [frame])]
        got += self.core._memory.advance(self.now, offloaded=True)
        assert self.read(got) == on_wires(wanted + self.model.advance())
        self.compare()

    def wait(self, ns: int) -> None:
        self.now += ns
        got = self.core._memory.advance(self.now, offloaded=True)
        self.core.advance(ns / 1e9)
        assert self.read(got) == on_wires(self.model.advance(self.now))
        self.compare()

    def read(self, got: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
        return [(time, port, frame) for time, port, message in got for frame in read(message, self.known)]


def on_wires(wanted: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    return [(time, port, each) for time, port, frame in wanted for each in on_wire(frame)]


# -- what may be ---------------------------------------------------------------------------------------

probabilities = st.sampled_from([0.0, 0.0, 0.0, 1e-15, 0.1, 0.5, 0.9, 1.0])
times = weighted((3, st.sampled_from([0, 1, 999, MS, 5 * MS, 20 * MS])), (1, st.integers(0, 60 * MS)))
#: From one bit a ms to more than counts: a frame here has some 20 bytes.
speeds = st.sampled_from([1_000, 8_000, 64_000, 160_001, 1_000_000, 12_345_678, 10**9, 10**12])


def table(*points: int) -> tuple[int, ...]:
    """Straight lines between points, in 1/65536 of the jitter."""
    parts, made = len(points) - 1, []
    for n in range(4_097):
        part, rest = divmod(n * parts, 4_096)
        low, high = points[part], points[min(part + 1, parts)]
        made.append(low + (high - low) * rest // 4_096)
    return tuple(made)


UNIFORM = table(-65_536, 65_536)
TABLES = [UNIFORM, table(0, 0), table(-262_143, -65_537, -1, 3, 262_144), table(-9, 1, 500_000)]


@st.composite
def steps(draw: st.DrawFn, rated: bool) -> dict[str, Any]:
    """The link changes with time; it is dark for a while perhaps, but not for ever."""
    starts = [0, *sorted(draw(st.sets(st.integers(1, 40 * MS), max_size=4)))]
    rate = speeds | st.just(0) if draw(st.booleans()) or not rated else st.just(-1)
    dark = [draw(rate) for _ in starts]
    if not any(dark):
        dark[-1] = draw(speeds)
    every = draw(st.booleans())
    if not every and dark[-1] == 0:
        dark[-1] = draw(speeds)
    delays = [draw(times | st.just(-1)) for _ in starts]
    if not rated and draw(st.integers(0, 2)) == 0:
        dark = [-1] * len(starts)
    period = starts[-1] + draw(st.integers(1, 20 * MS)) if every else 0
    return {"steps": tuple(zip(starts, dark, delays, strict=True)), "period_ns": period}


@st.composite
def some_stages(draw: st.DrawFn) -> Stages:
    """Few stages at a time, or nothing would go through."""
    words: dict[str, Any] = {"seed": draw(st.integers(0, 3) | st.integers(0, (1 << 64) - 1))}
    for stage in draw(st.sets(st.sampled_from(sorted(STAGES)), max_size=4)):
        words |= draw(STAGES[stage])
    if draw(st.integers(0, 3)) == 0:
        words |= draw(steps("rate" in words))
    if draw(st.integers(0, 19)) == 0:
        words["cut"] = True
    return Stages(**words)


def words(**strategies: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(strategies)


STAGES = {
    "loss": words(loss=probabilities),
    "bursts": words(bursts=st.tuples(*[probabilities] * 4)),
    "every": words(lose_every=st.integers(1, 7)),
    "frames": words(lose_frames=st.sets(st.integers(1, 30), max_size=6).map(lambda numbers: tuple(sorted(numbers)))),
    "duplicate": words(duplicate=probabilities),
    "corrupt": words(corrupt=probabilities),
    "reorder": words(reorder=probabilities),
    "rate": words(
        rate=speeds,
        overhead=st.sampled_from([0, 4, 24]),
        limit_bytes=st.sampled_from([0, 0, 40, 200]),
        limit_ns=st.sampled_from([0, 0, 1, 3 * MS]),
        limit_frames=st.sampled_from([0, 0, 1, 5]),
    ),
    "delay": words(delay_ns=times),
    "jitter": words(jitter_ns=times, table=st.sampled_from(TABLES), keeps_order=st.booleans()),
}


@st.composite
def linked_histories(draw: st.DrawFn, policed: bool = False) -> LinkedHistory:
    ports = draw(st.integers(2, 4))
    port = st.integers(0, ports - 1)
    keys = st.one_of(
        port.map(lambda index: ("from_pod", index, None)),
        port.map(lambda index: ("to_pod", None, index)),
        st.tuples(st.just("pair"), port, port),
    )
    links = st.builds(SetLinks, st.dictionaries(keys, some_stages() | st.none(), min_size=1, max_size=3), st.booleans())
    batch = st.lists(host_frames([()]) if policed else frames, max_size=8)
    step: st.SearchStrategy[Any] = weighted(
        (10, st.builds(Process, port, batch)),
        (6, st.builds(Wait, times)),
        (4, links),
        (1, st.builds(Sweep) if policed else st.builds(Tick)),
        (1, st.builds(SetPolicy, port, policies) if policed else st.builds(Replace, port)),
        (1, st.builds(Add, stations, port, vids)),
        (1, st.builds(Flush, port | st.none())),
        (1, st.builds(SetFlags, port, flag_sets)),
        (1, st.builds(SetStormControl, port, st.dictionaries(storm_kinds, rates, max_size=2))),
        (1, st.builds(SetLink, port, st.sampled_from(["up", "up", "down", "blocked"]))),
    )
    first: list[Any] = [draw(links) for _ in range(draw(st.integers(1, 3)))]
    if policed:
        first += [SetPolicy(n, draw(policies)) for n in range(ports)]
    return LinkedHistory(ports, first + draw(st.lists(step, min_size=1, max_size=25)) + [Wait(10_000 * MS)])


#: Both directions, and a pair beside them.
ways = st.fixed_dictionaries(
    {("from_pod", 0, None): some_stages() | st.none(), ("to_pod", None, 1): some_stages()},
    optional={("to_pod", None, 2): some_stages(), ("pair", 0, 1): some_stages()},
)
gso_steps = st.lists(st.lists(sent(HOSTS[1:], HOSTS[0]), min_size=1, max_size=3) | times | ways, min_size=1, max_size=8)
gso_stories = st.tuples(ways, gso_steps).map(lambda drawn: [drawn[0], *drawn[1], 10_000 * MS])


def live_gso(story: list[Any]) -> None:
    """Links, messages to send, and times to wait."""
    both = OffloadedPair()
    for step in story:
        match step:
            case dict():
                both.live(SetLinks(step, restart=True))
            case int():
                both.wait(step)
            case _:
                for message, frame in step:
                    both.send(0, message, frame)
