"""Results, flattened.

Records for charts, one a trial or a row: plain dictionaries of numbers to draw and of texts to hover. Nothing is
computed here that `report` does not compute for the terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from fastbridge.bench.machine.likeness import described, differences
from fastbridge.bench.methods import Findings, Method
from fastbridge.bench.results.results import Results, Run, TaskRecord
from fastbridge.bench.tester.trial import Trial
from fastbridge.errors import BenchError

from . import wording
from .rows import Row, findings, flags_of, method_of, rows, undisturbed

Record = dict[str, Any]


@dataclass(frozen=True)
class Source:
    """One run of the bench with everything that is computed from it, once."""

    label: str  #: empty if it is the only one
    results: Results

    @cached_property
    def rows(self) -> list[Row]:
        """All rows of its report."""
        return rows(self.results)

    @cached_property
    def methods(self) -> Mapping[str, Method]:
        """By task."""
        return {task.name: method_of(task) for task in self.results.tasks}

    @cached_property
    def found(self) -> Mapping[tuple[str, str, int], Findings]:
        """What every readable run shows, by task, engine and block."""
        tasks = {task.name: task for task in self.results.tasks}
        found = {}
        for run in self.results.runs:
            if run.unfinished is None:
                try:
                    found[run.task, run.engine, run.block] = findings(run, tasks[run.task])
                except BenchError:  # the row says so
                    continue
        return found

    def tasks(self, *methods: str) -> list[TaskRecord]:
        """Those of these methods that have any row."""
        shown = {row.task for row in self.rows}
        return [task for task in self.results.tasks if task.method in methods and task.name in shown]

    def rows_of(self, task: str) -> list[Row]:
        """Its rows, engines in order, without the control's: a chart has every engine once."""
        return [row for row in self.rows if row.task == task and row.engine != self.results.control]

    def runs_of(self, task: str) -> list[Run]:
        """Its readable runs, without the control's."""
        return [
            run
            for run in self.results.runs
            if run.task == task and run.engine != self.results.control and (task, run.engine, run.block) in self.found
        ]

    @cached_property
    def _left_out(self) -> set[tuple[str, str, int]]:
        runs = [run for run in self.results.runs if (run.task, run.engine, run.block) in self.found]
        left_out = set()
        for task in self.methods:
            own = [run for run in runs if run.task == task]
            kept = undisturbed(own, self.results.fingerprint.cpus)
            left_out |= {(run.task, run.engine, run.block) for run in own if run not in kept}
        return left_out

    def who(self, engine: str) -> Record:
        """The fields that colour, shape and dash are chosen by."""
        series = f"{engine} · {self.label}" if self.label else engine
        line = f"of {self.label}" if self.label else "dashed" if engine in self.ceilings else "solid"
        return {"engine": engine, "run": self.label, "series": series, "line": line}

    @property
    def ceilings(self) -> list[str]:
        """Engines that are no switch."""
        return [engine.name for engine in self.results.engines if engine.ceiling]

    def trial(self, run: Run, number: int = 0) -> Record:
        """Which trial it is and what is doubtful of it, for who hovers over its mark."""
        flags = list(flags_of([run.trials[number]], self.results.fingerprint.cpus))
        if (run.task, run.engine, run.block) in self._left_out:
            flags.append("left out of the ratio")
        several = f", trial {number + 1} of {len(run.trials)}" if len(run.trials) > 1 else ""
        return {
            **self.who(run.engine),
            "task": run.task,
            "block": f"{run.block + 1}, position {run.position + 1}{several}",
            "counts": _counts(run.trials[number]),
            "flags": ", ".join(flags) or "none",
        }


def sources_of(results: Sequence[tuple[str, Results]]) -> list[Source]:
    """Labelled results, checked to be comparable; raise BenchError when they are not."""
    if not results:
        raise BenchError("no results: a report needs one results file or more")
    labels = [label for label, _ in results]
    if len(set(labels)) < len(labels):
        raise BenchError(f"two runs have the same label: {', '.join(labels)}")
    baselines = {label: each.baseline for label, each in results}
    if len(set(baselines.values())) > 1:
        shown = ", ".join(f"to {baseline} in {label}" for label, baseline in baselines.items())
        raise BenchError(f"ratios to different baselines cannot be compared: {shown}; measure again with --baseline")
    methods: dict[str, str] = {}
    for label, each in results:
        for task in each.tasks:
            if methods.setdefault(task.name, task.method) != task.method:
                raise BenchError(f"{label}: task {task.name!r} is another method's than in {labels[0]}")
    return [Source(label if len(results) > 1 else "", each) for label, each in results]


def unlikeness(sources: Sequence[Source]) -> list[str]:
    """What makes their machines unlike, a phrase each; none if they are alike."""
    first, *others = sources
    here = described(asdict(first.results.fingerprint))
    return [
        f"{name} ({mine} in {first.label}, {its} in {other.label})"
        for other in others
        for name, (mine, its) in differences(here, described(asdict(other.results.fingerprint))).items()
    ]


def single_trials(source: Source, task: str) -> Iterator[tuple[Run, Trial]]:
    """Of a task whose runs are one trial each."""
    for run in source.runs_of(task):
        if len(run.trials) == 1:
            yield run, run.trials[0]


def curve(source: Source, task: str, name: str, load: Callable[[Trial], float | None]) -> Iterator[Record]:
    """The points of a method's curve in every block, each with the trial that it comes from.

    A point's trial is the one whose `load` is the point's x.
    """
    x_unit, y_unit = source.methods[task].units[name].split(" → ")
    for run in source.runs_of(task):
        numbers = {load(trial): number for number, trial in reversed(list(enumerate(run.trials)))}
        for x, y in source.found[task, run.engine, run.block].series.get(name, ()):
            yield {
                **source.trial(run, numbers.get(x, 0)),
                "x": x,
                "y": y,
                "block_number": run.block,
                "x_text": f"{wording.number(x, x_unit)} {wording.shown_unit(x_unit)}",
                "y_text": wording.number(y, y_unit) + ("" if y_unit == "ratio" else f" {y_unit}"),
            }


def _counts(trial: Trial) -> str:
    if trial.offered is None:
        return f"{trial.gigabits_per_second:.2f} Gb/s"
    rate = "" if trial.frames_per_second is None else f"{trial.frames_per_second:,.0f} frames/s, "
    return f"{rate}{trial.gigabits_per_second:.2f} Gb/s, {trial.forwarded:,} of {trial.offered:,} frames"
