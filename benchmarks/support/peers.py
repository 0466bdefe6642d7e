"""Peers: engines measured against each other in one interleaved run, as `fastbridge compare` does it.

A pytest-benchmark round is a run of one engine's; what is claimed is the ratio by block, with its interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from work import Figures, record

from fastbridge import PrivilegeError
from fastbridge.bench import Engine, Profile, Task, compare
from fastbridge.bench.report.evidence import LoadedRun
from fastbridge.bench.report.pytest_benchmark import WHAT, WORK
from fastbridge.bench.report.rows import Row


@dataclass(frozen=True)
class Peers:
    """What was measured."""

    run: LoadedRun

    @classmethod
    def measure(cls, engines: Sequence[Engine], baseline: str, tasks: Sequence[Task]) -> Peers:
        """All tasks, on all engines; skips where there can be no lab."""
        try:
            results = compare(engines, baseline=baseline, profile=Profile("peers", tuple(tasks)))
        except PrivilegeError as error:
            pytest.skip(str(error))
        if results.interrupted:
            raise KeyboardInterrupt
        return cls(LoadedRun("", results))

    def row(self, task: str, engine: str) -> Row:
        return next(row for row in self.run.rows if (row.task, row.engine) == (task, engine))

    def found(self, task: str, engine: str) -> dict[int, float]:
        """The method's primary value, by block."""
        name = self.run.methods[task].primary
        return {
            block: findings.values[name]
            for (of, by, block), findings in self.run.found.items()
            if (of, by) == (task, engine)
        }

    def put(self, benchmark: Any, task: Task, engine: str, **more: float | int | list[float]) -> None:
        """Make a benchmark's row of an engine's runs."""
        row = self.row(task.name, engine)
        if row.unfit:
            pytest.fail(f"{engine}: {row.unfit}")
        unit = task.method.units[task.method.primary]
        figures: Figures = dict(more)
        if row.ratio is not None:
            figures[f"{task.method.primary} / {self.run.results.baseline}"] = [
                row.ratio.mean,
                row.ratio.low,
                row.ratio.high,
            ]
        if row.noise_floor is not None:
            figures["noise floor"] = row.noise_floor
        if row.dropped:
            figures["blocks left out for steal"] = row.dropped
        record(benchmark, [WORK[unit](value) for value in self.found(task.name, engine).values()], WHAT[unit], figures)
        if unit == "µs":
            benchmark.extra_info["ns"] = 1e3 * row.values[task.method.primary]
        elif row.frames_per_second:
            benchmark.extra_info.update(ns=1e9 / row.frames_per_second, mega_per_second=1e-6 * row.frames_per_second)
        benchmark.extra_info.update(
            gigabits_per_second=row.gigabits_per_second if unit != "µs" else None,
            loss_ratio=row.loss_ratio,
            cpu_machine_ns=row.cpu_machine_ns,
            cpu_switch_ns=row.cpu_switch_ns,
        )
