"""The Cython core does what the model does: frame for frame, entry for entry, counter for counter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

from frames import GROUP, ethernet
from hypothesis import given, settings
from hypothesis import strategies as st
from model import FLAGS, Bucket, Model
from strategies import (
    HOSTS,
    IPV4,
    MAPPED,
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
    SetStormControl,
    Step,
    Sweep,
    Tick,
    arp,
    frames,
    guarded_histories,
    histories,
    ip_packet,
    nd,
)

from fastbridge import Message, Neighbours, Policy, StormControl, Switch, Verdict


class Clock:
    eighths = 1_000  # not 0: a clock that starts at 0 would hide a "never seen" taken for "seen at 0"

    def __call__(self) -> float:
        return self.eighths / 8


class Watch(Policy):
    """Learns who is where, and has no opinion."""

    def decide(self, message: Message, neighbours: Neighbours) -> Verdict | None:
        return None


@dataclass
class Pair:
    """A core and a model that live the same history."""

    core: Switch
    model: Model
    clock: Clock
    split: Callable[[list[bytes]], list[list[bytes]]]

    def live(self, step: Step) -> None:
        match step:
            case Process(ingress, batch):
                got = [(e.port, e.frame) for part in self.split(batch) for e in self.core.process(ingress, part)]
                assert got == self.model.process(ingress, batch)
            case Advance(eighths):
                self.clock.eighths += eighths
            case Tick():
                self.core.tick()
                self.model.tick()
            case Add(mac, port, vid):
                self.core.fdb.add(mac, self.core.ports[port].name, vlan=vid)
                self.model.add(mac, port, vid)
            case Remove(mac, vid):
                assert self.core.fdb.remove(mac, vlan=vid) == self.model.remove(mac, vid)
            case Flush(port):
                self.core.fdb.flush(None if port is None else self.core.ports[port].name)
                self.model.flush(port)
            case SetFlags(port, flags):
                self.core.set_flags(port, **{name: name in flags for name in FLAGS})
                self.model.ports[port].flags = set(flags)
            case SetStormControl(port, rates):
                named = (rates.get(kind) for kind in ("broadcast", "multicast", "unicast"))
                self.core.set_storm_control(StormControl(*named), port)
                self.model.ports[port].storm = {kind: Bucket(rate) for kind, rate in rates.items()}
            case SetLink(port, link):  # in memory no link is lost by itself, and no loop is found
                self.core._dataplane.set_blocked(port, link == "blocked")
                self.core._dataplane.set_link(port, "up" if link == "blocked" else link)
                self.model.ports[port].link = link
            case SetPolicy(port, policy):
                self.core.set_policy(Watch() if policy == "watch" else policy, port)
                self.model.set_policy(port, policy)
            case AddNeighbour(ip, mac, port, vlan):
                self.core.neighbours.add(ip_address(ip), mac, port, vlan)
                self.model.add_neighbour(ip, mac.to_bytes(6, "big"), port, vlan)
            case RemoveNeighbour(ip, vlan):
                assert self.core.neighbours.remove(ip_address(ip), vlan) == self.model.remove_neighbour(ip, vlan)
            case Sweep():
                self.core.neighbours.sweep()
                self.core._policing.bind()
                self.model.sweep()
        self.compare()

    def compare(self) -> None:
        assert core_fdb(self.core) == model_fdb(self.model)
        assert core_neighbours(self.core) == model_neighbours(self.model)
        assert self.core.neighbours.conflict_count == self.model.policy["conflicts"]
        counted = Counter({k: n for k, n in self.core.counters().policy.items() if n})
        assert counted == Counter({k: n for k, n in self.model.policy.items() if n and k != "conflicts"})
        assert len(self.core.fdb) == len(model_fdb(self.model))
        counters = self.core.counters()
        for name in ("learned", "moved", "aged", "refused"):
            assert getattr(counters, name) == self.model.counts[name], name
        for port in self.model.ports:
            core_port = counters.ports[port.name]
            for name in ("rx_frames", "rx_bytes", "forwarded", "flooded", "consumed", "tx_frames", "tx_bytes"):
                assert getattr(core_port, name) == port.counts[name], (port.name, name)
            assert nonzero(core_port.dropped) == port.dropped
            assert nonzero(core_port.tx_dropped) == {}
            fates = core_port.forwarded, core_port.flooded, core_port.consumed, sum(core_port.dropped.values())
            assert core_port.rx_frames == sum(fates)
        assert counters.total == sum(counters.ports.values(), type(counters.total)())


def core_fdb(core: Switch) -> dict[tuple[int, int], tuple[str, float | None, bool]]:
    return {(e.vlan, int(e.mac)): (e.port, e.age, e.static) for e in core.fdb}


def model_fdb(model: Model) -> dict[tuple[int, int], tuple[str, float | None, bool]]:
    """The live entries, as a switch shows them."""
    now = int(model.clock() * 1000)
    return {
        key: (model.ports[entry.port].name, None if entry.static else (now - entry.seen) / 1000, entry.static)
        for key, entry in model.fdb.items()
        if not model.expired(entry)
    }


def core_neighbours(core: Switch) -> dict[tuple[int, bytes], tuple[bytes, str, float | None]]:
    return {(n.vlan, n.ip.packed): (n.mac.packed, n.port, n.age) for n in core.neighbours}


def model_neighbours(model: Model) -> dict[tuple[int, bytes], tuple[bytes, str, float | None]]:
    """The live entries, as a switch shows them."""
    return {
        key: (n.mac, model.ports[n.port].name, None if n.static else model.clock() - n.seen)
        for key, n in model.neighbours.items()
        if model.lookup(*key)
    }


def nonzero(drops: object) -> dict[str, int]:
    return {reason: count for reason, count in dict(drops).items() if count}  # type: ignore[call-overload]


def pair(history: History, split: Callable[[list[bytes]], list[list[bytes]]]) -> Pair:
    clock = Clock()
    core = Switch.in_memory(
        history.ports,
        ageing=history.ageing,
        capacity=history.capacity,
        filter_link_local=history.filter_link_local,
        move_damping=history.damping,
        neighbour_ageing=history.neighbour_ageing,
        clock=clock,
    )
    model = Model(
        history.ports,
        ageing=history.ageing,
        capacity=history.capacity,
        filter_link_local=history.filter_link_local,
        damping=history.damping,
        neighbour_ageing=history.neighbour_ageing,
        clock=clock,
    )
    return Pair(core, model, clock, split)


def whole(batch: list[bytes]) -> list[list[bytes]]:
    return [batch]


def one_by_one(batch: list[bytes]) -> list[list[bytes]]:
    return [[frame] for frame in batch]


@given(histories())
@settings(max_examples=500)
def test_any_history(history: History) -> None:
    both = pair(history, whole)
    for step in history.steps:
        both.live(step)


@given(histories())
@settings(max_examples=200)
def test_a_batch_of_n_is_n_batches_of_one(history: History) -> None:
    both = pair(history, one_by_one)
    for step in history.steps:
        both.live(step)


@given(guarded_histories())
@settings(max_examples=300)
def test_any_guarded_history(history: History) -> None:
    both = pair(history, whole)
    for step in history.steps:
        both.live(step)


@given(st.lists(frames, min_size=200, max_size=400), st.integers(2, 64))
@settings(max_examples=20)
def test_batches_longer_than_the_core_takes_at_once(many: list[bytes], ports: int) -> None:
    both = pair(History(ports, 300.0, 64, False, []), whole)
    both.live(Process(0, many))
    both.live(Process(ports - 1, many))


def test_a_full_size_frame_and_a_64_kb_one_come_out_whole() -> None:
    both = pair(History(3, None, 16, False, []), whole)
    payloads = [bytes(range(256)) * 5 + b"end", b"\xaa" * 65_550]
    both.live(Process(0, [ethernet(GROUP, 2, payload=payload) for payload in payloads]))


def test_many_ports_and_many_stations() -> None:
    """250 ports, each with its station; then everybody talks to everybody's neighbour."""
    both = pair(History(250, 300.0, 65_536, False, []), whole)
    for port in range(250):
        both.model.process(port, [ethernet(2 + (port << 8), 2 + (port << 8))])
        both.core.process(port, [ethernet(2 + (port << 8), 2 + (port << 8))])
    both.compare()
    for port in range(250):
        batch = [ethernet(2 + (((port + n) % 250) << 8), 2 + (port << 8)) for n in range(5)]
        assert [tuple(e) for e in both.core.process(port, batch)] == both.model.process(port, batch)
    both.compare()


def test_storms_of_all_kinds_at_all_rates() -> None:
    rates = [0.5, 1, 3, 7.3, 64, 1_000, 1e9]
    both = pair(History(len(rates), 300.0, 64, False, []), whole)
    for port, rate in enumerate(rates):
        both.live(SetStormControl(port, {"broadcast": rate, "unicast": rate / 2}))
    storm = [ethernet(mac, 2) for mac in (GROUP, 0x01005E000001, 0x02_00_00_00_00_99) for _ in range(40)]
    for eighths in 0, 0, 1, 1, 3, 8, 0, 100:
        both.live(Advance(eighths))
        for port in range(len(rates)):
            both.live(Process(port, storm))


def test_isolated_hairpin_and_locked_ports() -> None:
    both = pair(History(4, 300.0, 64, False, []), whole)
    stations = [0x02_00_00_00_00_01 + port for port in range(4)]
    talk = [ethernet(to, sender) for sender in stations for to in (GROUP, *stations, 0x02_00_00_00_00_99)]
    default = frozenset(FLAGS[:4])
    for flags in {"isolated"}, {"hairpin"}, {"locked"}, {"isolated", "hairpin"}, {"locked", "hairpin"}:
        for port in 0, 1, 3:
            both.live(SetFlags(port, default | flags))
        for port in range(4):
            both.live(Process(port, talk))


def claim(mac: int, ip: bytes) -> bytes:
    return ethernet(GROUP, mac, ethertype=0x0806, payload=arp(1, mac, ip, ip))


def data(mac: int, ip: bytes) -> bytes:
    return ethernet(GROUP, mac, ethertype=0x0800, payload=ip_packet(ip, b"fastbridge"))


def live_all(steps: list[Step], *, ports: int = 3, neighbour_ageing: float = 60.0) -> Pair:
    both = pair(History(ports, 300.0, 1024, False, [], neighbour_ageing=neighbour_ageing), whole)
    for step in steps:
        both.live(step)
    return both


GUARDS: list[Step] = [SetPolicy(port, "guard") for port in range(3)]


def test_an_ipv4_address_is_not_bound_by_who_claims_it_as_ipv6() -> None:
    mapped = nd(136, MAPPED, MAPPED, HOSTS[2], 0x20, False)
    steps = [
        Process(0, [claim(HOSTS[0], IPV4[0])]),
        Process(2, [ethernet(GROUP, HOSTS[2], ethertype=0x86DD, payload=mapped)]),
    ]
    both = live_all([*GUARDS, *steps, Process(0, [data(HOSTS[0], IPV4[0])])])
    assert both.core.counters().total.dropped["source_guard"] == 0


def test_a_mac_goes_to_the_next_live_holder_and_not_to_the_latest() -> None:
    """The first has expired and is not yet swept away when the third comes."""
    mac = HOSTS[0]
    steps = [
        *(SetPolicy(port, "watch") for port in range(3)),
        Process(0, [claim(mac, IPV4[0])]),
        Advance(4),
        Process(1, [claim(mac, IPV4[1])]),
        Advance(4),
        Process(2, [claim(mac, IPV4[2])]),
        *GUARDS,
        Process(2, [data(mac, IPV4[2])]),
        Process(1, [data(mac, IPV4[1])]),
    ]
    both = live_all(steps, neighbour_ageing=1.0)
    dropped = {name: port.dropped["source_guard"] for name, port in both.core.counters().ports.items()}
    assert dropped == {"0": 0, "1": 0, "2": 1}


def test_of_static_holders_of_a_mac_the_last_one_has_it() -> None:
    mac = HOSTS[0]
    added = [AddNeighbour(ip, mac, port, 0) for port, ip in enumerate(IPV4)]
    both = live_all([*GUARDS, *added, RemoveNeighbour(IPV4[2], 0), Process(2, [])])
    both.live(Process(0, [data(mac, IPV4[0])]))
    both.live(Process(1, [data(mac, IPV4[1])]))
    dropped = {name: port.dropped["source_guard"] for name, port in both.core.counters().ports.items()}
    assert dropped == {"0": 1, "1": 0, "2": 0}
