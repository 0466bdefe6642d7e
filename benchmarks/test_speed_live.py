"""veth to veth: real frames between two pods, through fastbridge, the Linux bridge and plain Python.

A round is one trial. Its time is not the clock's but what the measured rate makes of a fixed amount of work
(100,000 frames, or a gigabyte over TCP), so that a trial's fixed length does not hide the speed, and
pytest-benchmark's own comparison and regression limits work.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from fastbridge import Lab, PrivilegeError, Topology
from fastbridge.bench import Engine, Scenario
from fastbridge.bench.engines.direct import Direct
from fastbridge.bench.engines.fastbridge import Fastbridge
from fastbridge.bench.engines.linux_bridge import LinuxBridge
from fastbridge.bench.engines.python_sockets import PythonSockets
from fastbridge.bench.machine import Layout
from fastbridge.bench.report import per_frame
from fastbridge.bench.tester import Tester as BenchTester  # pytest would collect a name that starts with Test

pytestmark = pytest.mark.live

FRAMES = 100_000
BYTES = 1_000_000_000
ROUNDS = 5
ENGINES: list[Engine] = [Fastbridge(), LinuxBridge(), PythonSockets(), Direct()]


class Work:
    """The clock of these benchmarks: time that a fixed amount of work takes at the measured rate."""

    seconds = 0.0

    @classmethod
    def time(cls) -> float:
        return cls.seconds


def name_of(engine: Engine) -> str:
    return engine.name.replace(" ", "-")


@pytest.fixture(scope="module", params=ENGINES, ids=name_of)
def tester(request: pytest.FixtureRequest) -> Iterator[BenchTester]:
    engine: Engine = request.param
    layout = Layout.of_machine()
    with ExitStack() as stack:
        try:
            lab = stack.enter_context(Lab(Topology.of(2, ipv6=None)))
        except PrivilegeError as error:
            pytest.skip(str(error))
        running = stack.enter_context(engine.attach(lab, layout.switch))
        yield stack.enter_context(BenchTester(lab, running, name=engine.name, layout=layout, joined=engine.joins))


def measure(benchmark: Any, tester: BenchTester, scenario: Scenario, work: int) -> None:
    trials = []

    def trial() -> None:
        trials.append(tester.run(scenario))
        done = trials[-1].window_frames or trials[-1].window_bytes
        Work.seconds += work * trials[-1].window_seconds / done

    benchmark.pedantic(trial, rounds=ROUNDS, warmup_rounds=1)
    counted = trials[1:] or trials  # the first was the warm-up
    if not benchmark.stats:  # None with --benchmark-disable
        return
    each = benchmark.stats.stats.median / work
    if scenario.frame_size is None:
        benchmark.extra_info.update(what="TCP payload", gigabits_per_second=8e-9 / each)
        return
    benchmark.extra_info.update(
        what="frame",
        ns=each * 1e9,
        mega_per_second=1e-6 / each,
        gigabits_per_second=(scenario.frame_size - 4) * 8e-9 / each,
        loss_ratio=sum(trial.loss_ratio or 0.0 for trial in counted) / len(counted),
        cpu_machine_ns=per_frame(counted, lambda trial: trial.cpu_machine_seconds),
        cpu_switch_ns=per_frame(counted, lambda trial: trial.cpu_switch_seconds),
    )


@pytest.mark.parametrize("size", [64, 1518], ids=["64B", "1518B"])
@pytest.mark.benchmark(group="veth to veth, one direction, unpaced (sizes with FCS)", timer=Work.time)
def test_frames(benchmark: Any, tester: BenchTester, size: int) -> None:
    measure(benchmark, tester, Scenario(f"{size} B", size), FRAMES)


@pytest.mark.parametrize("tester", [engine for engine in ENGINES if engine.joins], ids=name_of, indirect=True)
@pytest.mark.benchmark(group="veth to veth, one TCP stream, default offloads", timer=Work.time)
def test_tcp(benchmark: Any, tester: BenchTester) -> None:
    measure(benchmark, tester, Scenario("TCP bulk"), BYTES)
