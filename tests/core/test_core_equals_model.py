"""The Cython core does what the model does: frame for frame, entry for entry, counter for counter."""

from __future__ import annotations

from effort import examples
from frames import GROUP, ethernet
from hypothesis import given, settings
from hypothesis import strategies as st
from model import FLAGS
from pair import Pair, one_by_one, pair, whole
from strategies import (
    HOSTS,
    IPV4,
    MAPPED,
    AddNeighbour,
    Advance,
    History,
    Process,
    RemoveNeighbour,
    SetFlags,
    SetPolicy,
    SetStormControl,
    Step,
    arp,
    frames,
    guarded_histories,
    histories,
    ip_packet,
    nd,
)


@given(histories())
@settings(max_examples=examples(500))
def test_any_history(history: History) -> None:
    both = pair(history, whole)
    for step in history.steps:
        both.live(step)


@given(histories())
@settings(max_examples=examples(200))
def test_a_batch_of_n_is_n_batches_of_one(history: History) -> None:
    both = pair(history, one_by_one)
    for step in history.steps:
        both.live(step)


@given(guarded_histories())
@settings(max_examples=examples(300))
def test_any_guarded_history(history: History) -> None:
    both = pair(history, whole)
    for step in history.steps:
        both.live(step)


@given(st.lists(frames, min_size=200, max_size=400), st.integers(2, 64))
@settings(max_examples=examples(20))
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
