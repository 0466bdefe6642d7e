"""The model itself, against cases worked out by hand."""

from __future__ import annotations

import pytest
from clock import Clock
from frames import GROUP, ethernet, tag
from model import Bucket, Entry, Model

A, B, C = 0x02_00_00_00_00_0A, 0x02_00_00_00_00_0B, 0x02_00_00_00_00_0C


@pytest.fixture
def clock() -> Clock:
    return Clock(0.0)


def make(clock: Clock, **options: object) -> Model:
    defaults = {"ports": 3, "ageing": 300.0, "capacity": 100, "filter_link_local": False}
    return Model(**(defaults | options), clock=clock)  # type: ignore[arg-type]


def test_the_story_of_a_ping(clock: Clock) -> None:
    """Request flooded and source learned; reply known unicast; then both directions are."""
    model = make(clock)
    request, reply = ethernet(GROUP, A), ethernet(A, B)
    assert model.process(0, [request]) == [(1, request), (2, request)]
    assert model.process(1, [reply]) == [(0, reply)]
    assert model.process(0, [ethernet(B, A)]) == [(1, ethernet(B, A))]
    assert model.fdb == {(0, A): Entry(0, 0), (0, B): Entry(1, 0)}
    assert model.counts == {"learned": 2}
    assert model.ports[0].counts == {
        "rx_frames": 2,
        "rx_bytes": len(request) + len(reply),
        "flooded": 1,
        "forwarded": 1,
        "tx_frames": 1,
        "tx_bytes": len(reply),
    }


def test_learns_within_a_batch(clock: Clock) -> None:
    """The second frame of a batch already uses what the first one taught."""
    first, second = ethernet(B, A), ethernet(A, B)
    assert make(clock).process(0, [first, second]) == [(1, first), (2, first)]  # A and B both behind port 0


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "runt"),
        (ethernet(B, A)[:13], "runt"),
        (ethernet(B, A, tag(5), payload=b"")[:17], "bad_tag"),
        (ethernet(B, A, b"\x81\x00", payload=b"")[:14], "bad_tag"),
        (ethernet(B, A, tag(4095)), "bad_tag"),
        (ethernet(B, A, tag(4095, tpid=0x88A8)), "bad_tag"),
        (ethernet(B, A | 1 << 40), "bad_source"),
        (ethernet(B, GROUP), "bad_source"),
        (ethernet(B, 0), "bad_source"),
        (ethernet(0x0180C200000E, A), "link_local"),
        (ethernet(A, A), "filtered"),
    ],
)
def test_drop_reasons(clock: Clock, frame: bytes, reason: str) -> None:
    model = make(clock, filter_link_local=True)
    assert model.process(0, [frame]) == []
    assert model.ports[0].dropped == {reason: 1}
    assert model.ports[0].counts == {"rx_frames": 1, "rx_bytes": len(frame)}
    assert bool(model.fdb) == (reason in ("link_local", "filtered"))  # a bad frame teaches nothing


@pytest.mark.parametrize(
    "frame",
    [
        ethernet(B, A, payload=b"", ethertype=0x0800),  # 14 bytes: a header and nothing else
        ethernet(B, A, tag(7), payload=b""),  # 18 bytes
        ethernet(B, A, tag(0)),
        ethernet(B, A, tag(4094)),
        ethernet(B, A, tag(5) + tag(4095)),  # only the outer tag counts
        ethernet(B, A, b"\x91\x00\x0f\xff"),  # a TPID the switch does not know is a plain EtherType
        ethernet(B, A, b"\x00\x00"),
    ],
)
def test_passes(clock: Clock, frame: bytes) -> None:
    model = make(clock)
    assert model.process(2, [frame]) == [(0, frame), (1, frame)]
    assert model.ports[2].dropped == {}


@pytest.mark.parametrize("last", range(16))
def test_link_local_passes_unless_filtered(clock: Clock, last: int) -> None:
    frame = ethernet(0x0180C2000000 | last, A)
    assert len(make(clock).process(0, [frame])) == 2
    assert make(clock, filter_link_local=True).process(0, [frame]) == []


@pytest.mark.parametrize("destination", [0x0180C2000010, 0x0180C3000000, 0x0100C2000000, 0x01005E000001])
def test_other_groups_are_never_filtered(clock: Clock, destination: int) -> None:
    assert len(make(clock, filter_link_local=True).process(0, [ethernet(destination, A)])) == 2


def test_vlans_are_learned_apart(clock: Clock) -> None:
    model = make(clock)
    model.process(0, [ethernet(GROUP, A, tag(5))])
    assert model.fdb == {(5, A): Entry(0, 0)}
    assert [port for port, _ in model.process(1, [ethernet(A, B)])] == [0, 2]  # unknown outside VLAN 5
    assert [port for port, _ in model.process(1, [ethernet(A, B, tag(5))])] == [0]
    assert [port for port, _ in model.process(1, [ethernet(A, B, tag(5, tpid=0x88A8, priority=7))])] == [0]


def test_a_priority_tag_is_no_vlan(clock: Clock) -> None:
    model = make(clock)
    model.process(0, [ethernet(GROUP, A, tag(0, priority=5))])
    assert model.fdb == {(0, A): Entry(0, 0)}
    assert [port for port, _ in model.process(1, [ethernet(A, B)])] == [0]


def test_station_move(clock: Clock) -> None:
    model = make(clock)
    model.process(0, [ethernet(GROUP, A)])
    model.process(1, [ethernet(GROUP, A)])
    assert model.fdb == {(0, A): Entry(1, 0)}
    assert model.counts == {"learned": 1, "moved": 1}


def test_ageing(clock: Clock) -> None:
    model = make(clock, ageing=10.0)
    model.process(0, [ethernet(GROUP, A), ethernet(GROUP, B)])
    clock.now = 9.999
    model.process(0, [ethernet(GROUP, A)])  # heard again: A lives on
    assert len(model.process(1, [ethernet(B, C)])) == 1
    clock.now = 10.0
    assert len(model.process(1, [ethernet(B, C)])) == 2  # expired, though not swept yet
    assert len(model.fdb) == 3
    model.tick()
    assert set(model.fdb) == {(0, A), (0, C)}
    assert model.counts == {"learned": 3, "aged": 1}


def test_an_expired_source_is_new_again(clock: Clock) -> None:
    model = make(clock, ageing=10.0)
    model.process(0, [ethernet(GROUP, A)])
    clock.now = 10.0
    model.process(1, [ethernet(GROUP, A)])  # elsewhere, but no move: it had been forgotten
    assert model.counts == {"learned": 2, "aged": 1}
    assert model.fdb == {(0, A): Entry(1, 10_000)}


def test_ageing_none_is_never_and_zero_is_at_once(clock: Clock) -> None:
    never, at_once = make(clock, ageing=None), make(clock, ageing=0)
    for model in never, at_once:
        model.process(0, [ethernet(GROUP, A)])
    clock.now = 1e6
    for model in never, at_once:
        model.tick()
    assert (len(never.fdb), len(at_once.fdb)) == (1, 0)
    frames = [ethernet(A, A)]
    assert make(clock, ageing=0).process(0, frames) == [(1, frames[0]), (2, frames[0])]


def test_capacity(clock: Clock) -> None:
    model = make(clock, capacity=1, ageing=10.0)
    model.process(0, [ethernet(GROUP, A)])
    assert len(model.process(1, [ethernet(GROUP, B)])) == 2  # not learned, but it goes on
    assert model.counts == {"learned": 1, "refused": 1}
    model.process(1, [ethernet(GROUP, A)])  # who is known may move
    clock.now = 10.0
    model.process(1, [ethernet(GROUP, B)])  # an expired entry fills its place until swept
    assert model.counts == {"learned": 1, "moved": 1, "refused": 2}
    model.tick()
    model.process(1, [ethernet(GROUP, B)])
    assert set(model.fdb) == {(0, B)}


def test_static_entries(clock: Clock) -> None:
    model = make(clock, ageing=10.0)
    model.add(A, 2)
    model.process(0, [ethernet(GROUP, A)])  # learning never changes it
    clock.now = 1e6
    model.tick()
    assert [port for port, _ in model.process(1, [ethernet(A, B)])] == [2]
    assert model.counts == {"learned": 1}
    model.flush()
    assert set(model.fdb) == {(0, A)}
    assert model.remove(A)
    assert not model.remove(A)
    assert model.fdb == {}


def test_flush_one_port(clock: Clock) -> None:
    model = make(clock)
    model.process(0, [ethernet(GROUP, A)])
    model.process(1, [ethernet(GROUP, B)])
    model.flush(0)
    assert set(model.fdb) == {(0, B)}


def ports_of(copies: list[tuple[int, bytes]]) -> list[int]:
    return [port for port, _ in copies]


@pytest.mark.parametrize("link", ["down", "blocked"])
def test_ports_that_are_not_up_get_nothing(clock: Clock, link: str) -> None:
    model = make(clock)
    model.add(C, 2)
    model.ports[2].link = link
    assert ports_of(model.process(0, [ethernet(GROUP, A)])) == [1]
    assert ports_of(model.process(0, [ethernet(C, A)])) == [1]  # it may have moved: it is asked for everywhere
    model.ports[1].link = link
    assert model.process(0, [ethernet(GROUP, A)]) == []
    assert model.ports[0].counts["flooded"] == 3  # counted, though nobody heard the last one


def test_a_blocked_port_is_not_heard_and_teaches_nothing(clock: Clock) -> None:
    model = make(clock)
    model.ports[0].link = "blocked"
    assert model.process(0, [ethernet(GROUP, A), ethernet(GROUP, 0)]) == []
    assert model.ports[0].dropped == {"blocked": 1, "bad_source": 1}
    assert model.fdb == {}


MULTICAST = 0x01005E000001


@pytest.mark.parametrize(
    ("flag", "deaf_to"), [("broadcast_flood", GROUP), ("multicast_flood", MULTICAST), ("unicast_flood", B)]
)
def test_flood_flags_are_of_the_egress_port_and_of_one_kind(clock: Clock, flag: str, deaf_to: int) -> None:
    model = make(clock)
    model.ports[1].flags.remove(flag)
    for destination in GROUP, MULTICAST, B:
        assert ports_of(model.process(0, [ethernet(destination, A)])) == ([2] if destination == deaf_to else [1, 2])
        assert ports_of(model.process(1, [ethernet(destination, C)])) == [0, 2]
    model.process(1, [ethernet(GROUP, B)])
    assert ports_of(model.process(0, [ethernet(B, A)])) == [1]  # a known station is always reached


def test_without_learning_a_port_is_unknown(clock: Clock) -> None:
    model = make(clock)
    model.ports[0].flags.remove("learning")
    model.process(0, [ethernet(GROUP, A)])
    assert model.fdb == {}
    assert ports_of(model.process(1, [ethernet(A, B)])) == [0, 2]


def test_isolated_ports_reach_only_the_others(clock: Clock) -> None:
    model = make(clock)
    for port in model.ports[:2]:
        port.flags.add("isolated")
    assert ports_of(model.process(0, [ethernet(GROUP, A)])) == [2]
    assert ports_of(model.process(1, [ethernet(GROUP, B)])) == [2]
    assert ports_of(model.process(2, [ethernet(GROUP, C)])) == [0, 1]
    assert model.process(0, [ethernet(B, A)]) == []
    assert ports_of(model.process(0, [ethernet(C, A)])) == [2]
    assert model.ports[0].dropped == {"isolated": 1}


def test_hairpin(clock: Clock) -> None:
    model = make(clock)
    model.ports[0].flags |= {"hairpin", "isolated"}  # isolated from others, not from itself
    model.ports[1].flags.add("isolated")
    assert ports_of(model.process(0, [ethernet(GROUP, A)])) == [0, 2]
    assert ports_of(model.process(0, [ethernet(A, B)])) == [0]


def test_a_locked_port_lets_in_whom_the_fdb_has_behind_it(clock: Clock) -> None:
    model = make(clock, ageing=10.0)
    model.process(0, [ethernet(GROUP, A)])
    model.process(1, [ethernet(GROUP, B)])
    model.ports[0].flags.add("locked")
    assert len(model.process(0, [ethernet(GROUP, mac) for mac in (A, B, C)])) == 2
    assert model.ports[0].dropped == {"locked": 2}
    assert model.counts == {"learned": 2}
    clock.now = 10.0
    assert model.process(0, [ethernet(GROUP, A)]) == []  # expired: nobody's any more
    model.add(C, 0)
    assert len(model.process(0, [ethernet(GROUP, C)])) == 2


def test_storm_control(clock: Clock) -> None:
    """8 a second: 2 at once, then one every eighth of a second; each kind has a bucket of its own."""
    model = make(clock)
    model.ports[0].storm = {"broadcast": Bucket(8), "unicast": Bucket(1)}
    assert len(model.process(0, [ethernet(GROUP, A)] * 3)) == 4
    assert len(model.process(0, [ethernet(MULTICAST, A)] * 30)) == 60
    assert len(model.process(0, [ethernet(B, A)] * 2)) == 2
    assert len(model.process(1, [ethernet(GROUP, B)] * 30)) == 60
    assert len(model.process(0, [ethernet(B, A)] * 30)) == 30  # B is known by now: no flood, no limit
    assert model.ports[0].dropped == {"storm_broadcast": 1, "storm_unknown_unicast": 1}
    clock.now = 0.124
    assert model.process(0, [ethernet(GROUP, A)]) == []
    clock.now = 0.125
    assert len(model.process(0, [ethernet(GROUP, A)] * 2)) == 2
    clock.now = 100.0
    assert len(model.process(0, [ethernet(GROUP, A)] * 3)) == 4  # never more than the burst
    assert model.fdb[0, A].seen == 100_000  # who is dropped is heard all the same


def test_move_damping(clock: Clock) -> None:
    model = make(clock, damping=1.0)
    model.process(0, [ethernet(GROUP, A)])
    clock.now = 0.999
    model.process(1, [ethernet(GROUP, A)])
    assert model.fdb == {(0, A): Entry(0, 0)}
    clock.now = 1.0
    model.process(1, [ethernet(GROUP, A)])
    assert model.fdb == {(0, A): Entry(1, 1000)}
    assert model.counts == {"learned": 1, "moved": 1}
