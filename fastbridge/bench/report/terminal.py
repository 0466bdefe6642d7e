"""Results, shown.

The tables that `compare` prints after measuring and `report` from a file: the contest first, then what each
method found, then what is irregular and where it was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict

from rich.console import Console, RenderableType
from rich.table import Table as DrawnTable

from fastbridge.bench.machine.likeness import described, differences
from fastbridge.bench.methods import Method
from fastbridge.bench.methods.latency import PERCENTILES
from fastbridge.bench.results.results import Results, TaskRecord
from fastbridge.console import make_table, print_lines

from . import wording
from .evidence import Report
from .parts import Cell, Column, Table
from .rows import Row
from .tables import claim

_COLOURS = {"win": "bold green", "loss": "bold red", "even": "yellow", "head": "bold"}  # of a row, by its last cell
_ENGINE = Column("engine", number=False)
_CLAIM = (Column("ratio [95 %]", number=False), Column("verdict", number=False))
_RATES = (Column("frames/s"), Column("Gb/s"), Column("loss"), Column("CPU", "ns"), Column("switch", "ns"))
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
        for table in _method_tables([task for task in others if task.method == name], rows, methods):
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
        lines = []
        for engine in dict.fromkeys(wording.engine(row) for _, row in made if row.task == task):
            cells = []
            for found in rows.values():
                own = [row for row in found if (row.task, wording.engine(row)) == (task, engine)]
                cells.append(f"{wording.ratio(own[0].ratio)} {own[0].verdict}".strip() if own else "not measured")
            lines.append([Cell(engine), *map(Cell, cells)])
        console.print(_drawn(Table(task, [_ENGINE, *(Column(label, number=False) for label in rows)], lines)))
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
) -> Iterator[RenderableType]:
    """What engines are compared by: rates first, then how long a frame takes."""
    yield from _stack([_table(task.name, task, _RATES, rows, wording.rates) for task in contest])
    columns = [Column(wording.words(name), "µs") for name in PERCENTILES]
    where = {"": "", "at_50_": ", at 50 % of the PDR"}
    tables = []
    for task in latency:
        prefix = wording.latency_prefix(methods[task.name]) or ""
        names = [prefix + name for name in PERCENTILES]
        tables.append(_table(task.name + where[prefix], task, columns, rows, _values(methods[task.name], names)))
    yield from _stack(tables)


def _method_tables(tasks: list[TaskRecord], rows: list[Row], methods: Mapping[str, Method]) -> Iterator[RenderableType]:
    method = methods[tasks[0].name]
    found = [row for row in rows if row.task in {task.name for task in tasks}]
    names = [name for name in method.units if not name.endswith("samples") and any(name in row.values for row in found)]
    if len(names) > _MOST_COLUMNS:
        yield _drawn(_turned(tasks, found, names, methods))
    elif names:
        columns = [Column(wording.words(name), wording.shown_unit(method.units[name])) for name in names]
        values = _values(method, names)
        yield from _stack([_table(f"{task.name} ({method.section})", task, columns, found, values) for task in tasks])


def _values(method: Method, names: Sequence[str]) -> Callable[[Row], Sequence[str]]:
    return lambda row: [wording.cell(method, name, row) for name in names]


def _table(
    title: str, task: TaskRecord, columns: Sequence[Column], rows: list[Row], texts: Callable[[Row], Sequence[str]]
) -> Table:
    """Every engine in a task: its name, these columns, ratio and verdict."""
    lines = [[Cell(wording.engine(row)), *map(Cell, texts(row)), *claim(row)] for row in rows if row.task == task.name]
    return Table(title, [_ENGINE, *columns, *_CLAIM], lines)


def _turned(tasks: list[TaskRecord], rows: list[Row], names: list[str], methods: Mapping[str, Method]) -> Table:
    """A column an engine, a line a value: for methods that find many."""
    engines = list(dict.fromkeys(wording.engine(row) for row in rows))
    lines = []
    for task in tasks:
        method = methods[task.name]
        own = {wording.engine(row): row for row in rows if row.task == task.name}
        lines.append([Cell(method.subject, style="head")])
        for name in names:
            texts = [wording.cell(method, name, own[engine]) if engine in own else "" for engine in engines]
            unit = wording.shown_unit(method.units[name])
            lines.append([Cell(f" {wording.words(name)}, {unit}"), *map(Cell, texts)])
    method = methods[tasks[0].name]
    title = f"{method.name.replace('-', ' ').capitalize()} ({method.section})"
    return Table(title, [Column("", number=False), *map(Column, engines)], lines)


def _stack(tables: Sequence[Table]) -> Iterator[RenderableType]:
    """Tables of the same columns, below each other; so narrow that a terminal of 80 has room for most."""
    texts = [[max(column.name, column.unit, key=len) for column in table.columns] for table in tables]
    texts += [[cell.text for cell in line] for table in tables for line in table.rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for table in tables:
        drawn = _drawn(table)
        drawn.show_header = table is tables[0]
        drawn.padding = 0
        for column, width in zip(drawn.columns, widths, strict=True):
            column.width = width
        yield drawn


def _drawn(table: Table) -> DrawnTable:
    heads = [f"{column.name}\n{column.unit}" if column.unit else column.name for column in table.columns]
    numbers = [head for head, column in zip(heads, table.columns, strict=True) if column.number]
    drawn = make_table(table.title, *heads, right=tuple(numbers))
    for line in table.rows:
        drawn.add_row(*(cell.text for cell in line), style=_COLOURS.get(line[-1].style, ""))
    return drawn


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
