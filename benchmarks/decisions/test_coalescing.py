"""Coalescing, against sending every frame by itself: one UDP flow, and frames that cannot be merged.

At the maximum offered load, where the tester may be what sets the limit: with coalescing the switch loses nothing of
what one sender can offer. So also without a sender: a ring filled while the switch is held, and how fast it is emptied.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import median
from typing import Any

import pytest
from full_ring import times_a_frame
from peers import Peers
from places import compared
from work import Figures, Work, record

from fastbridge.bench import ENGINES, Task
from fastbridge.bench.methods.forwarding_rate import ForwardingRate
from fastbridge.bench.tester.offer import Stream

pytestmark = [pytest.mark.live, pytest.mark.benchmark(group="coalescing", timer=Work.time)]

BASELINE = "fastbridge/no-coalesce"
WAYS = (BASELINE, "fastbridge")
TASKS = (
    Task(ForwardingRate((128,), kind="udp", seconds=0.3), seconds=0.6),
    Task(ForwardingRate((1518,), kind="udp", seconds=0.3), seconds=0.6),
    Task(ForwardingRate((64,), seconds=0.3), seconds=0.6),
)
STREAMS = {
    "128 B, UDP": Stream(0, (1,), (128,), kind="udp"),
    "1518 B, UDP": Stream(0, (1,), (1518,), kind="udp"),
    "64 B": Stream(0, (1,)),
}
RINGS = 4  # a block


@pytest.fixture(scope="module")
def peers(request: pytest.FixtureRequest) -> Peers:
    blocks = request.config.getoption("--blocks")
    engines = [ENGINES[way] for way in WAYS]
    return Peers.measure(engines, BASELINE, [replace(task, blocks=blocks) for task in TASKS])


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.method.subject)
@pytest.mark.parametrize("way", WAYS)
def test_maximum_offered_load(benchmark: Any, peers: Peers, way: str, task: Task) -> None:
    peers.put(benchmark, task, way)


@pytest.mark.parametrize("what", STREAMS)
def test_full_ring(benchmark: Any, request: pytest.FixtureRequest, what: str) -> None:
    """The row is that of the default."""
    rounds = RINGS * request.config.getoption("--blocks")
    seconds = times_a_frame([ENGINES[way] for way in WAYS], STREAMS[what], rounds)
    ns = {way: 1e9 * median(values.values()) for way, values in seconds.items()}
    figures: Figures = {f"{way}, ns a frame": value for way, value in ns.items()}
    figures |= compared("rate / every frame by itself", seconds[BASELINE], seconds["fastbridge"])
    record(benchmark, list(seconds["fastbridge"].values()), f"frame of {what}, ring full", figures)
    benchmark.extra_info["ns"] = ns["fastbridge"]
