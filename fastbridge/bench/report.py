"""Rows from results.

Everything here is recomputed from the raw trials, so a report can be redrawn anywhere, and later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from .results import Results, Scenario, Trial
from .statistics import Ratio, ratio, verdict

# A trial in which the hypervisor took more than this share of the machine says nothing of the engine.
STEAL_LIMIT = 0.02
UNDER_OFFERED = 0.99  # offered / intended below which a trial is flagged
SWITCHES_PER_SECOND = 100.0  # involuntary switches of the sender above which it is


@dataclass(frozen=True)
class Row:
    """One engine in one scenario."""

    scenario: str
    engine: str
    ratio: Ratio | None  #: to the baseline, over blocks
    noise_floor: float | None  #: the A/A control's
    verdict: str  #: baseline, control, ceiling, win, loss, no difference, not measured, or unfit
    frames_per_second: float | None  #: median of the trials; None for TCP
    gigabits_per_second: float | None
    loss_ratio: float | None
    cpu_machine_ns: float | None  #: busy time of the whole machine a forwarded frame, the tester's share included
    cpu_added_ns: float | None  #: the same without what the sender alone takes for the frames it offered
    cpu_switch_ns: float | None  #: CPU time of the engine's process a frame
    trials: int
    dropped: int  #: trials left out of the ratio for steal
    flags: tuple[str, ...] = ()
    unfit: str | None = None


def rows(results: Results) -> list[Row]:
    """All rows, scenario by scenario, engines in the order of the results."""
    return [row for scenario in results.scenarios for row in _scenario_rows(results, scenario)]


def _scenario_rows(results: Results, scenario: Scenario) -> list[Row]:
    trials = [trial for trial in results.trials if trial.scenario == scenario.name]
    unfit = {entry.engine: entry.reason for entry in results.unfit if entry.scenario == scenario.name}
    kept = _without_steal(trials, results.fingerprint.cpus)
    by_block = {
        engine.name: {trial.block: trial.rate for trial in kept if trial.engine == engine.name}
        for engine in results.engines
    }
    baseline = by_block.get(results.baseline, {})
    control = ratio(by_block.get(results.control, {}), baseline, seed=results.seed)
    floor = control.noise_floor if control else None
    ceilings = {engine.name for engine in results.engines if not engine.joins}
    alone = per_frame((t for t in trials if t.engine in ceilings), lambda trial: trial.cpu_machine_seconds)
    made = []
    for engine in results.engines:
        own = [trial for trial in trials if trial.engine == engine.name]
        reason = unfit.get(engine.name)
        if not own and reason is None:
            continue  # a scenario that is not this engine's, or one that was not reached
        measured = (
            None if engine.name == results.baseline else ratio(by_block[engine.name], baseline, seed=results.seed)
        )
        word = _role(results, engine.name, engine.joins) or verdict(measured, floor)
        made.append(
            Row(
                scenario=scenario.name,
                engine=engine.name,
                ratio=measured,
                noise_floor=floor,
                verdict=word if reason is None else "unfit",
                frames_per_second=_median(own, lambda trial: trial.frames_per_second),
                gigabits_per_second=_median(own, lambda trial: trial.gigabits_per_second),
                loss_ratio=_median(own, lambda trial: trial.loss_ratio),
                cpu_machine_ns=per_frame(own, lambda trial: trial.cpu_machine_seconds),
                cpu_added_ns=None if alone is None else per_frame(own, lambda trial: _added_seconds(trial, alone)),
                cpu_switch_ns=per_frame(own, lambda trial: trial.cpu_switch_seconds),
                trials=len(own),
                dropped=sum(trial not in kept for trial in own),
                flags=_flags(own, results.fingerprint.cpus),
                unfit=reason,
            )
        )
    return made


def _role(results: Results, engine: str, joins: bool) -> str | None:
    if not joins:
        return "ceiling"
    return {results.baseline: "baseline", results.control: "control"}.get(engine)


def _added_seconds(trial: Trial, sender_ns: float) -> float | None:
    # The sender's frames, also those that the engine lost, took the sender's time.
    if trial.offered is None:
        return None
    return trial.cpu_machine_seconds - sender_ns * 1e-9 * trial.offered * trial.window_seconds / trial.seconds


def _stolen(trial: Trial, cpus: int) -> bool:
    return trial.steal_seconds > STEAL_LIMIT * trial.window_seconds * cpus


def _without_steal(trials: Sequence[Trial], cpus: int) -> list[Trial]:
    # Where most trials suffer alike, leaving them out would leave nothing: then they stay, flagged.
    clean = [trial for trial in trials if not _stolen(trial, cpus)]
    return clean if 2 * len(clean) >= len(trials) else list(trials)


def _flags(trials: Sequence[Trial], cpus: int) -> tuple[str, ...]:
    counts = {
        "steal": sum(_stolen(trial, cpus) for trial in trials),
        "offered < intended": sum((t.offered or 0) < UNDER_OFFERED * (t.intended or 0) for t in trials),
        "sender interrupted": sum((t.involuntary_switches or 0) > SWITCHES_PER_SECOND * t.seconds for t in trials),
    }
    return tuple(f"{name} in {count} of {len(trials)} trials" for name, count in counts.items() if count)


def _median(trials: Iterable[Trial], value: Callable[[Trial], float | None]) -> float | None:
    values = [number for trial in trials if (number := value(trial)) is not None]
    return median(values) if values else None


def per_frame(trials: Iterable[Trial], seconds: Callable[[Trial], float | None]) -> float | None:
    """Nanoseconds a forwarded frame, summed over `trials` first: one trial's 10 ms steps are coarse."""
    pairs = [(used, t.window_frames) for t in trials if (used := seconds(t)) is not None and t.window_frames]
    return sum(used for used, _ in pairs) * 1e9 / sum(frames for _, frames in pairs) if pairs else None
