"""Results, flattened.

Loaded runs, and the records that figures show: a dictionary for each trial or row, with numbers to draw and texts to
hover over.
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
from .rows import Replayed, Row, RunKey, flags_of, replay, rows_of, undisturbed

Record = dict[str, Any]


@dataclass(frozen=True)
class LoadedRun:
    """One run of the bench, with everything that is computed from it. Each is computed once."""

    label: str  #: empty if it is the only one
    results: Results

    @cached_property
    def replayed(self) -> Replayed:
        """What the methods find in its trials."""
        return replay(self.results)

    @cached_property
    def rows(self) -> list[Row]:
        """All rows."""
        return rows_of(self.results, self.replayed)

    @property
    def methods(self) -> Mapping[str, Method]:
        """By task."""
        return self.replayed.methods

    @property
    def found(self) -> Mapping[RunKey, Findings]:
        """The findings of every readable run, by task, engine and block."""
        return self.replayed.found

    def tasks(self, *methods: str) -> list[TaskRecord]:
        """The tasks of these methods that have a row."""
        shown = {row.task for row in self.rows}
        return [task for task in self.results.tasks if task.method in methods and task.name in shown]

    def rows_of(self, task: str) -> list[Row]:
        """The task's rows in the order of the engines, without the control: a chart shows every engine once."""
        return [row for row in self.rows if row.task == task and row.engine != self.results.control]

    def runs_of(self, task: str) -> list[Run]:
        """The task's readable runs, without the control's."""
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
        """The fields that give colour, shape and dash."""
        series = f"{engine} · {self.label}" if self.label else engine
        line = f"of {self.label}" if self.label else "dashed" if engine in self.ceilings else "solid"
        return {"engine": engine, "run": self.label, "series": series, "line": line}

    @property
    def ceilings(self) -> list[str]:
        """The engines without a switch: direct veth pairs."""
        return [engine.name for engine in self.results.engines if engine.ceiling]

    def trial(self, run: Run, number: int = 0) -> Record:
        """The trial's place in the run and its flags, to hover over."""
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


@dataclass(frozen=True)
class Report:
    """One or more runs that can be shown together."""

    runs: tuple[LoadedRun, ...]

    @classmethod
    def of(cls, results: Sequence[tuple[str, Results]]) -> Report:
        """Make a report of labelled results; raise BenchError when they cannot be compared."""
        if not results:
            raise BenchError("no results: a report needs one results file or more")
        labels = [label for label, _ in results]
        if len(set(labels)) < len(labels):
            raise BenchError(f"two runs have the same label: {', '.join(labels)}")
        baselines = {label: each.baseline for label, each in results}
        if len(set(baselines.values())) > 1:
            shown = ", ".join(f"to {baseline} in {label}" for label, baseline in baselines.items())
            raise BenchError(
                f"ratios to different baselines cannot be compared: {shown}; measure again with --baseline"
            )
        methods: dict[str, str] = {}
        for label, each in results:
            for task in each.tasks:
                if methods.setdefault(task.name, task.method) != task.method:
                    raise BenchError(f"{label}: task {task.name!r} is another method's than in {labels[0]}")
        return cls(tuple(LoadedRun(label if len(results) > 1 else "", each) for label, each in results))

    @property
    def is_comparison(self) -> bool:
        """Whether there are several runs. Each has a label then."""
        return len(self.runs) > 1

    @property
    def baseline(self) -> str:
        """The engine that all ratios are to."""
        return self.runs[0].results.baseline

    @cached_property
    def unlikeness(self) -> list[str]:
        """The differences between the machines, a phrase each; none if they are alike."""
        first, *others = self.runs
        here = described(asdict(first.results.fingerprint))
        return [
            f"{name} ({mine} in {first.label}, {theirs} in {other.label})"
            for other in others
            for name, (mine, theirs) in differences(here, described(asdict(other.results.fingerprint))).items()
        ]


def single_trials(loaded: LoadedRun, task: str) -> Iterator[tuple[Run, Trial]]:
    """The runs of a task that have one trial each, with this trial."""
    for run in loaded.runs_of(task):
        if len(run.trials) == 1:
            yield run, run.trials[0]


def curve(loaded: LoadedRun, task: str, name: str, load: Callable[[Trial], float | None]) -> Iterator[Record]:
    """The points of a method's curve in every block. Each has the trial whose `load` is the point's x."""
    x_unit, y_unit = loaded.methods[task].units[name].split(" → ")
    for run in loaded.runs_of(task):
        numbers = {load(trial): number for number, trial in reversed(list(enumerate(run.trials)))}
        for x, y in loaded.found[task, run.engine, run.block].series.get(name, ()):
            yield {
                **loaded.trial(run, numbers.get(x, 0)),
                "x": x,
                "y": y,
                "block_number": run.block,
                "x_text": f"{wording.number(x, x_unit)} {wording.shown_unit(x_unit)}",
                "y_text": wording.number(y, y_unit) + ("" if y_unit == "ratio" else f" {y_unit}"),
            }


def _counts(trial: Trial) -> str:
    if trial.offered is None:
        asked = f"{trial.samples.received:,} of {trial.samples.sent:,} answered, " if trial.samples else ""
        return f"{asked}{trial.gigabits_per_second:.2f} Gb/s"
    rate = "" if trial.frames_per_second is None else f"{trial.frames_per_second:,.0f} frames/s, "
    return f"{rate}{trial.gigabits_per_second:.2f} Gb/s, {trial.forwarded:,} of {trial.offered:,} frames"
