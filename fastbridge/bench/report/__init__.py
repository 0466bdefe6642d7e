"""The report.

Results become an `evidence.Report` once, and the report becomes a `parts.Document`: sections of tables, figures and
texts. Terminal, HTML, Markdown and pictures are renderings of this document.

- rows: what every method finds in the recorded trials, engine by engine, with `statistics` for ratios and verdicts
- evidence: loaded runs and the records that figures show
- parts, sections: what a document consists of, and in which order
- tables, conditions, rfc2889, figures: the parts, from a report
- wording: how numbers, names and irregularities are written, everywhere alike
- terminal, markdown, html; `drawn` with all charts and pictures: the forms that a document takes
- pytest_benchmark: the results for another program; files: all of them in one directory

Only `html` and `drawn` need the extra `report`: see `require` before importing them.
"""

from __future__ import annotations

from importlib.util import find_spec

from fastbridge.errors import BenchError
from fastbridge.extras import way_to

_NEEDED = {"altair": "altair", "vl_convert": "vl-convert-python", "jinja2": "jinja2"}


def require() -> None:
    """Raise BenchError when a package that the page is made with is missing."""
    missing = [name for module, name in _NEEDED.items() if find_spec(module) is None]
    if missing:
        raise BenchError(f"a report needs {', '.join(missing)}: {way_to('report')}")
