"""Places: engines at work in labs of their own, held still but for the one being looked at."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median

import pytest
from work import Figures

from fastbridge import Lab, PrivilegeError, Topology
from fastbridge.bench import Layout, Running, parse_engines
from fastbridge.bench import Tester as BenchTester  # pytest would collect a name that starts with Test
from fastbridge.bench.engines.engine import lacks_program
from fastbridge.bench.report.statistics import ratio

SEED = 1


@dataclass(frozen=True)
class Place:
    """An engine at work in a lab of its own, and the tester around it."""

    lab: Lab
    running: Running
    tester: BenchTester

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The others' engines are still meanwhile."""
        self.running.resume()
        try:
            yield
        finally:
            self.running.pause()


@contextmanager
def places(names: Sequence[str], package: str, program: str) -> Iterator[dict[str, Place]]:
    """One for each engine; skips where the program that the tester is compared with is missing."""
    if reason := lacks_program(package, program):
        pytest.skip(reason)
    layout = Layout.of_machine()
    with ExitStack() as stack:
        found = {}
        for engine in parse_engines(",".join(names)):
            try:
                lab = stack.enter_context(Lab(Topology.of(2, ipv6=None)))
            except PrivilegeError as error:
                pytest.skip(str(error))
            running = stack.enter_context(engine.attach(lab, layout.switch))
            tester = stack.enter_context(BenchTester(lab, running, name=engine.name, layout=layout))
            running.pause()
            found[engine.name] = Place(lab, running, tester)
        yield found


def round_trip(place: Place, pings: int, seconds: float) -> float:
    """Ping's median, in µs: one every so many seconds."""
    source, target = place.lab.pods
    assert target.ipv4
    argv = ["ping", "-n", "-i", str(seconds), "-c", str(pings), str(target.ipv4.ip)]
    done = source.run(["taskset", "--cpu-list", str(Layout.of_machine().sender), *argv], timeout=10.0 + pings * seconds)
    times = [1e3 * float(number) for number in re.findall(r"time=([\d.]+) ms", done.stdout)]
    assert len(times) > 0.9 * pings, done.stdout[-200:]
    return median(times)


def compared(what: str, values: dict[int, float], others: dict[int, float]) -> Figures:
    """The mean of their ratios by block, and its 95 % interval; nothing where there is too much noise for a ratio."""
    measured = ratio(values, others, seed=SEED)
    return {} if measured is None else {what: [measured.mean, measured.low, measured.high]}
