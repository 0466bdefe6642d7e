"""veth to veth: the quick profile's workloads, engine after engine.

A round is one run of a method. Its time is not the clock's but what the method found makes of a fixed amount of
work (100,000 frames or requests, a gigabyte over TCP, one frame's way), so that a trial's fixed length does not hide
the speed, and pytest-benchmark's own comparison and regression limits work.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from statistics import median
from typing import Any

import pytest
from places import enter
from work import Work

from fastbridge.bench import Engine, Findings, Task, Testbed, Trial
from fastbridge.bench.methods.measurer import Recorder
from fastbridge.bench.methods.patterns import loss_of
from fastbridge.bench.profiles import QUICK
from fastbridge.bench.report.pytest_benchmark import WHAT, WORK
from fastbridge.bench.report.rows import per_frame

pytestmark = pytest.mark.live

ROUNDS = 5
TASKS = [
    pytest.param(task, marks=pytest.mark.benchmark(group=f"veth: {task.name}", timer=Work.time))
    for task in QUICK.tasks
    if task.method.ports == 2  # each is one trial a run
]


@pytest.fixture(scope="module")
def bed(engine: Engine) -> Iterator[Testbed]:
    if reason := engine.missing():
        pytest.skip(f"{engine.name}: {reason}")
    with ExitStack() as stack:
        yield enter(stack, Testbed(engine))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name.replace(", ", "-").replace(" ", "-"))
def test_speed(benchmark: Any, bed: Testbed, engine: Engine, task: Task) -> None:
    recorder = Recorder(bed)
    found: list[Findings] = []
    primary = task.method.primary
    unit = task.method.units[primary]

    def one() -> None:
        found.append(task.method.run(recorder))
        Work.seconds += WORK[unit](found[-1].values[primary])

    benchmark.pedantic(one, rounds=ROUNDS, warmup_rounds=1)
    if not benchmark.stats:  # with --benchmark-disable
        return
    trials = recorder.trials[1:]  # the first was the warm-up
    benchmark.extra_info.update(what=WHAT[unit], **costs(trials))
    if unit == "µs":  # the rate is no result, it was asked for
        values = {name: median(each.values[name] for each in found[1:]) for name in found[0].values}
        benchmark.extra_info["ns"] = 1e3 * values[primary]
        benchmark.extra_info["figures"] = {f"{name} {task.method.units[name]}": value for name, value in values.items()}
    elif unit == "transactions/s":
        rate = median(each.values[primary] for each in found[1:])
        benchmark.extra_info.update(ns=1e9 / rate, mega_per_second=1e-6 * rate)
    else:
        benchmark.extra_info.update(rates(trials))


def costs(trials: list[Trial]) -> dict[str, float | None]:
    """Loss, and CPU time a frame: of TCP neither is known."""
    losses = [loss_of(trial) for trial in trials if trial.loss_ratio is not None]
    return {
        "loss_ratio": sum(losses) / len(losses) if losses else None,
        "cpu_machine_ns": per_frame(trials, lambda trial: trial.cpu_machine_seconds),
        "cpu_switch_ns": per_frame(trials, lambda trial: trial.cpu_switch_seconds),
    }


def rates(trials: list[Trial]) -> dict[str, float]:
    """Those of the windows."""
    found = {"gigabits_per_second": median(trial.gigabits_per_second for trial in trials)}
    if frames := [trial.frames_per_second for trial in trials if trial.frames_per_second]:
        found |= {"ns": 1e9 / median(frames), "mega_per_second": 1e-6 * median(frames)}
    return found
