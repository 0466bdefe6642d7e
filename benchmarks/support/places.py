"""Places: engines at work in labs of their own, held still but for the one being looked at."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from statistics import median

import pytest
from work import Figures

from fastbridge import PrivilegeError
from fastbridge.bench import Testbed
from fastbridge.bench.engines import parse_engines
from fastbridge.bench.engines.engine import lacks_program
from fastbridge.bench.machine.cpus import Layout
from fastbridge.bench.report.statistics import ratio

SEED = 1


def enter(stack: ExitStack, bed: Testbed) -> Testbed:
    """The testbed, until `stack` is closed; skips where there can be no lab."""
    try:
        return stack.enter_context(bed)
    except PrivilegeError as error:
        pytest.skip(str(error))


@contextmanager
def places(names: Sequence[str], package: str, program: str) -> Iterator[dict[str, Testbed]]:
    """One for each engine; skips where the program that the tester is compared with is missing."""
    if reason := lacks_program(package, program):
        pytest.skip(reason)
    with ExitStack() as stack:
        found: dict[str, Testbed] = {}
        for engine in parse_engines(",".join(names)):
            bed = found[engine.name] = enter(stack, Testbed(engine))
            bed.running.pause()
        yield found


def round_trip(place: Testbed, pings: int, seconds: float) -> float:
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
