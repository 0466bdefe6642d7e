"""Trends as a page.

What `fastbridge track` prints, with a chart for each benchmark: first those whose speed changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastbridge.bench.report import html
from fastbridge.bench.report.parts import Cell, Column, Document, Figure, Fold, Part, Section, Table, Text

from .track import Trend
from .words import LEGEND, change, duration, short_names, step_lines

_COLUMNS = (
    Column("benchmark", number=False),
    Column("verdict", number=False),
    Column("last", "per round"),
    Column("change", "of speed", hint="of the last step or drift, wherever it was"),
    Column("noise", "between runs"),
    Column("runs"),
)
_STYLES = {
    "regression": "loss",
    "progression": "win",
    "steady": "even",
    "too noisy": "quiet",
    "too few runs": "quiet",
}  #: in this order, too


def render(found: Sequence[Trend]) -> str:
    """The trends as an HTML document."""
    regressed = [trend for trend in found if trend.is_regressed]
    sections = []
    for number, machine in enumerate(dict.fromkeys(trend.machine for trend in found), 1):
        own = [trend for trend in found if trend.machine == machine]
        title = "Benchmarks" if len(own) == len(found) else f"Benchmarks, machine {number}"
        sections.append(Section(f"machine-{number}", title, str(machine), _parts(own, f"trend-{number}")))
    sections.append(Section("how", "How it is judged", parts=[Text(LEGEND)]))
    runs = {point.run.path for trend in found for point in trend.points}
    untold = sum(trend.verdict in ("too noisy", "too few runs") for trend in found)
    slower = f"{len(regressed) or 'None'} of {len(found)} benchmarks became slower, outside of the noise"
    cannot = f"; of {untold} the runs cannot tell" if untold else ""
    return html.render(Document("Trend over commits", f"{slower}{cannot}. {len(runs)} runs.", sections))


def _parts(found: Sequence[Trend], prefix: str) -> list[Part]:
    found = sorted(found, key=lambda trend: list(_STYLES).index(trend.verdict))
    names = short_names([trend.name for trend in found])
    figures = [
        Figure(f"{prefix}-{i}", name, "trend", _data(trend), "; ".join(step_lines(trend)))
        for i, (name, trend) in enumerate(zip(names, found, strict=True))
    ]
    changed = [figure for figure, trend in zip(figures, found, strict=True) if trend.last]
    others = [figure for figure, trend in zip(figures, found, strict=True) if not trend.last]
    parts: list[Part] = [Table("", _COLUMNS, [_row(*each) for each in zip(names, found, strict=True)]), *changed]
    if changed and others:
        return [*parts, Fold(f"Charts of the {len(others)} without a step or drift", others)]
    return [*parts, *others]


def _row(name: str, trend: Trend) -> list[Cell]:
    last = trend.last.change if trend.last else None
    seconds = trend.points[-1].seconds
    return [
        Cell(name),
        Cell(trend.verdict, style=_STYLES[trend.verdict]),
        Cell(duration(seconds), seconds),
        Cell("" if last is None else change(last), last),
        Cell("" if trend.noise is None else f"{trend.noise:.1%}", trend.noise),
        Cell(str(len(trend.points)), len(trend.points)),
    ]


def _data(trend: Trend) -> dict[str, Any]:
    """What the chart shows."""
    unit, size = _unit(trend)
    points = [
        {
            "order": i,
            "commit": point.run.commit,
            "committed": f"{point.run.committed:%Y-%m-%d %H:%M}",
            "measured": f"{point.run.measured:%Y-%m-%d %H:%M}",
            "file": point.run.name,
            "time": point.seconds / size,
            "time per round": duration(point.seconds),
        }
        for i, point in enumerate(trend.points)
    ]
    return {"points": points, "levels": _levels(trend, size), "unit": unit}


def _levels(trend: Trend, size: float) -> list[dict[str, Any]]:
    """The levels between the steps; without a step there are only dots."""
    if not trend.steps:
        return []
    begins = [0, *(step.index for step in trend.steps)]
    ends = [*begins[1:], len(trend.points)]
    times = [trend.steps[0].before, *(step.after for step in trend.steps)]
    kinds = ["start", *("regression" if step.change < 0 else "progression" for step in trend.steps)]
    return [
        {"begin": begin - 0.5, "end": end - 0.5, "time": time / size, "kind": kind}
        for begin, end, time, kind in zip(begins, ends, times, kinds, strict=True)
    ]


def _unit(trend: Trend) -> tuple[str, float]:
    shown = duration(trend.points[-1].seconds).split()[-1]
    return shown, {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}[shown]
