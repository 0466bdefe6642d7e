"""The core in memory: the FDB, and a frame's way through parse, classify and enqueue. No privileges needed."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from fastbridge import Switch
from fastbridge.core.fdb import FdbAccess
from fastbridge.core.mac_table import MacTable
from fastbridge.switch.fdb import Fdb

PROBES = 1 << 20  # look-ups a round, in random order: fewer would leave a large table's probed part in the cache
ROUNDS = 20
BATCH = 64
REPLAYS = 1000  # batches a round


def note(benchmark: Any, what: str, count: int) -> None:
    """Put the cost of each of `count` things a round into extra_info."""
    if benchmark.stats:  # None with --benchmark-disable
        each = benchmark.stats.stats.median / count
        benchmark.extra_info.update(what=what, ns=each * 1e9, mega_per_second=1e-6 / each)


def random_keys(entries: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Distinct unicast MAC addresses; random, as a table that was not filled in order."""
    generator = np.random.default_rng(entries)
    keys = np.unique(generator.integers(1, 1 << 40, size=2 * entries, dtype=np.uint64))
    return generator.permutation(keys)[:entries]


@pytest.mark.parametrize("entries", [1_000, 10_000, 100_000, 1_000_000])
@pytest.mark.benchmark(group="FDB: look-up in batches")
def test_look_up(benchmark: Any, entries: int) -> None:
    table, keys = MacTable(entries, None), random_keys(entries)
    FdbAccess(table).learn_many(keys, np.zeros(entries, np.uint16), 1)
    assert len(table) == entries
    probes = np.random.default_rng(1).choice(keys, PROBES)
    ports = benchmark.pedantic(FdbAccess(table).lookup_many, args=(probes, 2), rounds=ROUNDS, warmup_rounds=2)
    assert not np.asarray(ports).any()
    note(benchmark, "look-up", PROBES)


@pytest.mark.parametrize("entries", [1_000, 1_000_000])
@pytest.mark.benchmark(group="FDB: look-up in batches")
def test_look_up_dict(benchmark: Any, entries: int) -> None:
    """The yardstick: what a Python programmer has."""
    keys = random_keys(entries)
    table = dict.fromkeys(keys.tolist(), 0)
    probes = np.random.default_rng(1).choice(keys, PROBES).tolist()
    benchmark.pedantic(lambda: [table[key] for key in probes], rounds=5, warmup_rounds=1)
    note(benchmark, "look-up", PROBES)


@pytest.mark.parametrize("entries", [1_000, 10_000, 100_000, 1_000_000])
@pytest.mark.benchmark(group="FDB: learn")
def test_learn_new(benchmark: Any, entries: int) -> None:
    keys, ports = random_keys(entries), np.zeros(entries, np.uint16)

    def setup() -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (FdbAccess(MacTable(entries, None)),), {}

    benchmark.pedantic(lambda fdb: fdb.learn_many(keys, ports, 1), setup=setup, rounds=5, warmup_rounds=1)
    note(benchmark, "new entry", entries)


@pytest.mark.benchmark(group="FDB: learn")
def test_learn_known(benchmark: Any) -> None:
    keys, ports = random_keys(1_000), np.zeros(1_000, np.uint16)
    fdb = FdbAccess(MacTable(1_000, None))
    benchmark.pedantic(lambda: fdb.learn_many(keys, ports, 1), rounds=200, warmup_rounds=10)
    note(benchmark, "known source", 1_000)


@pytest.mark.parametrize("batch", [64, 256], ids="batches of {}".format)
@pytest.mark.benchmark(group="FDB: growth")
def test_growth(benchmark: Any, batch: int) -> None:
    """The longest any batch of new entries takes on the way to a million: no growth of the table stalls the data path.

    A batch counts as its shortest of 5 times from empty, or what else the machine does would be measured.
    """
    keys, ports = random_keys(1 << 20), np.zeros(batch, np.uint16)
    shortest = np.full(len(keys) // batch, np.inf)

    def grow() -> None:
        table, clock = MacTable(len(keys), None), time.perf_counter_ns
        fdb = FdbAccess(table)
        for n in range(len(shortest)):
            new = keys[n * batch : (n + 1) * batch]
            start = clock()
            fdb.learn_many(new, ports, 1)
            shortest[n] = min(shortest[n], clock() - start)
        assert table.memory <= 64 << 20

    benchmark.pedantic(grow, rounds=5)
    if benchmark.stats:
        benchmark.extra_info.update(what="longest batch", ns=shortest.max(), median_ns=np.median(shortest))


def live_fdb(entries: int) -> tuple[Fdb, np.ndarray[Any, np.dtype[np.uint64]]]:
    """An FDB that is full, and its MAC addresses."""
    keys = random_keys(entries) & np.uint64(0xFEFFFFFFFFFF)
    switch = Switch.in_memory(4, capacity=entries, ageing=None)
    switch.fdb.learn_many(keys, 0)
    return switch.fdb, keys


@pytest.mark.parametrize("entries", [1_000, 1_000_000])
@pytest.mark.benchmark(group="FDB: many at once, by Switch.fdb")
def test_many_look_ups(benchmark: Any, entries: int) -> None:
    fdb, keys = live_fdb(entries)
    probes = np.random.default_rng(1).choice(keys, PROBES)
    benchmark.pedantic(fdb.lookup_many, args=(probes,), rounds=5, warmup_rounds=1)
    note(benchmark, "look-up", PROBES)


@pytest.mark.parametrize("entries", [1_000, 1_000_000])
@pytest.mark.benchmark(group="FDB: many at once, by Switch.fdb")
def test_many_learned(benchmark: Any, entries: int) -> None:
    """All known already: what remains is the checks of the arguments, and the locks."""
    fdb, keys = live_fdb(entries)
    benchmark.pedantic(fdb.learn_many, args=(keys, 0), rounds=5, warmup_rounds=1)
    note(benchmark, "known source", entries)


@pytest.mark.parametrize("entries", [1_000, 1_000_000])
@pytest.mark.benchmark(group="FDB: many at once, by Switch.fdb")
def test_export(benchmark: Any, entries: int) -> None:
    fdb, _ = live_fdb(entries)
    benchmark.pedantic(fdb.to_numpy, rounds=5, warmup_rounds=1)
    note(benchmark, "entry exported", entries)


def frame(destination: int, source: int, *, tag: bytes = b"", size: int = 60) -> bytes:
    head = destination.to_bytes(6, "big") + source.to_bytes(6, "big") + tag + b"\x88\xb5"
    return head.ljust(size, b"\0")


A, B, GROUP = 0x02_00_00_00_00_01, 0x02_00_00_00_00_02, 0x01_00_5E_00_00_01
CASES = {
    "known unicast": frame(B, A),
    "known unicast, tagged": frame(B, A, tag=b"\x81\x00\x00\x07"),
    "flooded to 3": frame(GROUP, A),
    "filtered": frame(A, A),
    "bad source": frame(B, GROUP),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.benchmark(group="one frame through the core (parse, learn, look up, enqueue)")
def test_classify(benchmark: Any, case: str) -> None:
    switch = Switch.in_memory(4)
    for vlan in (b"", b"\x81\x00\x00\x07"):
        switch.process(1, [frame(A, B, tag=vlan)])
    arguments = (0, [CASES[case]] * BATCH, switch._dataplane.now(), REPLAYS)
    benchmark.pedantic(switch._memory.replay, args=arguments, rounds=ROUNDS, warmup_rounds=2)
    note(benchmark, "frame", BATCH * REPLAYS)


@pytest.mark.benchmark(group="one frame through the core (parse, learn, look up, enqueue)")
def test_process_from_python(benchmark: Any) -> None:
    """What a user of Switch.in_memory() gets, bytes objects in and out."""
    switch = Switch.in_memory(4)
    switch.process(1, [frame(A, B)])
    frames = [frame(B, A)] * BATCH
    benchmark.pedantic(switch.process, args=(0, frames), rounds=ROUNDS, iterations=100, warmup_rounds=2)
    note(benchmark, "frame", BATCH)
