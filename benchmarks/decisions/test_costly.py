"""A pod that is expensive to send to, as by the packet sockets of a monitor: what the others' pings cost beside it.

One pod broadcasts; every copy for the expensive one costs its sender milliseconds. With the Linux bridge, the control,
the broadcaster pays, within its own call; in one process all could wait. Each in turn, with and without it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any

import pytest
from arp_parts import percentile
from costly import broadcasting, costly
from places import SEED, compared, enter
from work import Figures, Work, record

from fastbridge import Topology
from fastbridge.bench import Testbed
from fastbridge.bench.engines import parse_engines
from fastbridge.bench.machine.cpus import Layout
from fastbridge.bench.report.statistics import interleave
from fastbridge.lab.pods import Pod

pytestmark = [pytest.mark.live, pytest.mark.benchmark(group="a costly pod", timer=Work.time)]

BASELINE = "linux-bridge"
ENGINES = (BASELINE, "fastbridge")
SOCKETS, RATE = (
    200,
    1000.0,
)  # some 2 ms a frame for who sends it; frames a second, which ask for more time than there is
WARM_UP, PINGS, EVERY = 100, 200, 0.005  # pings; seconds


@contextmanager
def on(cpu: int) -> Iterator[None]:
    """This thread, and those that it starts meanwhile."""
    before = os.sched_getaffinity(thread := threading.get_native_id())
    os.sched_setaffinity(thread, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(thread, before)


class Trials:
    """What the pings of one engine took, with the costly pod and without."""

    def __init__(self) -> None:
        self.medians: dict[bool, dict[int, float]] = {True: {}, False: {}}  # seconds, by block
        self.slowest: dict[bool, list[float]] = {True: [], False: []}  # the 99th percentiles, in seconds
        self.unanswered = {True: 0, False: 0}

    def take(self, block: int, pods: tuple[Pod, ...], beside: bool) -> None:
        one, two, busy, dear = pods
        layout = Layout.of_machine()
        with ExitStack() as stack:
            if beside:
                stack.enter_context(costly(dear, SOCKETS))
            with on(layout.sender):
                stack.enter_context(broadcasting(busy, RATE))
            stack.enter_context(on(layout.receiver))
            one.ping(two, count=WARM_UP, interval=EVERY)
            pings = one.ping(two, count=PINGS, interval=EVERY)
        assert pings.rtts, "no ping was answered"
        self.medians[beside][block] = median(pings.rtts)
        self.slowest[beside].append(percentile(list(pings.rtts), 0.99))
        self.unanswered[beside] += pings.sent - pings.received


def test_pings_beside_a_costly_pod(benchmark: Any, request: pytest.FixtureRequest) -> None:
    trials = {name: Trials() for name in ENGINES}
    with ExitStack() as stack:
        beds = {}
        for engine in parse_engines(",".join(ENGINES)):
            beds[engine.name] = enter(stack, Testbed(engine, topology=Topology.of(4, ipv6=None)))
            beds[engine.name].running.pause()
        for block, order in enumerate(interleave(ENGINES, request.config.getoption("--blocks"), SEED)):
            for name in order:
                with beds[name].alone():
                    for beside in (False, True) if block % 2 else (True, False):
                        trials[name].take(block, tuple(beds[name].lab), beside)
    figures: Figures = {}
    for name, trial in trials.items():
        for beside, words in (False, "without"), (True, "beside it"):
            figures[f"{name} {words}, ms"] = 1e3 * median(trial.medians[beside].values())
            figures[f"{name} {words}, ms p99"] = 1e3 * median(trial.slowest[beside])
            figures[f"{name} {words}, unanswered"] = trial.unanswered[beside]
        figures |= compared(f"{name} beside / without", trial.medians[True], trial.medians[False])
    rounds = list(trials["fastbridge"].medians[True].values())
    record(benchmark, rounds, f"ping beside a pod of {SOCKETS} packet sockets, {RATE:,.0f} broadcasts/s", figures)
