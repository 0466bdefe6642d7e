"""Rows from results.

The methods that asked for the trials run again on the recorded ones. So any machine can redraw a report at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeAlias

from fastbridge.bench.machine.disturbance import is_disturbed
from fastbridge.bench.methods import Findings, Method
from fastbridge.bench.methods.measurer import Replay
from fastbridge.bench.methods.patterns import loss_of
from fastbridge.bench.methods.registry import METHODS
from fastbridge.bench.results.results import INTERRUPTED, EngineRecord, Results, Run, TaskRecord
from fastbridge.bench.results.shapes import decode
from fastbridge.bench.tester.trial import Trial
from fastbridge.errors import BenchError

from .statistics import Ratio, ratio, verdict

# Where the hypervisor took more than this share of the machine, a trial says nothing about the engine.
STEAL_LIMIT = 0.02
STEAL_LEAST = 0.015  # seconds; the kernel counts in steps of 10 ms, and one step proves nothing
UNDER_OFFERED = 0.99  # offered / intended below which a paced trial is flagged
RunKey: TypeAlias = tuple[str, str, int]  # task, engine, block
CLAIMS = ("win", "loss", "no difference", "cannot tell")  # withheld where a comparison was disturbed
SWITCHES_PER_SECOND = 100.0  # involuntary switches of the sender above which a trial is flagged


@dataclass(frozen=True)
class Replayed:
    """The findings of the methods in the recorded trials of a run of the bench."""

    methods: Mapping[str, Method]  #: by task
    found: Mapping[RunKey, Findings]  #: of every readable run
    unreadable: Mapping[tuple[str, str], str]  #: why a run has no findings, by task and engine


@dataclass(frozen=True)
class Row:
    """One engine in one task."""

    task: str
    engine: str
    ratio: Ratio | None  #: of the method's primary value, to the baseline, over blocks
    noise_floor: float | None  #: the A/A control's
    verdict: str  #: baseline, control, ceiling or floor (the direct pair), win, loss, no difference, cannot tell,
    #: withheld (other programs, the hypervisor or a quota had their share), not measured (no noise floor), single run,
    #: no baseline, too few blocks (for an interval), unfit, or not readable (by the methods of this version)
    values: Mapping[str, float]  #: what the method found, by name; medians over the blocks
    series: Mapping[str, tuple[tuple[float, float], ...]]  #: of the first block
    remarks: tuple[str, ...]  #: the method's, over all blocks
    frames_per_second: float | None  #: median of the trials, where a run is one trial; None for TCP
    gigabits_per_second: float | None
    loss_ratio: float | None  #: of the frames offered; a frame that left a buffer after the load is lost, too
    cpu_machine_ns: float | None  #: busy time of the whole machine per forwarded frame, with the tester's share
    cpu_added_ns: float | None  #: the same without the time of the direct veth pair for the frames offered
    cpu_switch_ns: float | None  #: CPU time of the engine's processes per frame
    runs: int
    dropped: int  #: runs left out of the ratio because they were disturbed
    trials: int
    flags: Mapping[str, int]  #: what makes a trial doubtful → in how many of them
    unfit: str | None = None  #: why
    unreadable: str | None = None  #: why; the record's fault, not the engine's
    is_control: bool = False  #: whatever the verdict
    is_direct: bool = False  #: no switch: the highest rates and the lowest latency


def method_of(task: TaskRecord) -> Method:
    """The method of a recorded task; raise BenchError that names what is wrong with the record."""
    kind = METHODS.get(task.method)
    if kind is None:
        raise BenchError(f"task {task.name!r}: no method {task.method!r} here; known are {', '.join(sorted(METHODS))}")
    return decode(kind, dict(task.parameters), f"parameters of {task.name!r}")


def replay(results: Results) -> Replayed:
    """Run every task's method again over the recorded trials of every finished run."""
    methods = {task.name: method_of(task) for task in results.tasks}
    ports = {task.name: task.ports for task in results.tasks}
    found, unreadable = {}, {}
    for run in results.runs:
        if run.task in methods and run.unfinished is None:
            trials = Replay(run.trials, ports[run.task])
            try:
                findings = methods[run.task].run(trials)
                trials.finish()
                found[run.task, run.engine, run.block] = findings
            except BenchError as error:  # the other engines' rows stay
                unreadable[run.task, run.engine] = str(error)
    return Replayed(methods, found, unreadable)


def rows(results: Results) -> list[Row]:
    """All rows, task by task, engines in the order of the results."""
    return rows_of(results, replay(results))


def rows_of(results: Results, replayed: Replayed) -> list[Row]:
    """All rows, from findings that are there already."""
    return [row for task in results.tasks for row in _task_rows(results, task, replayed)]


def _task_rows(results: Results, task: TaskRecord, replayed: Replayed) -> list[Row]:
    method = replayed.methods[task.name]
    found = {(engine, block): each for (name, engine, block), each in replayed.found.items() if name == task.name}
    unreadable = {engine: reason for (name, engine), reason in replayed.unreadable.items() if name == task.name}
    finished = [run for run in results.runs if run.task == task.name and (run.engine, run.block) in found]
    cpus = results.fingerprint.cpus
    kept = undisturbed(finished, cpus)
    is_withheld = 2 * sum(_is_disturbed(run, cpus) for run in finished) > len(finished)
    by_block = {
        engine.name: {
            run.block: found[run.engine, run.block].values[method.primary]
            for run in kept
            if run.engine == engine.name and method.primary in found[run.engine, run.block].values
        }
        for engine in results.engines
    }
    baseline = by_block.get(results.baseline, {})
    control = ratio(by_block.get(results.control, {}), baseline, seed=results.seed)
    floor = control.noise_floor if control else None
    ceilings = {engine.name for engine in results.engines if engine.ceiling}
    alone = per_frame(_single(r for r in finished if r.engine in ceilings), lambda trial: trial.cpu_machine_seconds)
    made = []
    for engine in results.engines:
        own = [run for run in finished if run.engine == engine.name]
        unfit = next((u.reason for u in results.unfit if u.engine == engine.name and u.task in (None, task.name)), None)
        broken = unreadable.get(engine.name)
        failed = [
            run.unfinished
            for run in results.runs
            if (run.task, run.engine) == (task.name, engine.name) and run.unfinished not in (None, INTERRUPTED)
        ]
        if not own and unfit is None and broken is None and not failed:
            continue  # a task of other engines, or one that was not reached
        is_baseline = engine.name == results.baseline
        measured = None if is_baseline else ratio(by_block[engine.name], baseline, seed=results.seed)
        if unfit is not None:
            word = "unfit"
        elif broken is not None:
            word = "not readable"
        else:
            word = _role(results, engine, method) or _word(measured, baseline, floor, task, method)
            if is_withheld and word in CLAIMS:
                word = "withheld"
        trials = _single(own)
        findings = [found[run.engine, run.block] for run in own]
        made.append(
            Row(
                task=task.name,
                engine=engine.name,
                ratio=measured,
                noise_floor=floor,
                verdict=word,
                values=_medians(findings),
                series=dict(findings[0].series) if findings else {},
                remarks=(
                    *dict.fromkeys(remark for each in findings for remark in each.remarks),
                    *(f"a run did not come to its end: {reason}" for reason in failed if unfit is None),
                ),
                frames_per_second=_median(trials, lambda trial: trial.frames_per_second),
                gigabits_per_second=_median(trials, lambda trial: trial.gigabits_per_second),
                loss_ratio=_median(trials, lambda trial: None if trial.offer.is_end_to_end else loss_of(trial)),
                cpu_machine_ns=per_frame(trials, lambda trial: trial.cpu_machine_seconds),
                cpu_added_ns=None if alone is None else per_frame(trials, lambda trial: _added(trial, alone)),
                cpu_switch_ns=per_frame(trials, lambda trial: trial.cpu_switch_seconds),
                runs=len(own),
                dropped=sum(run not in kept for run in own),
                trials=sum(len(run.trials) for run in own),
                flags=flags_of([trial for run in own for trial in run.trials], results.fingerprint.cpus),
                unfit=unfit,
                unreadable=broken,
                is_control=engine.name == results.control,
                is_direct=engine.ceiling,
            )
        )
    return made


def _role(results: Results, engine: EngineRecord, method: Method) -> str | None:
    if engine.ceiling:
        return "ceiling" if method.higher_is_better else "floor"
    return {results.baseline: "baseline", results.control: "control"}.get(engine.name)


def _word(
    measured: Ratio | None, baseline: Mapping[int, float], floor: float | None, task: TaskRecord, method: Method
) -> str:
    if task.blocks < 2:
        return "single run"  # no interval, no claim
    if measured is None:
        return "too few blocks" if any(baseline.values()) else "no baseline"
    return verdict(measured, floor, higher_is_better=method.higher_is_better)


def _single(runs: Iterable[Run]) -> list[Trial]:
    # Rate, loss and CPU time are quoted where a run is one trial: a search has trials at many loads.
    return [run.trials[0] for run in runs if len(run.trials) == 1]


def _added(trial: Trial, direct_ns: float) -> float | None:
    # All frames took the sender's time, also those that the engine lost.
    if trial.offered is None:
        return None
    return trial.cpu_machine_seconds - direct_ns * 1e-9 * trial.offered * trial.window_seconds / trial.seconds


def _stolen(trial: Trial, cpus: int) -> bool:
    return trial.steal_seconds > max(STEAL_LEAST, STEAL_LIMIT * trial.window_seconds * cpus)


def _is_disturbed(run: Run, cpus: int) -> bool:
    return any(
        _stolen(trial, cpus) or (trial.disturbance is not None and is_disturbed(trial.disturbance, cpus))
        for trial in run.trials
    )


def undisturbed(runs: Sequence[Run], cpus: int) -> list[Run]:
    """The runs that count for a task's ratios.

    Where most runs were disturbed, all of them stay: without them nothing would be left. Then there is no verdict.
    """
    clean = [run for run in runs if not _is_disturbed(run, cpus)]
    return clean if 2 * len(clean) >= len(runs) else list(runs)


def flags_of(trials: Sequence[Trial], cpus: int) -> dict[str, int]:
    """What makes trials doubtful → the number of such trials."""
    paced = [trial for trial in trials if all(phase.rate is not None for phase in trial.offer.phases)]
    counts = {
        "steal": sum(_stolen(trial, cpus) for trial in trials),
        "disturbed by other programs or a quota": sum(
            trial.disturbance is not None and is_disturbed(trial.disturbance, cpus) for trial in trials
        ),
        "offered < intended": sum((t.offered or 0) < UNDER_OFFERED * (t.intended or 0) for t in paced),
        "sender interrupted": sum(t.involuntary_switches > SWITCHES_PER_SECOND * t.seconds for t in trials),
    }
    return {name: count for name, count in counts.items() if count}


def _medians(found: Sequence[Findings]) -> dict[str, float]:
    names = dict.fromkeys(name for each in found for name in each.values)
    return {name: median(each.values[name] for each in found if name in each.values) for name in names}


def _median(trials: Iterable[Trial], value: Callable[[Trial], float | None]) -> float | None:
    values = [number for trial in trials if (number := value(trial)) is not None]
    return median(values) if values else None


def per_frame(trials: Iterable[Trial], seconds: Callable[[Trial], float | None]) -> float | None:
    """Nanoseconds per forwarded frame, over all trials together: the 10 ms steps are coarse in one trial."""
    pairs = [(used, t.window_frames) for t in trials if (used := seconds(t)) is not None and t.window_frames]
    return sum(used for used, _ in pairs) * 1e9 / sum(frames for _, frames in pairs) if pairs else None
