"""A full ring: how fast a switch empties it. No sender sets the limit, as it does at the maximum offered load.

An engine is held still while frames fill its ring, and then let go on; what comes out is read off the receiving pod's
counters. Only for engines that receive by a ring of their own, of FRAMES at least.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack

from places import SEED, enter

from fastbridge import Lab
from fastbridge.bench import Engine, Testbed
from fastbridge.bench.machine.cpus import Layout
from fastbridge.bench.report.statistics import interleave
from fastbridge.bench.tester.frames import UDP_PORT, plan
from fastbridge.bench.tester.offer import Offer, Phase, Stream

FRAMES = 1_900  # what a ring of 2,048 slots holds, and not quite all of it
QUIET_SECONDS = 0.02  # without a frame: the ring is empty
PATIENCE = 1.0  # seconds for the first frame: an engine that was held still waits for its CPU, too
LEAST_SHARE = 0.5  # of the frames still to come when this process first sees some
THERE, BACK = Stream(0, (1,)), Stream(1, (0,))


def times_a_frame(engines: Sequence[Engine], stream: Stream, rounds: int) -> dict[str, dict[int, float]]:
    """Seconds by engine and round, in interleaved order; skips where there can be no lab."""
    layout, allowed = Layout.of_machine(), os.sched_getaffinity(0)
    found: dict[str, dict[int, float]] = {engine.name: {} for engine in engines}
    with ExitStack() as stack:
        held = {engine.name: held_still(stack, engine) for engine in engines}
        try:
            os.sched_setaffinity(0, {layout.sender})
            for number, order in enumerate(interleave(list(found), rounds, SEED)):
                for name in order:
                    while (seconds := _time_a_frame(held[name], stream)) is None:
                        pass
                    found[name][number] = seconds
        finally:
            os.sched_setaffinity(0, allowed)
    return found


def held_still(stack: ExitStack, engine: Engine) -> Testbed:
    """An engine in a lab of its own, paused, that knows both pods; skips where there can be no lab."""
    bed = enter(stack, Testbed(engine))
    sink = stack.enter_context(bed.lab.pods[1].socket(socket.AF_INET, socket.SOCK_DGRAM, 0))
    sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)  # where datagrams go; nobody reads them
    sink.bind(("", UDP_PORT))
    for stream in THERE, BACK:
        _send(bed.lab, stream, 1)
    time.sleep(QUIET_SECONDS)
    bed.running.pause()
    return bed


def _time_a_frame(bed: Testbed, stream: Stream) -> float | None:
    """Seconds, from the first frame that comes out to the last; None: this process looked too late."""
    receiver = bed.lab.pods[1]
    _send(bed.lab, stream, FRAMES)
    before = receiver.counters()
    seen = [(time.perf_counter(), before.rx_bytes)]
    with bed.alone():
        while (now := time.perf_counter()) - seen[-1][0] < (QUIET_SECONDS if len(seen) > 1 else PATIENCE):
            if (count := receiver.counters().rx_bytes) != seen[-1][1]:
                seen.append((now, count))
    assert len(seen) > 1, f"nothing came out of the ring in {PATIENCE:g} s"
    after = receiver.counters()
    (_, none), (began, some), (ended, everything) = seen[0], seen[1], seen[-1]
    arrived = Offer((stream,), (Phase(1.0),)).apart(after.rx_frames - before.rx_frames, everything - none)[0]
    assert arrived == FRAMES, f"{arrived} of {FRAMES} frames came out of the ring"
    share = (everything - some) / (everything - none)
    return (ended - began) / share / FRAMES if share > LEAST_SHARE else None


def _send(lab: Lab, stream: Stream, count: int) -> None:
    sender = lab.pods[stream.source]
    start, length = plan(stream, lab.pods).templates[0]
    with sender.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
        wire.bind((sender.interface, 0))
        for _ in range(count):
            wire.send(start[:length].ljust(length, b"\0"))
