"""The HTML page.

One file with everything in it: style, script, the plotting library once, and every chart as data. A content security
policy forbids it to fetch anything, so that it shows the same without a network, and tells nobody that it is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from .drawn.charts import draw
from .parts import Document, figures_in


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


def _packaged(name: str) -> str:
    return (files(__package__ or "") / "templates" / name).read_text(encoding="utf-8")


@lru_cache
def _library() -> str:
    """Vega, Vega-Lite and Vega-Embed."""
    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle.replace("</script", "<\\/script")


def _as_data(value: Mapping[str, Any]) -> Markup:
    """JSON that cannot end the script element it stands in, whatever an engine calls itself."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("&", "\\u0026"))  # noqa: S704 - no markup is left in it
