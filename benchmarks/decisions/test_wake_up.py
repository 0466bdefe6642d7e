"""Waking up: what a frame waits for a switch that sleeps, and what is left of it while the switch polls.

A ping every 5 ms, each engine in turn: `fastbridge` has gone to sleep meanwhile, `fastbridge/busy-poll` never does.
"""

from __future__ import annotations

from statistics import median
from typing import Any

import pytest
from places import SEED, compared, places, round_trip
from work import Figures, Work, record

from fastbridge.bench.report.statistics import interleave

pytestmark = [pytest.mark.live, pytest.mark.benchmark(group="wake-up", timer=Work.time)]

BASELINE = "linux-bridge"
ENGINES = (BASELINE, "fastbridge", "fastbridge/busy-poll", "direct")
PINGS, EVERY = 100, 0.005


def test_ping(benchmark: Any, request: pytest.FixtureRequest) -> None:
    trips: dict[str, dict[int, float]] = {name: {} for name in ENGINES}
    with places(ENGINES, "iputils-ping", "ping") as found:
        for block, order in enumerate(interleave(ENGINES, request.config.getoption("--blocks"), SEED)):
            for name in order:
                with found[name].alone():
                    trips[name][block] = round_trip(found[name], PINGS, EVERY)
    figures: Figures = {f"{name}, µs": median(values.values()) for name, values in trips.items()}
    for name in ENGINES[1:]:
        figures |= compared(f"{name} / {BASELINE}", trips[name], trips[BASELINE])
    record(benchmark, [trip * 1e-6 for trip in trips["fastbridge/busy-poll"].values()], "ping, busy polling", figures)
