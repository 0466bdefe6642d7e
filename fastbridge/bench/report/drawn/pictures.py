"""Pictures for elsewhere.

The page's charts as SVG and PNG, for READMEs and slides: on white, with a title and the machine. No browser is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import vl_convert

from fastbridge.bench.report.parts import Document, Figure, figures_in

from .charts import draw
from .palette import LIGHT
from .style import CHOSEN, INK, LEGEND_COLUMN

_BLACK = "#1c2127"
_WIDTH = 640  # of a picture with one chart
_HALF = 460  # of a chart in one with several
_SCALE = 2.0  # of PNGs: slides are shown large


def file_of(spec: dict[str, Any], kind: Literal["svg", "png"]) -> str | bytes:
    """A picture's file."""
    if kind == "svg":
        return str(vl_convert.vegalite_to_svg(spec))
    return bytes(vl_convert.vegalite_to_png(spec, scale=_SCALE))


def pictures(document: Document) -> dict[str, dict[str, Any]]:
    """Name → Vega-Lite of all pictures of the document: charts that belong together are in one."""
    figures = [each for section in document.sections for each in figures_in(section.parts)]
    names = dict.fromkeys(figure.picture for figure in figures)
    return {name: _together([each for each in figures if each.picture == name], document.subtitle) for name in names}


def _together(figures: Sequence[Figure], where: str) -> dict[str, Any]:
    width = _WIDTH if len(figures) == 1 else _HALF
    specs = [_still(figure, width) for figure in figures]
    config = {**specs[0]["config"], "background": LIGHT, "padding": 16}
    config["legend"] = {**config["legend"], "columns": width // LEGEND_COLUMN}
    if len(figures) == 1:
        return {**specs[0], "config": config, "title": {"text": figures[0].title, "subtitle": where}}
    datasets: dict[str, Any] = {}  # Vega-Lite wants the data of all charts at the top
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
    """The chart without what only a page has: a changing width, the text's colour, a legend to click on."""
    spec: dict[str, Any] = _without_interaction(draw(figure))
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
