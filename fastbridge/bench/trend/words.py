"""Trends in words.

The same in the terminal and on the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from os.path import commonprefix

from .track import FEWEST, SEEN, SHOWN, STANDARD_ERRORS, Step, Trend

LEGEND = (
    "Times are medians of the rounds of a run. A change is a change of speed. Noise: standard deviation from run to "
    f"run. A step is a change of level that jumpavg finds, of more than {STANDARD_ERRORS:.0f} standard errors. A slow "
    f"change has small parts, over the last {SHOWN} runs together more than the noise between neighbouring runs "
    f"explains. With fewer than {FEWEST} runs there is no verdict. Steady: a loss of {SEEN:.0%} of speed in the last "
    "runs would have shown; too noisy: it would not."
)


def short_names(names: Sequence[str]) -> list[str]:
    """The names without the directories and files that all share."""
    common = commonprefix([name.partition("[")[0] for name in names])  # noqa: RUF071 - cut at the last boundary below
    start = max(common.rfind("/") + 1, common.rfind("::") + 2 if "::" in common else 0)
    return [name[start:] for name in names]


def duration(seconds: float) -> str:
    """Three digits and a unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= 0.9995 * size:
            return f"{seconds / size:.3g} {unit}" if seconds < 999.5 * size else f"{seconds / size:,.0f} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def change(relative: float) -> str:
    """A change of speed."""
    return f"{relative:+.1%}"


def step_lines(trend: Trend) -> list[str]:
    """Where the speed changed, by how much, and since which commit."""
    lines = [_line(trend, step, "") for step in trend.steps]
    return [*lines, _line(trend, trend.drift, "slow ")] if trend.drift else lines


def _line(trend: Trend, step: Step, how: str) -> str:
    run = trend.points[step.index].run
    levels = f"{duration(step.before)} → {duration(step.after)}"
    kind = "regression" if step.change < 0 else "progression"
    when = run.committed.strftime("%Y-%m-%d %H:%M")
    return f"{how}{kind} of {change(step.change)} ({levels}) since {run.commit}, {when}, {run.name}"
