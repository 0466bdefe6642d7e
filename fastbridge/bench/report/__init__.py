"""The report.

One `evidence.Report` is made of the results, once, and everything is drawn from it: text in a terminal, one HTML file
that works offline, Markdown, pictures and a file for pytest-benchmark.

- rows: what every method finds in the recorded trials, engine by engine, with `statistics` for ratios and verdicts
- evidence: loaded runs and the records that charts are drawn from
- parts, sections: what a report consists of, and in which order
- tables, conditions, rfc2889: the parts that are tables; `drawn` has the charts
- wording: how numbers, names and irregularities are written, everywhere alike
- terminal, markdown, html, pytest_benchmark: the forms it takes; files: all of them in one directory

Pages, Markdown and pictures need the extra `report`: see `require` before importing `html`, `sections` or `drawn`.
"""

from __future__ import annotations

from importlib.util import find_spec

from fastbridge.bench.extras import way_to
from fastbridge.errors import BenchError

_NEEDED = {"altair": "altair", "vl_convert": "vl-convert-python", "jinja2": "jinja2"}


def require() -> None:
    """Raise BenchError when a package that the page is made with is missing."""
    missing = [name for module, name in _NEEDED.items() if find_spec(module) is None]
    if missing:
        raise BenchError(f"a report needs {', '.join(missing)}: {way_to('report')}")
