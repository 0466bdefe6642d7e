"""The FDB: the table of the core against a dict, and the view of it that a switch gives."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest
from effort import examples
from exported import exported
from frames import GROUP, ethernet, tag
from hypothesis import given, settings
from hypothesis import strategies as st

from fastbridge import ConfigError, FastbridgeError, MacAddress, Switch
from fastbridge.core.fdb import FdbAccess
from fastbridge.core.mac_table import MacTable
from fastbridge.switch.fdb_arrays import FDB_DTYPE

Dict = dict[tuple[int, int], tuple[int, int, bool]]  # (VLAN id, MAC) -> port, seen, static


def content(table: MacTable) -> Dict:
    rows = exported(FdbAccess(table))
    result = {(int(r["vlan"]), int(r["mac"])): (int(r["port"]), int(r["seen"]), bool(r["static"])) for r in rows}
    assert len(result) == len(rows) == len(table)  # no entry twice
    return result


def random_keys(rng: np.random.Generator, count: int) -> np.ndarray:
    """`count` different keys (vlan << 48 | mac), as the core has them."""
    keys = rng.integers(0, 1 << 48, count * 2, dtype=np.uint64) | rng.integers(0, 8, count * 2, dtype=np.uint64) << 48
    return np.unique(keys)[rng.permutation(count)]


def look_up(table: MacTable, keys: np.ndarray, now: int) -> np.ndarray:
    return np.asarray(FdbAccess(table).lookup_many(keys, now))


@pytest.mark.parametrize("count", [1, 63, 64, 65, 1_000, 30_000, 300_000])
def test_large_random_tables_find_all_and_nothing_else(count: int) -> None:
    rng = np.random.default_rng(count)
    keys = random_keys(rng, count * 2)
    known, unknown = keys[:count], keys[count:]
    ports = rng.integers(0, 1 << 16, count, dtype=np.uint16)
    table = MacTable(capacity=count, ageing_ms=None)
    FdbAccess(table).learn_many(known, ports, 5)
    assert len(table) == count
    assert table.statistics == (count, 0, 0, 0, 0)
    assert (look_up(table, known, 6) == ports).all()
    assert (look_up(table, unknown, 6) == -1).all()
    rows = exported(FdbAccess(table))
    order, expected = np.argsort(rows["mac"] | rows["vlan"].astype(np.uint64) << 48), np.argsort(known)
    assert (rows["mac"][order] == known[expected] & ((1 << 48) - 1)).all()
    assert (rows["vlan"][order] == known[expected] >> 48).all()
    assert (rows["port"][order] == ports[expected]).all()
    assert (rows["seen"] == 5).all()
    assert not rows["static"].any()


def test_everything_is_found_at_every_moment_of_growth() -> None:
    keys = random_keys(np.random.default_rng(1), 6_000)
    ports = np.arange(len(keys), dtype=np.uint16)
    table = MacTable(capacity=len(keys), ageing_ms=None)
    for n in range(0, len(keys), 50):
        FdbAccess(table).learn_many(keys[n : n + 50], ports[n : n + 50], n)
        assert (look_up(table, keys[: n + 50], n) == ports[: n + 50]).all()
        assert (look_up(table, keys[n + 50 :], n) == -1).all()
    first = content(table)
    FdbAccess(table).learn_many(keys, ports, 9_999)  # nothing new: every one is heard again
    assert {key: (port, 9_999, False) for key, (port, _, _) in first.items()} == content(table)


@pytest.mark.parametrize(
    "capacity", [pytest.param(1 << 20, marks=pytest.mark.slow), 1 << 24], ids=["full", "with room to grow"]
)
def test_a_million_entries_take_64_megabytes_and_growth_comes_in_small_steps(capacity: int) -> None:
    """No 8 entries touch or give back more than 64 KiB, whatever the size the table has reached."""
    keys = random_keys(np.random.default_rng(3), 1 << 20)
    ports = np.zeros(8, np.uint16)
    table = MacTable(capacity=capacity, ageing_ms=None)
    sizes = [table.memory]
    for at in range(0, len(keys), 8):
        FdbAccess(table).learn_many(keys[at : at + 8], ports, 0)
        sizes.append(table.memory)
    assert len(table) == 1 << 20
    assert sizes[-1] <= 32 << 20
    assert max(sizes) <= 48 << 20
    assert np.abs(np.diff(sizes)).max() <= 64 << 10


def test_removal_leaves_the_others() -> None:
    rng = np.random.default_rng(2)
    keys = random_keys(rng, 20_000)
    table = MacTable(capacity=len(keys), ageing_ms=None)
    FdbAccess(table).learn_many(keys, np.ones(len(keys), np.uint16), 0)
    gone = rng.random(len(keys)) < 0.7
    for key in keys[gone].tolist():
        assert FdbAccess(table).remove(key & (1 << 48) - 1, key >> 48)
        assert not FdbAccess(table).remove(key & (1 << 48) - 1, key >> 48)
    assert len(table) == (~gone).sum()
    assert (look_up(table, keys, 0) == np.where(gone, -1, 1)).all()
    FdbAccess(table).learn_many(keys, np.full(len(keys), 7, np.uint16), 0)
    assert (look_up(table, keys, 0) == 7).all()
    assert len(table) == len(keys)


def test_a_table_that_fills_and_empties_for_long_stays_small_and_right() -> None:
    """Churn: whatever removal leaves behind must not pile up."""
    rng = np.random.default_rng(3)
    table = MacTable(capacity=4_000, ageing_ms=10)
    sizes = []
    for round_ in range(60):
        keys = random_keys(rng, 3_000)
        FdbAccess(table).learn_many(keys, np.full(len(keys), round_, np.uint16), round_ * 10)
        assert (look_up(table, keys, round_ * 10) == round_).all()
        FdbAccess(table).age(round_ * 10 + 10)
        assert len(table) == 0
        assert (look_up(table, keys, round_ * 10) == -1).all()
        sizes.append(table.memory)
    assert sizes[-1] == sizes[5]


def test_capacity() -> None:
    keys = random_keys(np.random.default_rng(4), 1_500)
    table = MacTable(capacity=1_000, ageing_ms=None)
    FdbAccess(table).learn_many(keys, np.zeros(len(keys), np.uint16), 0)
    assert len(table) == 1_000
    assert table.statistics == (1_000, 0, 0, 0, 500)
    assert (look_up(table, keys, 0) == np.where(np.arange(1_500) < 1_000, 0, -1)).all()


def test_a_full_table_makes_room_at_the_cost_of_the_port_with_most_entries() -> None:
    keys = random_keys(np.random.default_rng(6), 1_300)
    table = MacTable(capacity=1_000, ageing_ms=None)
    FdbAccess(table).learn_many(keys[:100], np.full(100, 1, np.uint16), 0)
    FdbAccess(table).learn_many(keys[100:1_000], np.full(900, 2, np.uint16), 1)
    FdbAccess(table).learn_many(keys[1_000:], np.full(300, 3, np.uint16), 2)
    assert [table.held(port) for port in (1, 2, 3)] == [100, 600, 300]
    assert table.statistics == (1_300, 0, 0, 300, 0)
    assert (look_up(table, keys[:100], 2) == 1).all()
    assert (look_up(table, keys[1_000:], 2) == 3).all()


@pytest.mark.parametrize("capacity", [10_300, 41_000, 65_536])
def test_old_entries_make_room_also_while_the_table_grows(capacity: int) -> None:
    """The first two capacities are reached when growth has just begun."""
    keys = random_keys(np.random.default_rng(8), capacity + 1_000)
    table = MacTable(capacity, ageing_ms=None)
    for now, key in enumerate(keys.tolist()):
        table.learn(key & (1 << 48) - 1, key >> 48, 0 if now < capacity else 1, now)
    assert table.statistics == (capacity + 1_000, 0, 0, 1_000, 0)
    (gone,) = np.nonzero(look_up(table, keys, 0) < 0)
    assert len(gone) == 1_000
    assert gone.max() < capacity // 4  # the oldest of some 160


def test_a_port_that_floods_the_table_competes_with_itself_only() -> None:
    keys = random_keys(np.random.default_rng(7), 101_000)
    table = MacTable(capacity=10_000, ageing_ms=None)
    FdbAccess(table).learn_many(keys[:1_000], np.arange(1_000, dtype=np.uint16) % 10, 0)
    FdbAccess(table).learn_many(keys[1_000:], np.full(100_000, 10, np.uint16), 1)
    assert len(table) == 10_000
    assert (look_up(table, keys[:1_000], 1) == np.arange(1_000) % 10).all()
    FdbAccess(table).learn_many(keys[-1_000:], np.full(1_000, 11, np.uint16), 2)  # and a newcomer still finds room
    assert table.held(11) == 1_000


def test_static_entries_are_not_evicted() -> None:
    keys = random_keys(np.random.default_rng(8), 200)
    table = MacTable(capacity=100, ageing_ms=None)
    for key in keys[:100].tolist():
        FdbAccess(table).add(key & (1 << 48) - 1, key >> 48, 1)
    FdbAccess(table).learn_many(keys[100:], np.full(100, 2, np.uint16), 0)
    assert (table.held(1), table.held(2), len(table)) == (0, 0, 100)
    assert table.statistics == (0, 0, 0, 0, 100)


def test_flush_by_port() -> None:
    keys = random_keys(np.random.default_rng(5), 5_000)
    ports = np.arange(len(keys), dtype=np.uint16) % 10
    table = MacTable(capacity=len(keys), ageing_ms=None)
    FdbAccess(table).learn_many(keys, ports, 0)
    assert FdbAccess(table).flush(3) == 500
    assert (look_up(table, keys, 0) == np.where(ports == 3, -1, ports.astype(np.int32))).all()
    assert FdbAccess(table).flush(3) == 0
    assert len(table) == 4_500
    assert table.statistics[2] == 0  # flushed is not aged


@pytest.mark.parametrize("now", [0, 5_000, (1 << 32) - 3, (1 << 32) - 1])
def test_time_may_wrap_round(now: int) -> None:
    """The clock is 32 bits of milliseconds: 49.7 days."""
    table = MacTable(capacity=10, ageing_ms=10)
    table.learn(0xA, 0, 1, now)
    later = [(now + elapsed) % (1 << 32) for elapsed in (0, 9, 10)]
    assert [table.look_up(0xA, 0, moment) for moment in later] == [1, 1, -1]
    assert [FdbAccess(table).age(moment) for moment in later] == [0, 0, 1]


macs, vlans, ports_ = st.integers(1, 40), st.sampled_from([0, 1, 4094]), st.integers(0, 3)
actions = st.one_of(
    st.tuples(st.just("learn"), macs, vlans, ports_),
    st.tuples(st.just("learn"), macs, vlans, ports_),
    st.tuples(st.just("static"), macs, vlans, ports_),
    st.tuples(st.just("remove"), macs, vlans),
    st.tuples(st.just("flush"), ports_, st.booleans()),
    st.tuples(st.just("age")),
    st.tuples(st.just("wait"), st.integers(0, 30)),
)


@given(st.lists(actions, max_size=60), st.sampled_from([None, 0, 25, 1_000]))
@settings(max_examples=examples(300))
def test_any_history_against_a_dict(history: list[tuple], ageing: int | None) -> None:  # type: ignore[type-arg]
    table, expected, now = MacTable(capacity=1_000, ageing_ms=ageing), {}, 1_000  # type: ignore[var-annotated]
    for action, *arguments in history:
        if action == "learn":
            mac, vlan, port = arguments
            table.learn(mac, vlan, port, now)
            if not expected.get((vlan, mac), (0, 0, False))[2]:
                expected[vlan, mac] = (port, now, False)
        elif action == "static":
            mac, vlan, port = arguments
            FdbAccess(table).add(mac, vlan, port)
            expected[vlan, mac] = (port, None, True)
        elif action == "remove":
            mac, vlan = arguments
            assert FdbAccess(table).remove(mac, vlan) == (expected.pop((vlan, mac), None) is not None)
        elif action == "flush":
            port, statics_too = arguments
            gone = [k for k, (p, _, static) in expected.items() if p == port and (statics_too or not static)]
            assert FdbAccess(table).flush(port, statics_too) == len([expected.pop(key) for key in gone])
        elif action == "age":
            gone = [k for k, (_, seen, static) in expected.items() if not static and old(seen, now, ageing)]
            assert FdbAccess(table).age(now) == len([expected.pop(key) for key in gone])
        else:
            now += arguments[0]
        assert {k: (p, None if s else seen, s) for k, (p, seen, s) in content(table).items()} == expected
        for (vlan, mac), (port, seen, static) in expected.items():
            assert table.look_up(mac, vlan, now) == (port if static or not old(seen, now, ageing) else -1)


def old(seen: int, now: int, ageing: int | None) -> bool:
    return ageing is not None and now - seen >= ageing


@given(st.data())
@settings(max_examples=examples(30))
def test_a_growing_table_gives_up_its_old_memory_and_nothing_else(data: st.DataObject) -> None:
    """Removal, ageing and flushing at any moment of several growths, of tables large enough to be released in parts."""
    keys = random_keys(np.random.default_rng(data.draw(st.integers(0, 5))), 30_000)
    table, expected, at = MacTable(capacity=1 << 20, ageing_ms=100), {}, 0
    for now in range(data.draw(st.integers(1, 8))):
        count = data.draw(st.integers(1, 8_000))
        port = data.draw(st.integers(0, 3))
        FdbAccess(table).learn_many(keys[at : at + count], np.full(len(keys[at : at + count]), port, np.uint16), now)
        expected |= dict.fromkeys(keys[at : at + count].tolist(), port)
        at += count
        if data.draw(st.booleans()):
            gone = data.draw(st.integers(0, 3))
            assert FdbAccess(table).flush(gone) == sum(port == gone for port in expected.values())
            expected = {key: port for key, port in expected.items() if port != gone}
        for key in list(expected)[:: data.draw(st.sampled_from([2, 10, 1_000, 100_000]))]:
            assert FdbAccess(table).remove(key & (1 << 48) - 1, key >> 48)
            del expected[key]
        found = look_up(table, keys, now)
        assert found.tolist() == [expected.get(key, -1) for key in keys.tolist()]
        assert len(content(table)) == len(expected)


# The view that Switch.fdb gives.

A, B = MacAddress("02:00:00:00:00:0a"), MacAddress("02:00:00:00:00:0b")


def test_entries() -> None:
    now = [100.0]
    switch = Switch.in_memory(["left", "right"], clock=lambda: now[0])
    switch.process("left", [ethernet(GROUP, A, tag(7))])
    switch.fdb.add(B, "right")
    now[0] += 2.5
    entries = {entry.mac: entry for entry in switch.fdb}
    assert len(switch.fdb) == len(entries) == 2
    learned, static = entries[A], entries[B]
    assert (learned.mac, learned.port, learned.age, learned.static, learned.vlan) == (A, "left", 2.5, False, 7)
    assert (static.mac, static.port, static.age, static.static, static.vlan) == (B, "right", None, True, 0)
    assert isinstance(learned.mac, MacAddress)
    assert switch.fdb.lookup(A, vlan=7) == learned
    assert switch.fdb.lookup(str(B)) == static
    assert switch.fdb.lookup(A) is None
    with pytest.raises(AttributeError):
        learned.port = "right"  # type: ignore[misc]


def test_add_remove_flush() -> None:
    switch = Switch.in_memory(2)
    switch.fdb.add("02:00:00:00:00:0a", "0", vlan=5)
    switch.process(1, [ethernet(GROUP, A, tag(5)), ethernet(GROUP, B)])
    assert switch.fdb.lookup(A, vlan=5).port == "0"  # type: ignore[union-attr]  # static: learning left it alone
    assert switch.fdb.flush("0") == 0
    assert len(switch.fdb) == 2
    assert switch.fdb.flush() == 1
    assert [entry.mac for entry in switch.fdb] == [A]
    assert not switch.fdb.remove(A)
    assert switch.fdb.remove(A, vlan=5)
    assert list(switch.fdb) == []


def test_a_full_table_still_takes_static_entries() -> None:
    switch = Switch.in_memory(2, capacity=1)
    switch.process(0, [ethernet(GROUP, A)])
    switch.fdb.add(B, "1")
    assert len(switch.fdb) == 2


@pytest.mark.parametrize(
    "mistake",
    [
        lambda fdb: fdb.add("nonsense", "0"),
        lambda fdb: fdb.add(GROUP, "0"),
        lambda fdb: fdb.add(0, "0"),
        lambda fdb: fdb.add(A, "0", vlan=4095),
        lambda fdb: fdb.add(A, "0", vlan=-1),
    ],
)
def test_mistakes_are_named(mistake) -> None:  # type: ignore[no-untyped-def]
    fdb = Switch.in_memory(2).fdb
    with pytest.raises(ConfigError) as caught:
        mistake(fdb)
    assert "\n" not in str(caught.value)
    assert len(fdb) == 0


@pytest.mark.parametrize("mistake", [lambda fdb: fdb.add(A, "pod9"), lambda fdb: fdb.flush("pod9")])
def test_unknown_ports_are_named(mistake) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(FastbridgeError, match="pod9"):
        mistake(Switch.in_memory(2).fdb)


def test_what_has_expired_is_not_shown() -> None:
    now = [0.0]
    switch = Switch.in_memory(2, ageing=10.0, clock=lambda: now[0])
    switch.process(0, [ethernet(GROUP, A)])
    now[0] = 9.999
    assert len(switch.fdb) == 1
    now[0] = 10.0
    assert list(switch.fdb) == []
    assert switch.fdb.lookup(A) is None
    assert switch.counters().aged == 0  # not swept yet
    switch.tick()
    assert switch.counters().aged == 1


@pytest.mark.parametrize("options", [{"ageing": -1.0}, {"capacity": 0}, {"capacity": -1}])
def test_wrong_options_are_named(options: dict) -> None:  # type: ignore[type-arg]
    with pytest.raises(ConfigError, match=next(iter(options))):
        Switch.in_memory(2, **options)


# Many entries at once, as numpy arrays.


def test_to_numpy() -> None:
    now = [100.0]
    switch = Switch.in_memory(["left", "right"], clock=lambda: now[0])
    switch.process("left", [ethernet(GROUP, A, tag(7))])
    switch.fdb.add(B, "right")
    now[0] += 2.5
    rows = switch.fdb.to_numpy()
    assert rows.dtype == FDB_DTYPE
    assert rows["mac"].tolist() == [int(B), int(A)]  # by VLAN, then MAC
    assert rows["vlan"].tolist() == [0, 7]
    assert rows["port"].tolist() == [1, 0]
    assert rows["static"].tolist() == [True, False]
    assert np.isnan(rows["age"][0]) and rows["age"][1] == 2.5
    assert len(Switch.in_memory(2).fdb.to_numpy()) == 0


def test_learn_many_is_learning() -> None:
    now = [0.0]
    switch = Switch.in_memory(["left", "middle", "right"], ageing=10.0, clock=lambda: now[0])
    switch.fdb.add(B, "right")
    macs = np.array([int(A), int(B), 0x02_00_00_00_00_0C], np.uint64)
    assert switch.fdb.learn_many(macs, "left", vlan=7) == 3
    assert switch.fdb.learn_many(macs, [0, 0, 1]) == 3
    assert switch.fdb.lookup_many(macs).tolist() == [0, 2, 1]  # B's static entry stays as it is
    assert switch.fdb.lookup_many(macs, 7).tolist() == [0, 0, 0]
    assert switch.fdb.lookup_many(macs, [7, 0, 9]).tolist() == [0, 2, -1]
    assert switch.fdb.lookup_many(macs).dtype == np.int32
    assert switch.fdb.learn_many(macs[:1], 2) == 1
    assert switch.counters().moved == 1
    assert switch.process("left", [ethernet(A, B)])[0].port == 2
    now[0] += 10.0
    assert switch.fdb.lookup_many(macs).tolist() == [-1, 2, -1]
    assert switch.fdb.learn_many([A], 0) == 1  # MacAddress is a number
    assert switch.fdb.learn_many([], 0) == 0
    assert switch.fdb.lookup_many([]).tolist() == []


def test_learn_many_says_what_was_refused() -> None:
    switch = Switch.in_memory(2, capacity=100)
    assert switch.fdb.learn_many(np.arange(1, 201) * 2, 0) == 100
    assert switch.counters().refused == 100
    assert switch.fdb.learn_many(np.arange(1, 51) * 2 + (2 << 40), 1) == 50  # another port's turn
    assert switch.counters().evicted == 50
    damped = Switch.in_memory(2, move_damping=60.0)
    assert damped.fdb.learn_many([A, B], 0) == 2
    assert damped.fdb.learn_many([A, B], 1) == 0


@given(
    st.lists(
        st.tuples(st.lists(st.integers(1, 60).map(lambda n: 2 * n), max_size=40), st.integers(0, 3), st.integers(0, 2)),
        max_size=10,
    )
)
def test_many_at_once_are_one_by_one(batches: list[tuple[list[int], int, int]]) -> None:
    """learn_many, lookup_many and to_numpy against frames, one a station, through a second switch."""
    many, single = (Switch.in_memory(4, clock=lambda: 0.0) for _ in range(2))
    macs, every = np.repeat(np.arange(1, 130), 3), np.tile(np.arange(3), 129)
    for stations, port, vlan in batches:
        many.fdb.learn_many(np.array(stations, np.int64), port, vlan)
        single.process(port, [ethernet(GROUP, mac, tag(vlan)) for mac in stations])
        assert list(many.fdb) == list(single.fdb)
        assert (many.fdb.to_numpy() == single.fdb.to_numpy()).all()
        found = [single.fdb.lookup(mac, vlan) for mac, vlan in zip(macs.tolist(), every.tolist(), strict=True)]
        assert many.fdb.lookup_many(macs, every).tolist() == [int(entry.port) if entry else -1 for entry in found]
        assert many.counters().learned == single.counters().learned
        assert many.counters().moved == single.counters().moved


@pytest.mark.parametrize(
    ("mistake", "text"),
    [
        (lambda fdb: fdb.learn_many([1.5], 0), "whole numbers, not float64"),
        (lambda fdb: fdb.learn_many(["02:00:00:00:00:01"], 0), "whole numbers"),
        (lambda fdb: fdb.learn_many([[2, 4]], 0), "one dimension"),
        (lambda fdb: fdb.learn_many([[2, 4], [6]], 0), "whole numbers"),
        (lambda fdb: fdb.learn_many(2, 0), "one dimension"),
        (lambda fdb: fdb.learn_many([2, -4], 0), "-4 is not a MAC"),
        (lambda fdb: fdb.learn_many([2, 1 << 48], 0), "not a MAC"),
        (lambda fdb: fdb.learn_many([2, 0], 0), "00:00:00:00:00:00"),
        (lambda fdb: fdb.learn_many([2, int(GROUP)], 0), "only these are learned"),
        (lambda fdb: fdb.learn_many([2, 4], [0, 9]), "no port 9"),
        (lambda fdb: fdb.learn_many([2, 4], -1), "no port -1"),
        (lambda fdb: fdb.learn_many([2, 4], "pod9"), "pod9"),
        (lambda fdb: fdb.learn_many([2, 4], [0, 1, 0]), "ports must be one value, or 2"),
        (lambda fdb: fdb.learn_many([2, 4], [0.0, 1.0]), "ports must be whole numbers"),
        (lambda fdb: fdb.learn_many([2, 4], 0, vlan=4095), "4095"),
        (lambda fdb: fdb.learn_many([2, 4], 0, vlan=[1]), "vlan must be one value, or 2"),
        (lambda fdb: fdb.lookup_many([2.0]), "whole numbers"),
        (lambda fdb: fdb.lookup_many([2], vlan=-1), "-1"),
    ],
)
def test_mistakes_with_many_are_named(mistake, text: str) -> None:  # type: ignore[no-untyped-def]
    fdb = Switch.in_memory(2).fdb
    with pytest.raises(ConfigError, match=text) as caught:
        mistake(fdb)
    assert "\n" not in str(caught.value)
    assert len(fdb) == 0


def test_a_large_fdb_is_exported_in_steps_while_it_changes() -> None:
    """A snapshot taken while another thread learns: what was there all the time is there, once."""
    switch = Switch.in_memory(4, capacity=1 << 20, ageing=None)
    first, later = np.arange(1, 100_001) * 2, np.arange(100_001, 600_001) * 2
    switch.fdb.learn_many(first, 0)
    two = threading.Event()  # snapshots

    def learn() -> None:
        *parts, last = np.array_split(later, 200)
        for part in parts:
            switch.fdb.learn_many(part, 1)
        two.wait()
        switch.fdb.learn_many(last, 1)

    learning = threading.Thread(target=learn)
    learning.start()
    snapshots = 0
    while learning.is_alive():
        if snapshots > 1:
            two.set()
        macs = switch.fdb.to_numpy()["mac"]
        assert (np.diff(macs.astype(np.int64)) > 0).all()
        assert np.isin(first, macs).all()
        snapshots += 1
    learning.join()
    assert switch.fdb.to_numpy()["mac"].tolist() == np.concatenate([first, later]).tolist()
    assert switch.fdb.flush("1") == len(later)
    assert len(switch.fdb) == len(first)


@pytest.mark.parametrize("seed", range(40))
def test_expired_entries_heard_again_while_the_table_grows_are_not_lost(seed: int) -> None:
    table, numbers, now = MacTable(65536, ageing_ms=1000), random.Random(seed), 5000
    for mac in range(1, 642):  # one more than what lets a table of 256 buckets grow
        table.learn(mac, 0, 1, 0)
    for mac in range(10_000, 10_150):  # each empties two buckets of the old table
        table.learn(mac, 0, 1, now)
        if mac % 30 == 0:
            for old in numbers.sample(range(1, 642), 150):
                table.learn(old, 0, 1, now)
    assert len(table) == table.held(1) == len(exported(FdbAccess(table)))


@pytest.mark.parametrize("ageing", [None, 1_000])
def test_a_station_that_was_heard_meanwhile_is_listed(ageing: int | None) -> None:
    """A worker's clock may be ahead of the reader's."""
    table = MacTable(capacity=8, ageing_ms=ageing)
    access = FdbAccess(table)
    access.learn_many(np.array([1, 2], np.uint64), np.array([3, 4], np.uint16), 5_001)
    assert access.rows(5_000, ageing) == [(1, 0, 3, 0), (2, 0, 4, 0)]
    assert access.rows(5_100, ageing) == [(1, 0, 3, 99), (2, 0, 4, 99)]
    assert access.rows(6_000, ageing) == [(1, 0, 3, 999), (2, 0, 4, 999)]
    assert bool(access.rows(6_001, ageing)) == (ageing is None)
