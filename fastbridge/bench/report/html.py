"""The HTML page.

One file holds everything: style, script, the plotting library once, and every chart as data. A content security policy
forbids the page to fetch anything: it looks the same without a network, and no server learns that somebody reads it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from itertools import groupby
from typing import Any

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from .drawn.charts import draw
from .parts import Cell, Document, figures_in

_PART = re.compile(r"[^/_:.,\[-]*[/_:.,\[-]*")


def render(document: Document) -> str:
    """The document as HTML; sections that have no parts are left out and named at the end."""
    shown = [section for section in document.sections if section.parts]
    charts = {figure.name: draw(figure) for section in shown for figure in figures_in(section.parts)}
    environment = Environment(
        loader=PackageLoader(__package__ or ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"spans": _spans, "breakable": _breakable}
    environment.tests["kind"] = lambda part, kind: type(part).__name__ == kind
    return environment.get_template("page.html.j2").render(
        document=document,
        sections=shown,
        missing=[section for section in document.sections if not section.parts],
        style=Markup(_packaged("page.css")),  # noqa: S704 - our own
        script=Markup(_packaged("page.js")),  # noqa: S704
        library=Markup(_library()) if charts else "",  # noqa: S704
        charts=_as_data(charts),
    )


def _spans(rows: Sequence[Sequence[Cell]]) -> Iterator[tuple[Sequence[Cell], int]]:
    """Each row with the number of rows that its first cell stands for; 0 where an earlier cell does."""
    for _, group in groupby(rows, key=lambda row: row[0].text):
        first, *others = group
        yield first, 1 + len(others)
        yield from ((row, 0) for row in others)


def _breakable(text: str) -> Markup:
    """A name that may be broken between its parts, as in a file's path or a test's parameters."""
    return Markup("<wbr>").join(_PART.findall(text))


def _packaged(name: str) -> str:
    return (files(__package__ or "") / "templates" / name).read_text(encoding="utf-8")


@lru_cache
def _library() -> str:
    """Vega, Vega-Lite and Vega-Embed."""
    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle.replace("</script", "<\\/script")


def _as_data(value: Mapping[str, Any]) -> Markup:
    """JSON that cannot end its script element, whatever an engine's name is."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("&", "\\u0026"))  # noqa: S704 - without markup
