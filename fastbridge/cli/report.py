"""`fastbridge report`, results read again.

Recomputes saved comparisons from their raw trials, on any machine, without measuring: in the terminal, as a page, as
Markdown, as pictures. One run is shown with all its numbers, several runs side by side with their ratios.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from fastbridge.console import make_console
from fastbridge.errors import BenchError

if TYPE_CHECKING:
    from fastbridge.bench.report.evidence import Report
    from fastbridge.bench.results.results import Results

_PICTURE = (".svg", ".png")


def _print_schema(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from fastbridge.bench.results.results import results_schema

        click.echo(json.dumps(results_schema(), indent=2, ensure_ascii=False))
        context.exit()


@click.command(epilog="Example: fastbridge report fastbridge-compare/results.json elsewhere.json -o report.html")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    metavar="OUT",
    type=click.Path(path_type=Path),
    help="Draw the results. The ending of OUT decides: .html, a page; .md, Markdown; .svg or .png, one picture; .json, "
    "for pytest-benchmark; no ending, a directory with all of these.",
)
@click.option("--picture", metavar="NAME", help="Which picture; a wrong name lists all.  [default: throughput]")
@click.option(
    "--schema",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_schema,
    help="Print the JSON Schema of results files instead. It says what every field means.",
)
def report(files: tuple[Path, ...], output: Path | None, picture: str | None) -> None:
    """Show saved results, or draw them as a page, Markdown or pictures.

    FILES come from `fastbridge compare`, here or on other machines: results.json, or its directory. Everything is
    recomputed from the raw trials. Several files are shown side by side; unlike machines only by their ratios.
    """
    from fastbridge.bench.report.evidence import Report

    if picture is not None and (output is None or output.suffix not in _PICTURE):
        raise click.UsageError("--picture is for -o FILE.svg or FILE.png")
    files = tuple(_results_in(path) for path in files)
    runs = Report.of([(label, _load(path)) for label, path in zip(_labels(files), files, strict=True)])
    if output is not None:
        if output.resolve() in [path.resolve() for path in files]:
            raise click.UsageError(f"{output} is one of the FILES; choose another place with -o")
        _draw(runs, output, picture or "throughput")
        make_console().print(f"written to {output}", soft_wrap=True)
        return
    from fastbridge.bench.report.sections import document_of
    from fastbridge.bench.report.terminal import show

    show(make_console(), document_of(runs))


def _results_in(path: Path) -> Path:
    """The results file that a report's directory holds."""
    from fastbridge.bench.report.files import RESULTS

    if not path.is_dir():
        return path
    if not (path / RESULTS).is_file():
        raise click.UsageError(f"{path} is a directory without {RESULTS}: name what fastbridge compare wrote")
    return path / RESULTS


def _load(path: Path) -> Results:
    from fastbridge.bench.report.rows import method_of
    from fastbridge.bench.results.results import Results

    results = Results.load(path)
    try:
        for task in results.tasks:
            method_of(task)
    except BenchError as error:
        raise BenchError(f"{path}: {error}") from None
    return results


def _labels(paths: Sequence[Path]) -> list[str]:
    """Names that tell the files apart: the shortest ends of their paths that differ."""
    if len({path.resolve() for path in paths}) < len(paths):
        raise click.UsageError(f"a file is given twice; give each once: {', '.join(map(str, paths))}")
    parts = [path.resolve().with_suffix("").parts for path in paths]
    while len(parts) > 1 and len({part[-1] for part in parts}) == 1 and min(map(len, parts)) > 1:
        parts = [part[:-1] for part in parts]  # a common end tells nothing apart
    for length in range(1, max(map(len, parts)) + 1):
        labels = ["/".join(part[-length:]) for part in parts]
        if len(set(labels)) == len(labels):
            return labels
    return [str(path) for path in paths]  # only their suffixes differ


def _draw(runs: Report, output: Path, picture: str) -> None:
    from fastbridge.bench import report as page
    from fastbridge.bench.report.files import writable_report, write_report
    from fastbridge.bench.report.pytest_benchmark import to_pytest_benchmark
    from fastbridge.bench.results.files import writable_file, write_whole

    way_out = "choose another place with -o"
    whole = output.is_dir() or not output.suffix
    if runs.is_comparison and (whole or output.suffix == ".json"):
        raise click.UsageError(
            "several FILES can become a page (.html), Markdown (.md) or a picture (.svg, .png); choose one with -o"
        )
    if output.suffix != ".json":
        page.require()
    if whole:
        with writable_report(output, way_out):
            write_report(output, runs)
        _say_left_out(runs)
        return
    with writable_file(output, way_out):
        drawn = to_pytest_benchmark(runs) if output.suffix == ".json" else _drawn(runs, output.suffix, picture)
        write_whole(output, drawn)
    if output.suffix == ".json":
        _say_left_out(runs)


def _say_left_out(runs: Report) -> None:
    from fastbridge.bench.report.pytest_benchmark import left_out

    for text in left_out(runs):
        make_console(stderr=True).print(f"left out for pytest-benchmark: {text}", soft_wrap=True)


def _drawn(runs: Report, ending: str, picture: str) -> str | bytes:
    from fastbridge.bench.report import figures, html, markdown
    from fastbridge.bench.report.sections import document_of

    if ending == ".html":
        return html.render(document_of(runs))
    if ending == ".md":
        return markdown.render(document_of(runs))
    if ending not in _PICTURE:
        raise click.UsageError(f"cannot draw {ending}; choose .html, .md, .svg, .png, .json or a directory")
    if picture not in figures.PICTURES:
        raise click.UsageError(f"there is no picture {picture!r}; there are {', '.join(figures.PICTURES)}")
    from fastbridge.bench.report.drawn.pictures import file_of, pictures

    spec = pictures(document_of(runs)).get(picture)
    if spec is None:
        raise BenchError(f"no picture {picture!r}: these results have nothing for it; another profile does")
    return file_of(spec, "svg" if ending == ".svg" else "png")
