"""Two independent checks: does the tester agree with programs that it shares no code with?

NOTES.md has figures, and what they mean. Nothing here fails because a machine is slow or noisy: what is asserted
is no more than that the best blocks of both are of the same size.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from statistics import median
from typing import Any

import pytest
from places import SEED, compared, places, round_trip
from work import Figures, Work, record

from fastbridge.bench import Testbed
from fastbridge.bench.machine.child import Child
from fastbridge.bench.machine.cpus import Layout
from fastbridge.bench.methods.forwarding_rate import ForwardingRate
from fastbridge.bench.methods.latency import LatencyAtLoad
from fastbridge.bench.report.statistics import interleave
from fastbridge.bench.tester.frames import ETHERTYPE

pytestmark = [pytest.mark.live, pytest.mark.benchmark(group="agreement", timer=Work.time)]

ENGINES = ("direct", "linux-bridge", "fastbridge")
BLOCKS = 6
SECONDS = 0.4  # of a trial
PATIENCE, WARM_UP = 10.0, 0.1
PINGS = 300
SANE = 3.0  # between the best blocks: a factor beyond which one of the two measures something else
# A frame may find a switch asleep at 1,000/s; at one every 25 us it finds one that spins for 50 awake, and no queue.
IDLE, AWAKE = LatencyAtLoad(1_000.0, seconds=SECONDS), LatencyAtLoad(40_000.0, seconds=SECONDS)


def test_forwarding_rate(benchmark: Any) -> None:
    """The tester's against trafgen's: the same frames, as fast as each can, counted by the receiving interface.

    The bridge works on the sender's CPU, so each rate is that of a sender and the bridge together; what the bridge
    adds to a frame, beyond the direct pair, is the bridge's alone, whoever sends.
    """
    senders = {"tester": own_rate, "trafgen": trafgen_rate}
    ways = {f"{engine}, {sender}": (engine, sender) for engine in ENGINES[:2] for sender in senders}
    rates: dict[tuple[str, str], dict[int, float]] = {way: {} for way in ways.values()}
    with places(ENGINES[:2], "netsniff-ng", "trafgen") as found:
        for block, order in enumerate(interleave(list(ways), BLOCKS, SEED)):
            for engine, sender in map(ways.__getitem__, order):
                with found[engine].alone():
                    rates[engine, sender][block] = senders[sender](found[engine])
    added = {
        sender: {
            block: 1e9 / rate - 1e9 / rates["direct", sender][block]
            for block, rate in rates["linux-bridge", sender].items()
        }
        for sender in senders
    }
    figures: Figures = {
        f"{engine}, {sender}, frames/s": round(median(values.values())) for (engine, sender), values in rates.items()
    }
    for engine in ENGINES[:2]:
        figures |= compared(f"{engine}, tester / trafgen", rates[engine, "tester"], rates[engine, "trafgen"])
    figures |= {f"ns the bridge adds, {sender}": median(values.values()) for sender, values in added.items()}
    figures |= compared("ns the bridge adds, tester / trafgen", added["tester"], added["trafgen"])
    own, theirs = (rates["linux-bridge", sender].values() for sender in senders)
    record(benchmark, [1 / rate for rate in own], "frame over the Linux bridge", with_load(figures))
    assert 1 / SANE < max(own) / max(theirs) < SANE


def own_rate(place: Testbed) -> float:
    """The tester's."""
    return ForwardingRate(seconds=SECONDS).run(place).values["frmol"]


def trafgen_rate(place: Testbed) -> float:
    """Frames a second that trafgen (of Debian's netsniff-ng) gets through, by its mapped ring: its fastest way."""
    source, target = place.lab.pods
    header = target.mac.packed + source.mac.packed + ETHERTYPE
    frame = f"{{ {', '.join(map(str, header))}, fill(0, 46) }}"
    argv = ["trafgen", "--dev", source.interface, "--cpus", "1", "--no-sock-mem", "--no-cpu-stats", frame]
    before = target.counters().rx_frames
    with at_work(Child(source.popen, argv, name="trafgen", cpu=Layout.of_machine().sender)) as sender:
        deadline = time.monotonic() + PATIENCE
        while target.counters().rx_frames == before:
            sender.check()
            assert time.monotonic() < deadline, "nothing of trafgen's arrives"
            time.sleep(0.01)
        time.sleep(WARM_UP)
        began, first = time.monotonic(), target.counters()
        time.sleep(SECONDS)
        ended, last = time.monotonic(), target.counters()
        sender.check()
    frames = last.rx_frames - first.rx_frames
    assert last.rx_bytes - first.rx_bytes == 60 * frames, "not the frames that trafgen was to send"
    return frames / (ended - began)


@contextmanager
def at_work(program: Child) -> Iterator[Child]:
    """Ends it with all that it has started: trafgen sends from a child of its own, which it waits for."""
    try:
        yield program
    finally:
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(program.process.pid, signal.SIGINT)
            program.process.wait(PATIENCE)
        program.stop()


def test_latency(benchmark: Any) -> None:
    """The tester's, one way, against ping's, there and back, a thousand times a second.

    Both clocks start in the sender's user space and stop when the kernel takes the frame from the pod's interface,
    so what a switch adds to a ping, beyond the direct pair, is what it adds to two ways. A switch that sleeps is woken
    by the request. The answer comes while it is awake, but on a CPU that was asleep a moment ago: the second way adds
    no less than one in a row of many (awake), and no more than the first did (idle).
    """
    idle, awake, trips = by_block(), by_block(), by_block()
    with places(ENGINES, "iputils-ping", "ping") as found:
        for block, order in enumerate(interleave(ENGINES, BLOCKS, SEED)):
            for name in order:
                with found[name].alone():
                    tester = found[name].tester
                    idle[name][block] = IDLE.run(tester).values["p50"]
                    trips[name][block] = round_trip(found[name], PINGS, 0.001)
                    awake[name][block] = AWAKE.run(tester).values["p50"]
    figures: Figures = {}
    for name in ENGINES:
        for way, values in {"idle": idle, "awake": awake, "ping": trips}.items():
            figures[f"{name}, µs {way}"] = median(values[name].values())
        if name != "direct":
            once, again = added_to(idle, name), added_to(awake, name)
            least = {n: trips["direct"][n] + once[n] + again[n] for n in once}
            most = {n: trips["direct"][n] + 2 * once[n] for n in once}
            figures |= compared(f"{name}, ping / expected, second way awake", trips[name], least)
            figures |= compared(f"{name}, ping / expected, second way as the first", trips[name], most)
        best_ping, best_way = min(trips[name].values()), min(idle[name].values())
        assert best_way / SANE < best_ping < SANE * (2 * best_way + min(trips["direct"].values()))
    samples = [trip * 1e-6 for trip in trips["linux-bridge"].values()]
    record(benchmark, samples, "ping over the Linux bridge", with_load(figures))


def by_block() -> dict[str, dict[int, float]]:
    return {name: {} for name in ENGINES}


def added_to(values: dict[str, dict[int, float]], name: str) -> dict[int, float]:
    """By an engine, beyond what the direct pair takes."""
    return {block: value - values["direct"][block] for block, value in values[name].items()}


def with_load(figures: Figures) -> Figures:
    """The machine's load beside them: on a busy one they say little."""
    return {**figures, "load average": os.getloadavg()[0]}
