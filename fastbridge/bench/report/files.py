"""Report files, all of them.

What `fastbridge compare --out` leaves behind: the raw results, and everything that is drawn from them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from fastbridge.bench.results.files import writable_directory, writable_file, write_whole
from fastbridge.bench.results.results import Results

from .pytest_benchmark import to_pytest_benchmark

RESULTS = "results.json"
PAGE = "report.html"
MARKDOWN = "report.md"
BENCHMARKS = "pytest-benchmark.json"
PICTURES = "pictures"


def holds_report(directory: Path) -> bool:
    """Whether there is one, or a part of one."""
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
    from . import html as document
    from . import markdown
    from .drawn import pictures

    runs = [("this run", results)]
    yield RESULTS, results.to_json()
    yield PAGE, document.render(runs)
    yield MARKDOWN, markdown.render(runs, beside=PICTURES)
    yield BENCHMARKS, to_pytest_benchmark(results)
    for name in pictures.PICTURES:
        for kind in ("svg", "png"):
            yield f"{PICTURES}/{name}.{kind}", pictures.draw(name, runs, kind)
