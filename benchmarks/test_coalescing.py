"""Coalescing, against sending every frame by itself: one UDP flow, and frames that cannot be merged.

At the maximum offered load, where the tester may be what sets the limit: with coalescing the switch loses nothing of
what one sender can offer. So also without a sender: a ring filled while the switch is held, and how fast it is emptied.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from statistics import median
from typing import Any

import pytest
from peers import Peers
from places import SEED, compared
from work import Figures, Work, record

from fastbridge import Lab, PrivilegeError, Switch, Topology
from fastbridge.bench import ENGINES, Layout, Task
from fastbridge.bench.frames import UDP_PORT, plan
from fastbridge.bench.methods.forwarding_rate import ForwardingRate
from fastbridge.bench.offer import Stream
from fastbridge.bench.statistics import interleave

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
FRAMES = 1_900  # what a ring of two ports holds, and not quite all of it
RINGS = 4  # a block
QUIET_SECONDS = 0.02  # without a frame: the ring is empty
LEAST_SHARE = 0.5  # of the frames still to come when this process first sees some


@pytest.fixture(scope="module")
def peers(request: pytest.FixtureRequest) -> Peers:
    blocks = request.config.getoption("--blocks")
    engines = [ENGINES[way] for way in WAYS]
    return Peers.measure(engines, BASELINE, [replace(task, blocks=blocks) for task in TASKS])


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.method.subject)
@pytest.mark.parametrize("way", WAYS)
def test_maximum_offered_load(benchmark: Any, peers: Peers, way: str, task: Task) -> None:
    peers.put(benchmark, task, way)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    try:
        with Lab(Topology.of(2, ipv6=None)) as lab:
            yield lab
    except PrivilegeError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("what", STREAMS)
def test_full_ring(benchmark: Any, request: pytest.FixtureRequest, lab: Lab, what: str) -> None:
    """Nanoseconds a frame, from the first one that arrives to the last; the row is that of the default."""
    seconds: dict[str, dict[int, float]] = {way: {} for way in WAYS}
    rounds = RINGS * request.config.getoption("--blocks")
    with socket_of_everybody(lab):
        for block, order in enumerate(interleave(WAYS, rounds, SEED)):
            for way in order:
                while (each := time_a_frame(lab, STREAMS[what], coalesce=way != BASELINE)) is None:
                    pass
                seconds[way][block] = each
    ns = {way: 1e9 * median(values.values()) for way, values in seconds.items()}
    figures: Figures = {f"{way}, ns a frame": value for way, value in ns.items()}
    figures |= compared("rate / every frame by itself", seconds[BASELINE], seconds["fastbridge"])
    record(benchmark, list(seconds["fastbridge"].values()), f"ring of {what}", figures)
    benchmark.extra_info["ns"] = ns["fastbridge"]


@contextmanager
def socket_of_everybody(lab: Lab) -> Iterator[None]:
    """Where the datagrams go; nobody reads it, and its buffer is little."""
    with lab.pods[1].socket(socket.AF_INET, socket.SOCK_DGRAM, 0) as sink:
        sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        sink.bind(("", UDP_PORT))
        yield


def time_a_frame(lab: Lab, stream: Stream, coalesce: bool) -> float | None:
    """Seconds that a switch takes for each of FRAMES that wait in a ring; None: this process looked too late."""
    sender, receiver = lab.pods
    start, length = plan(stream, lab.pods).templates[0]
    layout, allowed = Layout.of_machine(), os.sched_getaffinity(0)
    switch = Switch(lab.ports, coalesce=coalesce)
    held, go = threading.Event(), threading.Event()

    def forward() -> None:
        os.sched_setaffinity(0, {layout.switch})
        held.set()
        go.wait()
        switch._dataplane.run(0)

    thread = threading.Thread(target=forward)
    thread.start()
    try:
        os.sched_setaffinity(0, {layout.sender})
        switch.fdb.add(receiver.mac, "pod2")
        with sender.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
            wire.bind((sender.interface, 0))
            for _ in range(FRAMES):
                wire.send(start[:length].ljust(length, b"\0"))
        held.wait()
        before = receiver.counters().rx_bytes
        go.set()
        seen = [(time.perf_counter(), before)]
        while time.perf_counter() - seen[-1][0] < QUIET_SECONDS:
            if (count := receiver.counters().rx_bytes) != seen[-1][1]:
                seen.append((time.perf_counter(), count))
        assert switch.counters().total.rx_missed == 0
        assert switch.counters().ports["pod2"].tx_frames == FRAMES
    finally:
        go.set()
        switch._dataplane.stop()
        thread.join()
        switch.stop()
        os.sched_setaffinity(0, allowed)
    (_, none), (began, some), (ended, everything) = seen[0], seen[1], seen[-1]
    share = (everything - some) / (everything - none)
    return (ended - began) / share / FRAMES if share > LEAST_SHARE else None
