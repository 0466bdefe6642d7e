"""`fastbridge compare`, the bench.

Measures fastbridge against the Linux bridge and others, prints ratios with their intervals, and
writes everything that was measured as JSON.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import rich_click as click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from fastbridge import bench
from fastbridge.bench import Results, Row
from fastbridge.bench.compare import Progress as Report
from fastbridge.bench.engines.fastbridge import Fastbridge
from fastbridge.errors import BenchError

from .options import read_policy
from .output import make_console, make_table

_VERDICT_STYLES = {"win": "bold green", "loss": "bold red", "unfit": "red", "no difference": "yellow"}
_PLAIN_STEPS = 10  # lines of progress where there is no terminal


@click.command(epilog="Example: fastbridge compare --quick -o results.json")
@click.option(
    "--quick", is_flag=True, expose_value=False, help="The quick profile, under two minutes; so far the only one."
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    default="fastbridge-compare.json",
    show_default=True,
    help="Where the results go.",
)
@click.option("--seed", metavar="N", type=click.IntRange(0), help="Of the order of the trials.  [default: random]")
@click.option(
    "--arp",
    metavar="POLICY",
    callback=read_policy,
    help="Measure fastbridge with this policy, as of `fastbridge run --arp`.",
)
@click.pass_context
def compare(context: click.Context, output: Path, seed: int | None, arp: str | None) -> None:
    """Measure fastbridge against the Linux bridge on this machine.

    Every engine forwards between two pods of its own; their trials take turns in random order. Frame
    sizes include the FCS. Ctrl-C keeps what was measured so far.
    """
    console = make_console()
    with _writable(output):
        with _progress(console) as report:
            results = (_contest(arp) if arp else bench.compare)(seed=seed, progress=report)
        try:
            results.save(output)
        finally:  # whatever becomes of the file, the measurement is not lost
            _show(console, results)
    console.print(f"written to {output}", soft_wrap=True)
    if results.interrupted:
        context.exit(130)


def _contest(arp: str) -> partial[Results]:
    """The usual engines, fastbridge with a policy."""
    options = ("--arp", arp)
    engines = [replace(it, options=options) if isinstance(it, Fastbridge) else it for it in bench.ENGINES]
    return partial(bench.compare, engines)


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[None]:
    """Find out before the measurement, not after it, that a file cannot be written."""
    existed = path.exists()
    try:
        path.open("a").close()
    except OSError as error:
        raise BenchError(f"cannot write {path}: {error.strerror}; choose another place with -o") from error
    try:
        yield
    except BaseException:
        if not existed:
            path.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _progress(console: Console) -> Iterator[Report]:
    """Shows on stderr how far it is, what runs now and how long it will take."""
    stderr = make_console(stderr=True)
    if not stderr.is_terminal:
        yield (
            lambda done, total, text: (
                stderr.print(f"{done / total:4.0%}  {text}") if done % max(1, total // _PLAIN_STEPS) == 0 else None
            )
        )
        return
    columns = (
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=stderr, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, text: bar.update(task, completed=done, total=total, description=text)


def _show(console: Console, results: Results) -> None:
    rows = bench.rows(results)
    console.print(_table(results, rows))
    console.print()
    for row in rows:
        for remark in (f"unfit: {row.unfit}" if row.unfit else None, *row.flags):
            if remark:
                console.print(f"  {row.scenario}, {row.engine}: {remark}", style="dim")
    floors = {row.scenario: row.noise_floor for row in rows}
    known = [f"{scenario} ± {floor:.1%}" for scenario, floor in floors.items() if floor is not None]
    lengths = [f"{scenario.name} {scenario.seconds:g} s" for scenario in results.scenarios]
    alone = [
        f"{row.scenario} {row.cpu_machine_ns:,.0f}"
        for row in rows
        if row.verdict == "ceiling" and row.cpu_machine_ns is not None
    ]
    roles = ", ".join(f"{role} {cpu}" for role, cpu in results.fingerprint.layout.items())
    machine = results.fingerprint
    console.print(
        f"Ratios are to {results.baseline}: geometric means over {results.blocks} blocks, with 95 % intervals. "
        f"Trials: {', '.join(lengths)}.\n"
        f"Noise floor ({results.baseline} against itself): {', '.join(known) or 'not measured'}. A win or a loss is "
        "claimed only outside of it.\n"
        "CPU ns: busy time of all CPUs for each forwarded frame, waiting in a spin included, less what the sender "
        f"alone takes for a frame ({', '.join(alone) or 'not measured'}). Layout: {roles}.\n"
        f"{machine.cpu}, {machine.cpus} CPUs, Linux {machine.kernel.split()[0]}, hypervisor: {machine.hypervisor}; "
        f"seed {results.seed}"
    )
    if results.interrupted:
        console.print("Interrupted: these are the trials until then.", style="yellow")


def _table(results: Results, rows: list[Row]) -> Table:
    numbers = ("frames/s", "Gb/s", "loss", "CPU ns")
    table = make_table(
        f"fastbridge compare, {results.profile}", "engine", *numbers, "ratio [95 %]", "verdict", right=numbers
    )
    scenario = None
    for row in rows:
        if scenario != row.scenario:
            scenario = row.scenario
            table.add_row(scenario, style="bold")
        table.add_row(
            f" {results.baseline if row.engine == results.control else row.engine}",
            "" if row.frames_per_second is None else f"{row.frames_per_second:,.0f}",
            "" if row.gigabits_per_second is None else f"{row.gigabits_per_second:.2f}",
            "" if row.loss_ratio is None else f"{row.loss_ratio:.1%}",
            "" if row.cpu_added_ns is None or row.verdict == "ceiling" else f"{row.cpu_added_ns:,.0f}",
            f"{row.ratio.mean:.2f} [{row.ratio.low:.2f}…{row.ratio.high:.2f}]" if row.ratio else "",
            row.verdict,
            style=_VERDICT_STYLES.get(row.verdict, ""),
        )
    return table
