"""Results, shown.

The tables that `compare` prints after measuring and `report` from a file: the contest first, then what each
method found, then what is irregular and where it was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from fastbridge.bench.machine.likeness import described, differences
from fastbridge.bench.methods import Method
from fastbridge.bench.methods.latency import PERCENTILES
from fastbridge.bench.results.results import Results, TaskRecord
from fastbridge.console import make_table, print_lines

from . import wording
from .evidence import Report
from .rows import Row, method_of
from .tables import STYLES

_COLOURS = {"win": "bold green", "loss": "bold red", "even": "yellow"}  # of `tables.STYLES`
_CONTEST = ("engine", "frames/s", "Gb/s", "loss", "CPU\nns", "switch\nns", "ratio [95 %]", "verdict")
_WORDS = ("engine", "ratio [95 %]", "verdict")  # columns of text
_MOST_COLUMNS = 6  # of values, beside an engine's name, ratio and verdict


def show_results(console: Console, report: Report) -> None:
    """Print everything that is known from a single run; raise BenchError where the record contradicts itself."""
    (run,) = report.runs
    results, rows, methods = run.results, run.rows, run.methods
    measured = [task for task in results.tasks if any(row.task == task.name for row in rows)]
    contest = [task for task in measured if wording.is_contest(task, rows)]
    latency = [task for task in measured if wording.latency_prefix(methods[task.name]) is not None]
    others = [task for task in measured if task not in contest and wording.latency_prefix(methods[task.name]) != ""]
    console.print(f"fastbridge compare, profile {results.profile}", style="bold")
    print_lines(console, wording.warnings(results, rows), indent="", style="yellow")
    for table in _verdicts(contest, latency, rows, methods):
        console.print()
        console.print(table)
    for name in dict.fromkeys(task.method for task in others):
        for table in _method_tables([task for task in others if task.method == name], rows):
            console.print()
            console.print(table)
    console.print()
    for task in results.tasks:
        for text in _curves(methods[task.name], [row for row in rows if row.task == task.name]):
            print_lines(console, [f"{task.name}, {text}"])
    console.print()
    print_lines(console, wording.engine_lines(results))
    print_lines(console, wording.irregularities(results, rows), style="dim")
    console.print(_conditions(results, rows, {task.name for task in contest}))
    if results.interrupted:
        console.print("Interrupted: these are the trials until then.", style="yellow")


def show_comparison(console: Console, report: Report) -> None:
    """Print the ratios of several runs side by side: those may be compared where absolute numbers may not."""
    rows = {run.label: run.rows for run in report.runs}
    made = [(label, row) for label, found in rows.items() for row in found]
    for task in dict.fromkeys(row.task for _, row in made):
        table = make_table(task, "engine", *rows)
        for engine in dict.fromkeys(wording.engine(row) for _, row in made if row.task == task):
            cells = []
            for found in rows.values():
                own = [row for row in found if (row.task, wording.engine(row)) == (task, engine)]
                cells.append(f"{wording.ratio(own[0].ratio)} {own[0].verdict}".strip() if own else "not measured")
            table.add_row(engine, *cells)
        console.print(table)
        console.print()
    runs = {run.label: run.results for run in report.runs}
    first, here = next(iter(runs.items()))
    for label, results in runs.items():
        differing = differences(described(asdict(here.fingerprint)), described(asdict(results.fingerprint)))
        print_lines(console, [f"{label}: {_machine(results)}; ratios are to {results.baseline}"], indent="")
        print_lines(console, (f"unlike {first}: {name} {there}" for name, (_, there) in differing.items()))
    console.print("These are ratios; each run's own numbers, intervals' floors and conditions: one FILE at a time.")


def _verdicts(
    contest: list[TaskRecord], latency: list[TaskRecord], rows: list[Row], methods: Mapping[str, Method]
) -> Iterator[Table]:
    """What engines are compared by: rates first, then how long a frame takes."""
    yield from _stack(contest, rows, _CONTEST, _contest_cells)
    prefixes = {task.name: wording.latency_prefix(methods[task.name]) or "" for task in latency}

    def cells(row: Row) -> tuple[str, ...]:
        values = (row.values.get(prefixes[row.task] + name) for name in PERCENTILES)
        shown = ("" if value is None else wording.number(value, "µs") for value in values)
        return (wording.engine(row), *shown, wording.ratio(row.ratio), row.verdict)

    heads = ("engine", *(f"{wording.words(name)}\nµs" for name in PERCENTILES), "ratio [95 %]", "verdict")
    where = {"": "", "at_50_": ", at 50 % of the PDR"}
    yield from _stack(latency, rows, heads, cells, lambda task: where[prefixes[task.name]])


def _stack(
    tasks: list[TaskRecord],
    rows: list[Row],
    heads: tuple[str, ...],
    cells: Callable[[Row], tuple[str, ...]],
    note: Callable[[TaskRecord], str] = lambda task: "",
) -> Iterator[Table]:
    """A table a task, with the same columns; so narrow that a terminal of 80 has room for most."""
    lines = {task.name: [(row, cells(row)) for row in rows if row.task == task.name] for task in tasks}
    texts = [[max(head.split("\n"), key=len) for head in heads]]
    texts += [list(line) for of in lines.values() for _, line in of]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for task in tasks:
        table = make_table(task.name + note(task), *heads, right=tuple(head for head in heads if head not in _WORDS))
        table.show_header = task is tasks[0]
        table.padding = 0
        for column, width in zip(table.columns, widths, strict=True):
            column.width = width
        for row, line in lines[task.name]:
            table.add_row(*line, style=_COLOURS.get(STYLES.get(row.verdict, ""), ""))
        yield table


def _contest_cells(row: Row) -> tuple[str, ...]:
    return (wording.engine(row), *wording.rates(row), wording.ratio(row.ratio), row.verdict)


def _method_tables(tasks: list[TaskRecord], rows: list[Row]) -> Iterator[Table]:
    method = method_of(tasks[0])
    found = [row for row in rows if row.task in {task.name for task in tasks}]
    names = [name for name in method.units if not name.endswith("samples") and any(name in row.values for row in found)]
    if len(names) > _MOST_COLUMNS:
        yield _turned(method, tasks, found, names)
    elif names:
        heads = tuple(f"{wording.words(name)}\n{wording.shown_unit(method.units[name])}" for name in names)

        def cells(row: Row) -> tuple[str, ...]:
            return (
                wording.engine(row),
                *(wording.cell(method, name, row) for name in names),
                wording.ratio(row.ratio),
                row.verdict,
            )

        yield from _stack(
            tasks, found, ("engine", *heads, "ratio [95 %]", "verdict"), cells, lambda _: f" ({method.section})"
        )


def _turned(method: Method, tasks: list[TaskRecord], rows: list[Row], names: list[str]) -> Table:
    """A column an engine, a line a value: for methods that find many."""
    engines = list(dict.fromkeys(wording.engine(row) for row in rows))
    title = f"{method.name.replace('-', ' ').capitalize()} ({method.section})"
    table = make_table(title, "", *engines, right=tuple(engines))
    for task in tasks:
        own = {wording.engine(row): row for row in rows if row.task == task.name}
        table.add_row(method_of(task).subject, style="bold")
        for name in names:
            cells = [wording.cell(method, name, own[engine]) if engine in own else "" for engine in engines]
            table.add_row(f" {wording.words(name)}, {wording.shown_unit(method.units[name])}", *cells)
    return table


def _curves(method: Method, rows: list[Row]) -> Iterator[str]:
    """Each curve of each engine in a line, point after point."""
    for row in rows:
        for name, points in row.series.items():
            x_unit, y_unit = method.units[name].split(" → ")
            shown = ", ".join(f"{wording.number(x, x_unit)} → {wording.number(y, y_unit)}" for x, y in points)
            yield f"{wording.engine(row)}: {x_unit} → {wording.words(name)} ({wording.shown_unit(y_unit)}): {shown}"


def _conditions(results: Results, rows: list[Row], contest: set[str]) -> str:
    known = [f"{task} ± {floor:.1%}" for task, floor in wording.noise_floors(rows).items()]
    alone = [
        f"{row.task} {row.cpu_machine_ns:,.0f}"
        for row in rows
        if row.is_direct and row.cpu_machine_ns is not None and row.task in contest
    ]
    return (
        f"Ratios are to {results.baseline}: geometric means over blocks, with 95 % intervals. Frame sizes include the "
        "FCS, Gb/s do not.\n"
        f"Noise floor ({results.baseline} against itself): {', '.join(known) or 'not measured'}. A win or a loss is "
        "claimed only outside of it.\n"
        "CPU ns: busy time of all CPUs for each forwarded frame, waiting in a spin included, less what the direct veth "
        f"pair takes for a frame ({', '.join(alone) or 'not measured'}); switch ns: of the engine's own processes.\n"
        f"{_machine(results)}; seed {results.seed}"
    )


def _machine(results: Results) -> str:
    machine = results.fingerprint
    roles = ", ".join(f"{role} {cpu}" for role, cpu in machine.layout.items())
    kernel = machine.kernel.partition(" ")[0]
    return f"{machine.cpu}, {machine.cpus} CPUs ({roles}), Linux {kernel}, hypervisor: {machine.hypervisor}"
