"""Charts, one a function.

Each takes a figure's data and returns Vega-Lite. A dot is a trial, and hovering over it says which; a line goes
through the medians over the blocks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import altair as alt

from fastbridge.bench.report.evidence import Record
from fastbridge.bench.report.parts import Figure

from .style import INK, Encodings, data, finished, log_ticks, rates_axis

_HEIGHT = 260
_LANE, _BETWEEN = 16, 18  # pixels: an engine's, and between two tests
_TREND_HEIGHT = 150
_ROOM = 0.15  # of a trend's median, at least, above and below: noise must look as small as it is
_LABELS = 4  # commits under a trend's axis: more do not fit at 400 px
_DIGITS = 7  # of a commit there
_CLAIM = ("ratio", "verdict", "blocks", "floor_text")


def verdict(records: Sequence[Record], baseline: str) -> dict[str, Any]:
    """Ratios to the baseline with their intervals, over the noise floor of each test."""
    encodings = Encodings(records)
    tests = list(dict.fromkeys(record["test"] for record in records))
    low = 0.92 * min(1.0, *(record["low"] for record in records))
    high = 1.09 * max(1.0, *(record["high"] for record in records))
    floors = [
        {"test": test, "floor_low": max(low, 1 - floor), "floor_high": min(high, 1 + floor)}
        for test, floor in {r["test"]: r["floor"] for r in records if r["floor"] is not None}.items()
    ]
    scale = alt.Scale(type="log", domain=[low, high], nice=False)
    axis = alt.Axis(values=log_ticks(low, high), format="~g", title=f"ratio to {baseline}, log scale")
    lanes = len(encodings.engines) * _LANE
    padding = alt.Scale(paddingInner=_BETWEEN / (lanes + _BETWEEN), paddingOuter=0.2)
    y = alt.Y("test:N", sort=tests, title=None, axis=_task_axis(), scale=padding)
    noise = (
        alt.Chart(data(floors))
        .mark_bar(color=INK, opacity=0.09, height=alt.RelativeBandSize(band=1))
        .encode(x=alt.X("floor_low:Q", scale=scale, axis=axis), x2="floor_high:Q", y=y)
    )
    one = alt.Chart(data([{"x": 1}])).mark_rule(opacity=0.5).encode(x=alt.X("x:Q", scale=scale, axis=axis))
    each = alt.Chart(data(records)).encode(
        y=y,
        yOffset=alt.YOffset("engine:N", sort=encodings.engines),
        color=encodings.colour(),
        opacity=encodings.faded(),
        tooltip=_tips(encodings, *_CLAIM),
    )
    interval = each.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", scale=scale, axis=axis), x2="high:Q")
    mean = each.mark_point(filled=True, size=75).encode(
        x=alt.X("mean:Q", scale=scale, axis=axis), shape=encodings.shape()
    )
    layers = ([noise] if floors else []) + [one, interval, mean.add_params(encodings.chosen)]
    return finished(alt.layer(*layers), len(tests) * (lanes + _BETWEEN) + 10, 14)


def against_size(trials: Sequence[Record], medians: Sequence[Record], field: str, title: str) -> dict[str, Any]:
    """A rate against the frame size."""
    encodings = Encodings(medians)
    sizes = list(dict.fromkeys(record["size"] for record in medians))
    x = alt.X(
        "size:N",
        sort=sizes,
        title="frame size with FCS",
        axis=alt.Axis(labelAngle=0),
        scale=alt.Scale(type="point", padding=0.4),
    )
    y = alt.Y(f"{field}:Q", title=title, axis=rates_axis())
    return _dots_and_line(encodings, trials, medians, x, y, _HEIGHT)


def ratio_against_size(records: Sequence[Record], baseline: str) -> dict[str, Any]:
    """Ratios of rates with their intervals, against the frame size."""
    title = f"forwarding rate, ratio to {baseline} on the same machine"
    one = alt.Chart(data([{"y": 1}])).mark_rule(opacity=0.5).encode(y="y:Q")
    y = {field: alt.Y(f"{field}:Q", title=title) for field in ("low", "mean")}
    return _spans(records, y["low"], "high:Q", y["mean"], _CLAIM, one)


def search_bounds(records: Sequence[Record]) -> dict[str, Any]:
    """NDR with a line up to the PDR, against the frame size."""
    y = alt.Y("ndr:Q", title="NDR, up to PDR, frames/s", axis=rates_axis(), scale=alt.Scale(zero=True))
    return _spans(records, y, "pdr:Q", y, ("block", "ndr_text", "pdr_text", "offered_text", "remarks"))


def strip(trials: Sequence[Record], medians: Sequence[Record], field: str, title: str) -> dict[str, Any]:
    """A line for each engine: its trials, and a mark at the median."""
    encodings = Encodings(medians)
    order = list(dict.fromkeys(record["series"] for record in medians))
    y = alt.Y("series:N", sort=order, title=None, axis=_task_axis(" · "))
    x = alt.X(f"{field}:Q", title=title, scale=alt.Scale(zero=True), axis=alt.Axis(tickCount=8))
    dots = (
        alt.Chart(data(trials))
        .mark_point(filled=True, size=45)
        .encode(
            x=x,
            y=y,
            color=encodings.colour().legend(None),
            shape=encodings.shape().legend(None),
            opacity=alt.value(0.45),
            tooltip=_tips(encodings, *_TRIAL),
        )
    )
    median = (
        alt.Chart(data(medians))
        .mark_tick(thickness=3, size=22)
        .encode(x=x, y=y, color=encodings.colour().legend(None), tooltip=_tips(encodings, "median"))
    )
    return finished(alt.layer(dots, median), 36 * len(order))


def loss_curve(records: Sequence[Record]) -> dict[str, Any]:
    """Loss against offered load."""
    encodings = Encodings(records)
    x = alt.X(
        "x:Q",
        title="offered load, frames/s",
        axis=rates_axis(),
        scale=alt.Scale(zero=False, nice=True),
    )
    y = alt.Y("y:Q", title="frames lost", axis=alt.Axis(format="~%", tickCount=6), scale=alt.Scale(domainMin=0))
    return _curves(encodings, records, x, y, _HEIGHT)


def forwarding_curve(records: Sequence[Record]) -> dict[str, Any]:
    """Forwarding rate against offered load."""
    encodings = Encodings(records)
    x = alt.X("x:Q", title="offered load, frames/s", axis=rates_axis(), scale=alt.Scale(zero=False))
    y = alt.Y("y:Q", title="forwarding rate, frames/s", axis=rates_axis())
    return _curves(encodings, records, x, y, _HEIGHT)


def latency(lines: Sequence[Record], trials: Sequence[Record]) -> dict[str, Any]:
    """Percentiles of one-way latency: rarer delays are further to the right. Both axes are logarithmic."""
    encodings = Encodings(lines)
    most = max(record["rarity"] for record in lines)
    x = alt.X(
        "rarity:Q",
        title="percentile of samples",
        scale=alt.Scale(type="log", domain=[1, 1.15 * most], nice=False),
        axis=alt.Axis(
            values=[tick for tick in (1, 2, 10, 100, 1_000, 10_000, 100_000, 1_000_000) if tick <= most],
            labelExpr="datum.value == 1 ? '0' : format(100 - 100 / datum.value, '.8~g')",
        ),
    )
    low = min(record["us"] for record in (*lines, *trials))
    high = max(record["us"] for record in (*lines, *trials))
    y = alt.Y(
        "us:Q",
        title="latency, µs, log scale",
        scale=alt.Scale(type="log", nice=False, domain=[low / 1.15, high * 1.15]),
        axis=alt.Axis(values=log_ticks(low / 1.15, high * 1.15), format=",~g"),
    )
    tips = _tips(encodings, "block", "percentile", "latency", "samples", "flags")
    return _dots_and_line(encodings, trials, lines, x, y, _HEIGHT + 20, tips)


def distribution(got: Sequence[Record], wanted: Sequence[Record]) -> dict[str, Any]:
    """Distributions of delay, over the one that was wanted."""
    encodings = Encodings(got)
    low, high = (end(record["x"] for record in (*got, *wanted)) for end in (min, max))
    x = alt.X("x:Q", title="delay one way, ms", scale=alt.Scale(domain=[low, high], nice=True))
    y = alt.Y("y:Q", title="frames within it", axis=alt.Axis(format="~%", tickCount=5), scale=alt.Scale(domain=[0, 1]))
    behind = alt.Chart(data(wanted)).mark_line(strokeWidth=7, color=INK, opacity=0.2).encode(x=x, y=y)
    lines = (
        alt.Chart(data(got))
        .mark_line(strokeWidth=2)
        .encode(x=x, y=y, color=encodings.colour(), strokeDash=encodings.dash(), opacity=encodings.faded())
    )
    return finished(alt.layer(behind, lines.add_params(encodings.chosen)), _HEIGHT)


def cpu(records: Sequence[Record], title: str) -> dict[str, Any]:
    """CPU time per frame: a bar for the whole machine, a tick for the engine's own processes."""
    encodings = Encodings(records)
    tasks = list(dict.fromkeys(record["size"] for record in records))
    y = alt.Y("size:N", sort=tasks, title=None, axis=_task_axis(), scale=alt.Scale(paddingInner=0.25))
    lane = alt.YOffset("series:N", sort=list(dict.fromkeys(record["series"] for record in records)))
    each = alt.Chart(data(records)).encode(y=y, yOffset=lane, tooltip=_tips(encodings, "machine", "switch", "trials"))
    bars = each.mark_bar(cornerRadiusEnd=2).encode(
        x=alt.X("machine_ns:Q", title=title, axis=alt.Axis(tickCount=6)),
        color=encodings.colour(),
        opacity=encodings.faded(0.85),
    )
    own = each.mark_tick(thickness=3, color=INK).encode(x=alt.X("switch_ns:Q", title=title))
    return finished(
        alt.layer(bars.add_params(encodings.chosen), own), len(tasks) * (encodings.lanes * _LANE + _BETWEEN) + 10, 14
    )


def fdb_scaling(records: Sequence[Record]) -> dict[str, Any]:
    """Forwarding rate against the number of stations in the FDB."""
    axis = alt.Axis(values=sorted({record["x"] for record in records}), format="~s", labelOverlap=True)
    x = alt.X(
        "x:Q", title="stations in the FDB, log scale", scale=alt.Scale(type="log", padding=12, nice=False), axis=axis
    )
    y = alt.Y("y:Q", title="forwarding rate, frames/s", axis=rates_axis(), scale=alt.Scale(zero=True))
    return _curves(Encodings(records), records, x, y, _HEIGHT)


def port_scaling(trials: Sequence[Record], medians: Sequence[Record]) -> dict[str, Any]:
    """Forwarding rate against the number of ports."""
    axis = alt.Axis(values=sorted({record["ports"] for record in medians}), labelOverlap=True, format="d")
    x = alt.X(
        "ports:Q", title="ports, log scale", scale=alt.Scale(type="log", base=2, padding=12, nice=False), axis=axis
    )
    y = alt.Y("rate:Q", title="forwarding rate, frames/s", axis=rates_axis(), scale=alt.Scale(zero=True))
    return _dots_and_line(Encodings(medians), trials, medians, x, y, _HEIGHT)


def trend(points: Sequence[Record], levels: Sequence[Record], unit: str) -> dict[str, Any]:
    """A benchmark's times over commits: a dot a run, and the levels between the steps."""
    times = sorted(point["time"] for point in points)
    middle = times[len(times) // 2]
    domain = [min(times[0] * 0.98, middle * (1 - _ROOM)), max(times[-1] * 1.02, middle * (1 + _ROOM))]
    last = len(points) - 1
    commits = json.dumps([point["commit"][:_DIGITS] for point in points])
    axis = alt.Axis(
        values=sorted({round(i * last / (_LABELS - 1)) for i in range(_LABELS)}),
        labelExpr=f"{commits}[datum.value]",
        labelLimit=70,
        labelOverlap=True,
        grid=False,
    )
    x = alt.X("order:Q", title="commit", axis=axis, scale=alt.Scale(domain=[-0.5, last + 0.5], nice=False))
    y = alt.Y(
        "time:Q",
        title=f"time per round, {unit} (lower is faster)",
        scale=alt.Scale(domain=domain),
        axis=alt.Axis(tickCount=4),
    )
    tips = [
        alt.Tooltip(f"{name}:N", title=name.replace("_", " ")) for name in points[0] if name not in ("order", "time")
    ]
    runs = alt.Chart(data(points)).mark_point(filled=True, size=45, opacity=0.9, color="#2b7fd3")
    between = alt.Chart(data(levels)).mark_rule(strokeWidth=2, opacity=1)
    colours = alt.Scale(domain=["regression", "progression", "start"], range=["#d55e00", "#009e73", "#808890"])
    return finished(
        alt.layer(
            between.encode(x=alt.X("begin:Q"), x2="end:Q", y=y, color=alt.Color("kind:N", scale=colours, legend=None)),
            runs.encode(x=x, y=y, tooltip=tips),
        ),
        _TREND_HEIGHT,
    )


_CHARTS: Mapping[str, Callable[..., dict[str, Any]]] = MappingProxyType(
    {
        chart.__name__: chart
        for chart in (
            *(verdict, against_size, ratio_against_size, search_bounds, strip, loss_curve, forwarding_curve),
            *(latency, distribution, cpu, fdb_scaling, port_scaling, trend),
        )
    }
)


def draw(figure: Figure) -> dict[str, Any]:
    """The figure's chart as Vega-Lite."""
    return _CHARTS[figure.chart](**figure.data)


def _spans(
    records: Sequence[Record], low: alt.Y, high: str, point: alt.Y, tips: Sequence[str], *behind: alt.Chart
) -> dict[str, Any]:
    """A point with a line from low to high for each engine, against the frame size."""
    encodings = Encodings(records)
    x = alt.X(
        "size:N",
        sort=list(dict.fromkeys(record["size"] for record in records)),
        title="frame size with FCS",
        axis=alt.Axis(labelAngle=0),
        scale=alt.Scale(paddingInner=0.5, paddingOuter=0.25),
    )
    each = alt.Chart(data(records)).encode(
        x=x,
        xOffset=alt.XOffset("series:N", sort=list(dict.fromkeys(record["series"] for record in records))),
        color=encodings.colour(),
        opacity=encodings.faded(),
        tooltip=_tips(encodings, *tips),
    )
    span = each.mark_rule(strokeWidth=2).encode(y=low, y2=high)
    mark = each.mark_point(filled=True, size=75).encode(y=point, shape=encodings.shape())
    return finished(alt.layer(*behind, span, mark.add_params(encodings.chosen)), _HEIGHT)


def _dots_and_line(
    encodings: Encodings,
    trials: Sequence[Record],
    medians: Sequence[Record],
    x: alt.X,
    y: alt.Y,
    height: int,
    tips: Sequence[alt.Tooltip] = (),
) -> dict[str, Any]:
    line = (
        alt.Chart(data(medians))
        .mark_line(strokeWidth=2, interpolate="linear")
        .encode(x=x, y=y, color=encodings.colour(), strokeDash=encodings.dash(), opacity=encodings.faded())
    )
    dots = (
        alt.Chart(data(trials))
        .mark_point(filled=True, size=45)
        .encode(
            x=x,
            y=y,
            color=encodings.colour(),
            shape=encodings.shape(),
            opacity=encodings.faded(0.45),
            tooltip=list(tips) or _tips(encodings, *_TRIAL),
        )
    )
    return finished(alt.layer(line, dots.add_params(encodings.chosen)), height)


def _curves(encodings: Encodings, records: Sequence[Record], x: alt.X, y: alt.Y, height: int) -> dict[str, Any]:
    """Lines through points, each of which is a trial: one line for each engine and block."""
    each = alt.Chart(data(records)).encode(x=x, y=y, color=encodings.colour())
    line = each.mark_line(strokeWidth=2).encode(
        detail="block_number:N", strokeDash=encodings.dash(), opacity=encodings.faded()
    )
    tips = _tips(encodings, "block", "x_text", "y_text", *_TRIAL[1:])
    dots = each.mark_point(filled=True, size=55).encode(
        shape=encodings.shape(), opacity=encodings.faded(0.9), tooltip=tips
    )
    return finished(alt.layer(line, dots.add_params(encodings.chosen)), height)


def _task_axis(between: str = ", ") -> alt.Axis:
    """An axis of names, broken into lines."""
    expression = f"split(datum.label, {between!r})"
    return alt.Axis(labelExpr=expression, labelLimit=130, domain=False, ticks=False, labelLineHeight=14)


_TITLES = {
    "task": "test",
    "counts": "counted",
    "floor_text": "noise floor",
    "machine": "whole machine",
    "switch": "own processes",
    "ndr_text": "NDR",
    "pdr_text": "PDR",
    "offered_text": "most offered",
    "x_text": "at",
    "y_text": "found",
}
_TRIAL = ("block", "counts", "flags")


def _tips(encodings: Encodings, *names: str) -> list[alt.Tooltip]:
    who = ("engine", "run", "task") if len(encodings.runs) > 1 else ("engine", "task")
    return [alt.Tooltip(f"{name}:N", title=_TITLES.get(name, name)) for name in (*who, *names)]
