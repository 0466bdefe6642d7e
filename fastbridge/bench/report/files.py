"""Report files, all of them.

The directory that `fastbridge compare --out` fills: the raw results, and everything drawn from them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from fastbridge.bench.results.files import writable_directory, writable_file, write_whole

from . import figures
from .evidence import Report
from .pytest_benchmark import to_pytest_benchmark
from .sections import document_of

RESULTS = "results.json"
PAGE = "report.html"
MARKDOWN = "report.md"
BENCHMARKS = "pytest-benchmark.json"
PICTURES = "pictures"


def holds_report(directory: Path) -> bool:
    """Whether the directory holds a report, or a part of one."""
    return any((directory / name).is_file() for name in (RESULTS, PAGE, MARKDOWN, BENCHMARKS))


@contextlib.contextmanager
def writable_report(directory: Path, way_out: str) -> Iterator[None]:
    """Make `directory`, or raise BenchError where a report cannot be written there; see `files`."""
    with writable_directory(directory, way_out):
        with writable_directory(directory / PICTURES, way_out):
            for name in (RESULTS, PAGE, MARKDOWN, BENCHMARKS):
                with writable_file(directory / name, way_out):
                    pass
        yield


def write_report(directory: Path, report: Report) -> None:
    """Write the results of a single run, and everything drawn from them. Raises OSError and BenchError.

    Pictures that only an earlier report had are removed.
    """
    for name, content in _contents(report):
        path = directory / name
        if content is None:
            path.unlink(missing_ok=True)
        else:
            path.parent.mkdir(exist_ok=True)
            write_whole(path, content)


def _contents(report: Report) -> Iterator[tuple[str, str | bytes | None]]:
    from . import html, markdown
    from .drawn.pictures import file_of, pictures

    (run,) = report.runs
    document = document_of(report)
    specs = pictures(document)
    yield RESULTS, run.results.to_json()
    yield PAGE, html.render(document)
    yield MARKDOWN, markdown.render(document, {name: f"{PICTURES}/{name}.svg" for name in specs})
    yield BENCHMARKS, to_pytest_benchmark(report)
    for name in figures.PICTURES:
        for kind in ("svg", "png"):
            yield f"{PICTURES}/{name}.{kind}", file_of(specs[name], kind) if name in specs else None
