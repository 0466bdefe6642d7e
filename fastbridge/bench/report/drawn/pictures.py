"""Pictures for elsewhere.

The page's charts as SVG and PNG, for READMEs and slides: on white, with a title and where they were measured. Drawn
without a browser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal

import vl_convert

from fastbridge.bench.report.evidence import Report
from fastbridge.bench.report.parts import Figure
from fastbridge.bench.report.sections import subtitle_of

from . import figures
from .palette import LIGHT
from .style import CHOSEN, INK, LEGEND_COLUMN

_BLACK = "#1c2127"
_WIDTH = 640  # of a picture with one chart
_HALF = 460  # of a chart in one with several
_SCALE = 2.0  # of PNGs: slides are shown large

_Drawing = Callable[[Report], Iterator[Figure]]

# What is drawn of unlike machines too is in both.
_RATIOS: Mapping[str, _Drawing] = MappingProxyType(
    {"verdict": figures.verdict, "throughput": figures.throughput_ratios},
)
PICTURES: Mapping[str, _Drawing] = MappingProxyType(
    {
        "verdict": figures.verdict,
        "throughput": figures.throughput,
        "ndr-pdr": figures.search_bounds,
        "tcp": figures.tcp,
        "requests": figures.requests,
        "loss": figures.loss,
        "latency": figures.latency,
        "cpu": figures.cpu,
        "scaling": figures.scaling,
        "forwarding-rate": figures.forwarding,
    }
)


def draw(spec: dict[str, Any], kind: Literal["svg", "png"]) -> str | bytes:
    """A picture's file."""
    if kind == "svg":
        return str(vl_convert.vegalite_to_svg(spec))
    return bytes(vl_convert.vegalite_to_png(spec, scale=_SCALE))


def picture(name: str, report: Report) -> dict[str, Any] | None:
    """The Vega-Lite of one of PICTURES, None where the report has nothing for it.

    Charts that belong together are in one picture.
    """
    drawings = _RATIOS if report.unlikeness else PICTURES
    drawn = list(drawings[name](report)) if name in drawings else []
    if not drawn:
        return None
    width = _WIDTH if len(drawn) == 1 else _HALF
    specs = [_still(figure, width) for figure in drawn]
    config = {**specs[0]["config"], "background": LIGHT, "padding": 16}
    config["legend"] = {**config["legend"], "columns": width // LEGEND_COLUMN}
    where = subtitle_of(report)
    if len(drawn) == 1:
        return {**specs[0], "config": config, "title": {"text": drawn[0].title, "subtitle": where}}
    datasets: dict[str, Any] = {}  # those of all charts have their place at the top
    for spec in specs:
        del spec["config"]
        datasets |= spec.pop("datasets", {})
    independent = dict.fromkeys(("color", "shape", "strokeDash", "opacity", "xOffset", "yOffset"), "independent")
    return {
        "$schema": specs[0]["$schema"],
        "config": config,
        "datasets": datasets,
        "title": {"text": where, "fontSize": 12, "fontWeight": "normal"},
        "concat": specs,
        "columns": 2,
        "spacing": 36,
        "resolve": {"scale": independent},
    }


def _still(figure: Figure, width: int) -> dict[str, Any]:
    """The chart without what only a page has: a width to adapt to, its text's colour, a legend to click on."""
    spec: dict[str, Any] = _without_interaction(figure.spec)
    del spec["autosize"]
    return {**spec, "width": width, "title": figure.title}


def _without_interaction(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_interaction(each) for each in value]
    if value == INK:
        return _BLACK
    if not isinstance(value, Mapping):
        return value
    if value.get("condition", {}).get("param") == CHOSEN:
        return {"value": value["condition"]["value"]}
    return {
        key: each if key == "datasets" else _without_interaction(each) for key, each in value.items() if key != "params"
    }
