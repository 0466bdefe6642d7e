"""Charts, their style.

What all charts share: engines' colours and shapes, axes, and the finish. Text, ticks and lines take the colour of the
page around them (`currentColor`): one chart is right in light, in dark and in print.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from fastbridge.bench.report.evidence import Record

from .palette import markers

CHOSEN = "chosen"  #: the parameter that a click on a legend sets
INK = "currentColor"
_DASHES = ([1, 0], [5, 3], [2, 2], [8, 3, 2, 3])
_SHAPES = ("circle", "square", "triangle-up", "diamond")  # of runs, where there are several
LEGEND_COLUMN = 112  #: pixels for an engine's name

_CONFIG: dict[str, Any] = {
    "font": "system-ui, -apple-system, Segoe UI, Roboto, Helvetica Neue, Arial, sans-serif",
    "background": "transparent",
    "view": {"stroke": None},
    "axis": {
        "labelColor": INK,
        "titleColor": INK,
        "domainColor": INK,
        "tickColor": INK,
        "gridColor": INK,
        "labelOpacity": 0.75,
        "domainOpacity": 0.35,
        "tickOpacity": 0.35,
        "gridOpacity": 0.1,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 10,
        "labelPadding": 6,
        "tickSize": 4,
    },
    # A telephone has no room for a title left of the plot; above it there is enough.
    "axisY": {"titleAngle": 0, "titleAlign": "left", "titleAnchor": "start", "titleX": 0, "titleY": -14},
    "legend": {
        "labelColor": INK,
        "labelFontSize": 12,
        "labelLimit": 135,  # two columns fit a telephone
        "title": None,
        "orient": "top",
        "columns": {"expr": f"max(2, floor(width / {LEGEND_COLUMN}))"},
        "symbolSize": 70,
        "symbolBaseFillColor": INK,
        "symbolBaseStrokeColor": INK,
        "padding": 0,
        "columnPadding": 14,
    },
    "header": {"labelColor": INK, "titleColor": INK},
    "title": {"color": INK, "fontSize": 15, "anchor": "start", "offset": 14, "subtitleColor": INK},
    "rule": {"color": INK},
}


_LEGEND = alt.Legend(title=None)


class Encodings:
    """How engines and runs are told apart: engines by colour and shape; of several runs, each by shape and dash."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.engines = list(dict.fromkeys(record["engine"] for record in records))
        self.runs = list(dict.fromkeys(record["run"] for record in records))
        self._lines = list(dict.fromkeys(record["line"] for record in records))
        self.chosen = alt.selection_point(name=CHOSEN, fields=["engine"], bind="legend")

    @property
    def lanes(self) -> int:
        """How many marks stand side by side: one for each engine and run."""
        return len(self.engines) * len(self.runs)

    def colour(self) -> alt.Color:
        """By engine."""
        colours = [marker.colour for marker in markers(self.engines).values()]
        return alt.Color("engine:N", scale=alt.Scale(domain=self.engines, range=colours), legend=_LEGEND)

    def shape(self) -> alt.Shape:
        """By engine, or by run."""
        if len(self.runs) > 1:
            scale = alt.Scale(domain=self.runs, range=[_SHAPES[i % len(_SHAPES)] for i in range(len(self.runs))])
            return alt.Shape("run:N", scale=scale, legend=alt.Legend(title=None, columns=2))
        shapes = [marker.shape for marker in markers(self.engines).values()]
        return alt.Shape("engine:N", scale=alt.Scale(domain=self.engines, range=shapes), legend=_LEGEND)

    def dash(self) -> alt.StrokeDash:
        """By run; in a single run, the direct pair is dashed."""
        known = {"solid": _DASHES[0], "dashed": _DASHES[1]}
        dashes = [known.get(line) or _DASHES[i % len(_DASHES)] for i, line in enumerate(self._lines)]
        return alt.StrokeDash("line:N", scale=alt.Scale(domain=self._lines, range=dashes), legend=None)

    def faded(self, opacity: float = 1.0) -> Any:
        """Opacity: engines that a click on the legend did not choose fade."""
        return alt.condition(self.chosen, alt.value(opacity), alt.value(0.08))


def data(records: Sequence[Record]) -> alt.InlineData:
    """Records as a chart's data."""
    return alt.InlineData(values=[dict(record) for record in records])


def log_ticks(low: float, high: float) -> list[float]:
    """Ticks from low to high: 1, 2, 5 …; more of them within a decade, powers of ten alone over more than two."""
    decades = math.log10(high / low)
    steps = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0) if decades < 1 else (1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [tick for power in powers for step in steps if low <= (tick := step * 10.0**power) <= high]


def rates_axis() -> alt.Axis:
    """An axis of frames/s: 800k, 1M."""
    return alt.Axis(labelExpr="datum.value == 0 ? '0' : format(datum.value, '~s')", tickCount=6)


def finished(chart: Any, height: int, legend_offset: int = 36) -> dict[str, Any]:
    """The chart as Vega-Lite that fills its place; `legend_offset` leaves room for the y axis' title."""
    spec: dict[str, Any] = chart.properties(width="container", height=height).to_dict(validate=False)
    spec["config"] = {**_CONFIG, "legend": {**_CONFIG["legend"], "offset": legend_offset}}
    spec["autosize"] = {"type": "fit-x", "contains": "padding"}
    return spec
