"""The report page.

Results as one HTML file that works offline, as Markdown and as pictures, all from the same parts: `evidence`
flattens results into records, `charts` and `tables` make parts of them, `sections` puts the parts in order, and
`document`, `markdown` and `pictures` write them down.

What these import is the extra `report`'s: see `require` before importing any of them.
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
