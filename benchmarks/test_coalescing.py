"""Coalescing, against sending every frame by itself: one UDP flow at saturation, and frames that cannot be merged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from peers import Peers
from work import Work

from fastbridge.bench import ENGINES, Task
from fastbridge.bench.methods.forwarding_rate import ForwardingRate

pytestmark = [pytest.mark.live, pytest.mark.benchmark(group="coalescing", timer=Work.time)]

BASELINE = "fastbridge/no-coalesce"
TASKS = (
    Task(ForwardingRate((128,), kind="udp", seconds=0.3), seconds=0.6),
    Task(ForwardingRate((1518,), kind="udp", seconds=0.3), seconds=0.6),
    Task(ForwardingRate((64,), seconds=0.3), seconds=0.6),
)


@pytest.fixture(scope="module")
def peers(request: pytest.FixtureRequest) -> Peers:
    blocks = request.config.getoption("--blocks")
    engines = [ENGINES[BASELINE], ENGINES["fastbridge"]]
    return Peers.measure(engines, BASELINE, [replace(task, blocks=blocks) for task in TASKS])


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.method.subject)
@pytest.mark.parametrize("way", [BASELINE, "fastbridge"])
def test_coalescing(benchmark: Any, peers: Peers, way: str, task: Task) -> None:
    peers.put(benchmark, task, way)
