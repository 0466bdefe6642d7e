"""Report files, all of them.

What `fastbridge compare --out` leaves behind: the raw results, and everything that is drawn from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .files import write_whole
from .results import Results
from .saved_benchmarks import to_pytest_benchmark

RESULTS = "results.json"
PICTURES = "pictures"


def write_report(directory: Path, results: Results) -> None:
    """Write the results and all that is drawn from them, the results first. Raises OSError and BenchError.

    Pictures of an earlier report that this one has nothing for are removed.
    """
    for name, content in _contents(results):
        path = directory / name
        if content is None:
            path.unlink(missing_ok=True)
        else:
            path.parent.mkdir(exist_ok=True)
            write_whole(path, content)


def _contents(results: Results) -> Iterator[tuple[str, str | bytes | None]]:
    from .page import document, markdown, pictures

    runs = [("this run", results)]
    yield RESULTS, results.to_json()
    yield "report.html", document.render(runs)
    yield "report.md", markdown.render(runs, beside=PICTURES)
    yield "pytest-benchmark.json", to_pytest_benchmark(results)
    for name in pictures.PICTURES:
        for kind in ("svg", "png"):
            yield f"{PICTURES}/{name}.{kind}", pictures.draw(name, runs, kind)
