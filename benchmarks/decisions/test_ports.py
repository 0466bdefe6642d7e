"""Many ports: 1,500 pods on one switch, where the Linux bridge ends at 1,023. Takes a minute, and 1 GB.

The pods speak IPv4 only, so that idle is idle: with IPv6 every pod solicits routers, at first every few seconds, and
each such frame is flooded to 1,499 others.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastbridge import Lab, PrivilegeError, Switch, Topology

pytestmark = [pytest.mark.live, pytest.mark.benchmark(group="many ports")]

PODS, PAIRS, IDLE_SECONDS = 1_500, 300, 10.0


def plan() -> Topology:
    return Topology.of(PODS, ipv6=None)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    try:
        with Lab(plan()) as made:
            yield made
    except PrivilegeError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def switch(lab: Lab) -> Iterator[Switch]:
    with Switch(lab.ports) as made:
        yield made


def resident_mb() -> float:
    """This process's memory, the mapped rings included."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def note(benchmark: Any, what: str, **figures: float) -> None:
    """Figures that stand by themselves, the load average of the machine among them."""
    if benchmark.stats:
        load = {"load average": os.getloadavg()[0]}
        benchmark.extra_info.update(what=what, figures={**figures, **load})


def test_lab(benchmark: Any, lab: Lab) -> None:
    """A second lab of as many pods, beside the one that the others use; its end is not timed."""
    made: list[Lab] = []
    try:
        benchmark.pedantic(lambda: made.append(Lab(plan())), rounds=1)
    finally:
        for second in made:
            second.close()
    if benchmark.stats:
        note(benchmark, "lab", seconds=benchmark.stats.stats.median, pods=PODS)
        assert benchmark.stats.stats.median <= 20


def test_open(benchmark: Any, lab: Lab) -> None:
    opened: list[Switch] = []
    before = resident_mb()
    try:
        benchmark.pedantic(lambda: opened.append(Switch(lab.ports)), rounds=1)
        grown = resident_mb() - before
    finally:
        start = time.perf_counter()
        for switch in opened:
            switch.stop()
    if benchmark.stats:
        seconds = {"seconds": benchmark.stats.stats.median, "seconds to close": time.perf_counter() - start}
        note(benchmark, "switch", **seconds, MB=grown, process_MB=before + grown)
        assert before + grown <= 2048


def test_sampled_pings(benchmark: Any, lab: Lab, switch: Switch) -> None:
    """Each pair's first ping, ARP included: one frame to everybody, and three to one port."""
    rng, rtts, before = random.Random(1), [], switch.counters().total
    pairs = iter([rng.sample(lab.pods, 2) for _ in range(PAIRS)])

    def ping() -> None:
        one, other = next(pairs)
        rtts.extend(one.ping(other, timeout=2.0).rtts)

    benchmark.pedantic(ping, rounds=PAIRS)
    if not benchmark.stats:
        return
    after = switch.counters().total
    rtts.sort()
    copies = after.tx_frames + sum(after.tx_dropped.values()) - before.tx_frames - sum(before.tx_dropped.values())
    figures = {"pings answered": len(rtts), "of": PAIRS, "median RTT ms": rtts[len(rtts) // 2] * 1e3}
    lost = {"missed": after.rx_missed, "tx dropped": sum(after.tx_dropped.values())}
    note(benchmark, "ping", **figures, **{"longest RTT ms": rtts[-1] * 1e3}, copies=copies, **lost)
    assert len(rtts) == PAIRS
    assert copies == after.forwarded - before.forwarded + (after.flooded - before.flooded) * (PODS - 1)


@pytest.mark.parametrize("down", [0, 500], ids="{} ports down".format)
def test_idle(benchmark: Any, lab: Lab, switch: Switch, down: int) -> None:
    """The CPU time of the whole process, of one CPU, while nothing is said."""
    for port in lab.ports[:down]:
        port.set_down()
    time.sleep(3.0)  # the pods say good-bye
    used: list[float] = []

    def rest() -> None:
        before, start = time.process_time(), time.perf_counter()
        time.sleep(IDLE_SECONDS)
        used.append((time.process_time() - before) / (time.perf_counter() - start))

    benchmark.pedantic(rest, rounds=1)
    if benchmark.stats:
        note(benchmark, "idle", **{"CPU %": 100 * used[0], "ports down": sum(p.state == "down" for p in switch.ports)})
        assert used[0] <= 0.02
