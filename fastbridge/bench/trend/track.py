"""Trends over commits.

Where did the speed change, and is that more than noise? FD.io's `jumpavg` proposes: it divides a trend's runs into the
groups that describe it in the fewest bits. With few or noisy runs it divides too much. So each step must also stand
outside of the trend's own noise; see `_noise`. A benchmark that becomes a little slower with every commit makes no
step: that is a drift; see `_drift`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from statistics import fmean, linear_regression, median

from fastbridge.errors import BenchError
from fastbridge.extras import way_to

from .storage import Machine, SavedRun

FEWEST = 5  # runs; with fewer the noise between them is not known, and there is no verdict
RECENT = 3  # runs; a step in the last ones is news
SHOWN = 12  # runs; a drift is looked for in the last ones
_ENDS = 3  # runs at both ends of these; their levels say how far a drift went
# A step needs two levels that are three standard errors apart. Then at most 3 % of steady trends (1 to 10 % noise, 5 to
# 20 runs, 1,000 made-up ones of each kind) show a regression in the last three runs; with jumpavg alone up to 28 % show
# some step. With 3 % noise, a loss of 20 % is seen in its first run four times out of five. A drift of 3 % per run is
# seen within 14 runs in 98 % of trends with 3 % noise, and in 87 % with 5 % noise.
STANDARD_ERRORS = 3.0
SEEN = 0.2  # in a trend that is called steady, a loss of this much speed would show
LEAST = 0.02  # relative: the compiler's placement of the code changes speed by this much
_MAD_OF_DIFFERENCES = 1.048  # median |difference| of neighbours → standard deviation: 1 / (√2 · 0.6745)


@dataclass(frozen=True)
class Point:
    """One run of a benchmark."""

    run: SavedRun
    seconds: float


@dataclass(frozen=True)
class Step:
    """A change of level between two runs; a drift is one from an earlier run to the last."""

    index: int  #: of the first point of the new level, or of the drift
    before: float  #: seconds, geometric mean of the level, or of the drift's first runs
    after: float

    @property
    def change(self) -> float:
        """The relative change of speed: -0.2 is a fifth slower."""
        return self.before / self.after - 1.0


@dataclass(frozen=True)
class Trend:
    """One benchmark on one machine, over commits."""

    name: str  #: full
    machine: Machine
    points: tuple[Point, ...]
    noise: float | None  #: relative standard deviation from run to run; None with fewer than FEWEST
    steps: tuple[Step, ...]
    drift: Step | None  #: over the last SHOWN runs; then no step begins in them
    is_current: bool  #: measured in the machine's last run, and that ran the newest commit
    recent: int  #: how many of the last points are news

    @property
    def last(self) -> Step | None:
        """The last change: a drift is still going on."""
        return self.drift or (self.steps[-1] if self.steps else None)

    @property
    def verdict(self) -> str:
        """One of: too few runs, regression or progression (a drift, or a step that is news), steady, too noisy."""
        if self.noise is None:
            return "too few runs"
        if self.last is None or (self.drift is None and len(self.points) - self.last.index > self.recent):
            return "steady" if self.can_tell else "too noisy"
        return "regression" if self.last.change < 0 else "progression"

    @property
    def can_tell(self) -> bool:
        """Whether a loss of SEEN in the last runs would stand outside of the noise."""
        if self.noise is None:
            return False
        last = min(self.recent, len(self.points) // 2)
        error = self.noise * math.sqrt(1 / last + 1 / (len(self.points) - last))
        return STANDARD_ERRORS * error <= -math.log(1 - SEEN)

    @property
    def is_regressed(self) -> bool:
        """Whether CI must know: a regression that is news, in the latest measurement."""
        return self.is_current and self.verdict == "regression"


def trends(runs: Sequence[SavedRun], *, recent: int = RECENT) -> list[Trend]:
    """The trend of every benchmark on every machine; `runs` are in order, as `read_storage` gives them.

    A step is news within the machine's last `recent` runs. Raises BenchError when jumpavg is missing.
    """
    newest = max(runs, key=lambda run: run.measured)
    made = []
    for machine in dict.fromkeys(run.machine for run in runs):
        own = [run for run in runs if run.machine == machine]
        is_current = any(run.commit == newest.commit for run in own)
        for name in dict.fromkeys(name for run in own for name in run.seconds):
            points = tuple(Point(run, run.seconds[name]) for run in own if name in run.seconds)
            news = sum(name in run.seconds for run in own[-recent:])
            noise, steps, drift = _judge(name, points) if len(points) >= FEWEST else (None, (), None)
            made.append(Trend(name, machine, points, noise, steps, drift, is_current and name in own[-1].seconds, news))
    return made


def _judge(name: str, points: Sequence[Point]) -> tuple[float, tuple[Step, ...], Step | None]:
    """Noise, steps and drift, from logarithms: a change has the same size up and down."""
    logs = [math.log(point.seconds) for point in points]
    groups = _divide(points, logs)
    scatter = median(point.run.scatter[name] for point in points)
    noise = max(_noise(logs, groups), scatter)
    level, levels, steps, index = groups[0], [], [], len(groups[0])
    for group in groups[1:]:
        difference = fmean(group) - fmean(level)
        error = noise * math.sqrt(1 / len(group) + 1 / len(level))
        if abs(difference) > max(LEAST, STANDARD_ERRORS * error):
            steps.append(Step(index, math.exp(fmean(level)), math.exp(fmean(group))))
            levels += [fmean(level)] * len(level)
            level = group
        else:
            level = level + group
        index += len(group)
    levels += [fmean(level)] * len(level)
    between = max(_between_neighbours(logs), scatter)
    if drift := _drift(logs, levels, between):
        return between, tuple(step for step in steps if step.index <= drift.index), drift
    return noise, tuple(steps), None


def _drift(logs: Sequence[float], levels: Sequence[float], noise: float) -> Step | None:
    """The change over the last runs, if a line describes them better than levels do.

    Most pairs of runs must be in one order (Mann and Kendall's test, which does not depend on the noise), and the ends
    as far apart as the two levels of a step.
    """
    index = max(0, len(logs) - SHOWN)
    last, count = logs[index:], len(logs) - index
    order = sum((b > a) - (b < a) for a, b in combinations(last, 2)) / math.sqrt(
        count * (count - 1) * (2 * count + 5) / 18
    )
    before, after = fmean(last[:_ENDS]), fmean(last[-_ENDS:])
    error = noise * math.sqrt(2 / _ENDS)
    slope, begin = linear_regression(range(count), last)
    from_line = sum((x - begin - slope * i) ** 2 for i, x in enumerate(last))
    from_levels = sum((x - level) ** 2 for x, level in zip(last, levels[index:], strict=True))
    if abs(order) < STANDARD_ERRORS or abs(after - before) <= max(LEAST, STANDARD_ERRORS * error):
        return None
    return Step(index, math.exp(before), math.exp(after)) if from_line < from_levels else None


def _divide(points: Sequence[Point], logs: Sequence[float]) -> list[list[float]]:
    try:
        import jumpavg
    except ImportError:
        raise BenchError(f"the trend needs the package jumpavg: {way_to('report')}") from None
    groups, index = [], 0
    for group in jumpavg.classify([1.0 / point.seconds for point in points]):
        groups.append(list(logs[index : index + len(group)]))
        index += len(group)
    return groups


def _noise(logs: Sequence[float], groups: Sequence[Sequence[float]]) -> float:
    """Relative standard deviation from run to run: the larger of two estimates.

    The first comes from within the groups, and is too small where jumpavg divided too much. The second comes from the
    median difference of neighbours: it does not depend on the groups, and steps hardly change it.
    """
    freedom = len(logs) - len(groups)
    squares = sum((x - fmean(group)) ** 2 for group in groups for x in group)
    within = math.sqrt(squares / freedom) if freedom else 0.0
    return max(within, _MAD_OF_DIFFERENCES * median(abs(b - a) for a, b in pairwise(logs)))


def _between_neighbours(logs: Sequence[float]) -> float:
    """The second estimate without the part that all differences share: a drift is not noise."""
    differences = [b - a for a, b in pairwise(logs)]
    common = median(differences)
    return _MAD_OF_DIFFERENCES * median(abs(each - common) for each in differences)
