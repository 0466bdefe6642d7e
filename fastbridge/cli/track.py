"""`fastbridge track`, the trend.

Reads the files that pytest-benchmark or `fastbridge compare` saved, commit after commit, and says where the speed has
changed by more than noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import rich_click as click
from rich.console import Console

from fastbridge.bench import report as page
from fastbridge.bench.results.files import writable_file, write_whole
from fastbridge.bench.trend.storage import Machine, read_storage
from fastbridge.bench.trend.track import RECENT, SHOWN, Trend, trends
from fastbridge.bench.trend.words import LEGEND, change, duration, short_names, step_lines
from fastbridge.console import make_console, make_table, print_lines

REGRESSED = 3  # exit status: 1 and 2 are errors
_BARS = "▁▂▃▄▅▆▇█"
_STYLES = {"regression": "bold red", "progression": "bold green", "too noisy": "yellow", "too few runs": "dim"}


@click.command(epilog="Example: pytest --benchmark-only --benchmark-autosave && fastbridge track -o trend.html")
@click.argument("storage", metavar="[STORAGE]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="Also draw it: an HTML page.")
@click.option(
    "--recent",
    metavar="RUNS",
    type=click.IntRange(1),
    default=RECENT,
    show_default=True,
    help="Report a step, and let it set the exit status, while it is within this many last runs. A drift counts "
    "while it lasts.",
)
@click.pass_context
def track(context: click.Context, storage: tuple[Path, ...], output: Path | None, recent: int) -> None:
    """Show how the speed of every benchmark changes over commits.

    STORAGE is pytest-benchmark's directory (default: .benchmarks), or files like those in it. Or run `fastbridge
    compare --out runs/COMMIT` after every commit, and track runs/*/pytest-benchmark.json. Only runs of like machines
    make a trend. A step is a change of level that jumpavg finds, of three standard errors of the noise between runs or
    more. A drift is a slow change: over the last 12 runs, more than the noise between neighbouring runs explains. The
    exit status is 3 when a benchmark has become slower, by a step or a drift, and 0 when none has.
    """
    if output is not None and output.suffix != ".html":
        raise click.UsageError(f"{output}: track draws only a page; choose a name that ends in .html")
    found = trends(read_storage(*(storage or [Path(".benchmarks")])), recent=recent)
    console = make_console()
    for machine in dict.fromkeys(trend.machine for trend in found):
        _show(console, machine, [trend for trend in found if trend.machine == machine])
    console.print(LEGEND)
    if output is not None:
        page.require()
        from fastbridge.bench.trend import page as trend_page

        with writable_file(output, "choose another place with -o"):
            write_whole(output, trend_page.render(found))
        console.print(f"written to {output}", soft_wrap=True)
    regressed = [trend for trend in found if trend.is_regressed]
    if regressed:
        console.print(f"slower, outside of the noise: {len(regressed)} of {len(found)} benchmarks", style="bold red")
        context.exit(REGRESSED)


def _show(console: Console, machine: Machine, found: Sequence[Trend]) -> None:
    names = short_names([trend.name for trend in found])
    columns = ("benchmark", "runs", "speed", "last", "change", "noise", "verdict")
    table = make_table(str(machine), *columns, right=("runs", "last", "change", "noise"))
    for name, trend in zip(names, found, strict=True):
        table.add_row(
            name,
            str(len(trend.points)),
            _bars([1.0 / point.seconds for point in trend.points[-SHOWN:]]),
            duration(trend.points[-1].seconds),
            "" if trend.last is None else change(trend.last.change),
            "" if trend.noise is None else f"{trend.noise:.1%}",
            trend.verdict,
            style=_STYLES.get(trend.verdict, ""),
        )
    console.print(table)
    console.print()
    for name, trend in zip(names, found, strict=True):
        for line in step_lines(trend):
            print_lines(console, [f"{name}: {line}"])
    console.print()


def _bars(speeds: Sequence[float]) -> str:
    """One bar for each run. The scale begins at 0, so that noise looks as small as it is."""
    most = max(speeds)
    return "".join(_BARS[min(len(_BARS) - 1, int(speed / most * len(_BARS)))] for speed in speeds)
