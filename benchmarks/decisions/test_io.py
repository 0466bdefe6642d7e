"""I/O modes side by side: small frames, TCP's 64 KB frames, and latency at low load, in interleaved blocks.

The same by hand, with more engines or methods: `fastbridge compare --engines fastbridge,fastbridge/blocks,…`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from peers import Peers
from work import Work

from fastbridge.bench import ENGINES, Task
from fastbridge.bench.methods.forwarding_rate import ForwardingRate
from fastbridge.bench.methods.latency import LatencyAtLoad
from fastbridge.bench.methods.tcp_bulk import TcpBulk
from fastbridge.switch.io_modes import IO_MODES

pytestmark = [pytest.mark.live, pytest.mark.benchmark(group="io", timer=Work.time)]

BASELINE = "fastbridge"
MODES = [BASELINE, *(f"{BASELINE}/{mode}" for mode in IO_MODES if mode != "ring")]
TASKS = (
    Task(ForwardingRate((64,), seconds=0.3), seconds=0.6),
    Task(TcpBulk(seconds=0.4), seconds=0.7),
    Task(LatencyAtLoad(1_000.0, seconds=0.3), seconds=0.7),
)


@pytest.fixture(scope="module")
def peers(request: pytest.FixtureRequest) -> Peers:
    blocks = request.config.getoption("--blocks")
    return Peers.measure([ENGINES[name] for name in MODES], BASELINE, [replace(task, blocks=blocks) for task in TASKS])


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.method.name)
@pytest.mark.parametrize("mode", MODES)
def test_io(benchmark: Any, peers: Peers, mode: str, task: Task) -> None:
    peers.put(benchmark, task, mode)
