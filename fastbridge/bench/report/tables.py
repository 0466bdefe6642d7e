"""Tables, one a function."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fastbridge.bench.methods.latency import PERCENTILES
from fastbridge.bench.results.results import TaskRecord

from . import wording
from .evidence import LoadedRun, Report
from .parts import Cell, Column, Table
from .rows import Row

_STYLES = {
    "win": "win",
    "loss": "loss",
    "no difference": "even",
    "cannot tell": "even",
    "withheld": "even",
    "unfit": "loss",
}
_MOST_COLUMNS = 5  # of values; a method with more gets a row for each value
LOADS = {"idle": "near idle", "at_10": "10 % of PDR", "at_50": "50 % of PDR", "at_90": "90 % of PDR"}

_RUN = Column("run", number=False)
_ENGINE = Column("engine", number=False)
_RATIO = (
    Column("ratio [95 %]", hint="geometric mean over blocks, with its 95 % bootstrap interval"),
    Column("verdict", number=False, hint="a win or a loss is claimed only outside of the noise floor"),
)
_RATES = (Column("forwarded", "frames/s"), Column("rate", "Gb/s", hint="frames without FCS, or TCP payload"))
_LOSS = Column("loss", "%")
_LATENCIES = ("p50", "p99")


def claimed(loaded: LoadedRun) -> list[TaskRecord]:
    """The tasks of the verdict: those of several blocks, and latency; without any, the contest."""
    shown = {row.task for row in loaded.rows}
    several = [
        task
        for task in loaded.results.tasks
        if task.name in shown and (task.blocks > 1 or wording.latency_prefix(loaded.methods[task.name]) is not None)
    ]
    return several or [task for task in loaded.results.tasks if wording.is_contest(task, loaded.rows)]


def verdict_tables(report: Report, *, absolute: bool) -> Iterator[Table]:
    """Every engine in every claimed task: a table for each kind of test; without `absolute`, one of ratios alone."""
    unfit = {loaded.label: wording.unfit_everywhere(loaded.results, loaded.rows) for loaded in report.runs}
    kinds: dict[str, tuple[Sequence[Column], list[list[Cell]]]] = {}
    for name in dict.fromkeys(task.name for loaded in report.runs for task in claimed(loaded)):
        for loaded in report.runs:
            for row in loaded.rows:
                if row.task == name and (absolute or not row.is_direct) and row.engine not in unfit[loaded.label]:
                    kind, columns, numbers = _absolute(loaded, row) if absolute else ("", (), [])
                    where = ", at 50 % of the PDR" if wording.latency_prefix(loaded.methods[name]) == "at_50_" else ""
                    line = [Cell(name + where), *names_of(report, loaded, row), *claim(row), *numbers]
                    kinds.setdefault(kind, (columns, []))[1].append(line)
    for kind, (columns, lines) in kinds.items():
        yield _without_empty(Table(kind, [Column("test", number=False), *who(report), *_RATIO, *columns], lines))


def value_tables(report: Report, *methods: str) -> Iterator[Table]:
    """A table of findings for each method, without the tasks of the verdict tables."""
    for name in methods:
        tasks = {
            task.name: task
            for loaded in report.runs
            for task in loaded.tasks(name)
            if task not in claimed(loaded) or not _is_single(loaded, task)
        }
        table = _value_table(report, list(tasks)) if tasks else None
        if table is not None:
            yield table


def latency_table(report: Report) -> Table | None:
    """Percentiles: a row for each engine and load."""
    columns = [
        Column("test", number=False),
        Column("load", number=False),
        *who(report),
        *(Column(wording.words(name), "µs") for name in PERCENTILES),
        Column("samples"),
    ]
    lines: list[list[Cell]] = []
    for loaded in report.runs:
        for row in loaded.rows:
            method = loaded.methods[row.task]
            if method.name not in ("latency", "latency-at-load", "ping", "broadcast"):
                continue
            for prefix, load in {"": "", **{f"{at}_": text for at, text in LOADS.items()}}.items():
                if f"{prefix}p50" in row.values:
                    numbers = [_value(loaded, row, prefix + name) for name in (*PERCENTILES, "samples")]
                    lines.append([Cell(row.task), Cell(load), *names_of(report, loaded, row), *numbers])
    tests = list(dict.fromkeys(line[0].text for line in lines))
    loads = ["", *LOADS.values()]
    lines.sort(key=lambda line: (tests.index(line[0].text), loads.index(line[1].text)))
    return _without_empty(Table("Percentiles, medians over the blocks", columns, lines)) if lines else None


def curve_tables(report: Report, *methods: str) -> Iterator[Table]:
    """The points of these methods' curves: a table for each test, a row for each point."""
    for name in dict.fromkeys(task.name for loaded in report.runs for task in loaded.tasks(*methods)):
        own = [loaded for loaded in report.runs if name in loaded.methods]
        units = {curve: unit.split(" → ") for curve, unit in own[0].methods[name].units.items() if " → " in unit}
        lines = [
            [*names_of(report, loaded, row), Cell(str(run.block + 1), run.block), *cells]
            for loaded in own
            for row in loaded.rows_of(name)
            for run in loaded.runs_of(name)
            if run.engine == row.engine
            for cells in _points(loaded.found[name, run.engine, run.block].series, units)
        ]
        if lines:
            columns = [
                *who(report),
                Column("block"),
                Column("at", next(iter(units.values()))[0]),
                *(Column(wording.words(curve), wording.shown_unit(unit)) for curve, (_, unit) in units.items()),
            ]
            yield Table(name[0].upper() + name[1:], columns, lines)


def _points(
    series: Mapping[str, Sequence[tuple[float, float]]], units: Mapping[str, Sequence[str]]
) -> Iterator[list[Cell]]:
    """A row for each x, with a cell for each curve."""
    curves = {name: dict(series.get(name, ())) for name in units}
    x_unit = next(iter(units.values()))[0]
    for x in sorted({x for points in curves.values() for x in points}):
        found = [(points.get(x), units[name][1]) for name, points in curves.items()]
        cells = [Cell("") if y is None else Cell(wording.number(y, unit), y) for y, unit in found]
        yield [Cell(wording.number(x, x_unit), x), *cells]


def cpu_table(report: Report) -> Table | None:
    """CPU time per forwarded frame: a row for each test and engine that ran beside the direct veth pair."""
    columns = [
        Column("test", number=False),
        *who(report),
        Column("whole machine", "ns/frame", hint="busy time of all CPUs, less what the direct veth pair takes"),
        Column("own processes", "ns/frame", hint="the part of the engine's own processes"),
    ]
    lines = [
        [
            Cell(task.name),
            *names_of(report, loaded, row),
            _cell(row.cpu_added_ns, "{:,.0f}"),
            _cell(row.cpu_switch_ns, "{:,.0f}"),
        ]
        for loaded in report.runs
        for task in loaded.tasks("forwarding-rate")
        for row in loaded.rows
        if row.task == task.name and row.cpu_added_ns is not None and row.engine not in loaded.ceilings
    ]
    return Table("", columns, lines) if lines else None


def _value_table(report: Report, tasks: Sequence[str]) -> Table | None:
    loaded = next(loaded for loaded in report.runs if tasks[0] in loaded.methods)
    method = loaded.methods[tasks[0]]
    title = f"{wording.method_title(method)} ({method.section})"
    unfit = {loaded.label: wording.unfit_everywhere(loaded.results, loaded.rows) for loaded in report.runs}
    found = [
        (loaded, row)
        for task in tasks
        for loaded in report.runs
        for row in loaded.rows
        if row.task == task and row.engine not in unfit[loaded.label]
    ]
    names = [
        name for name in method.units if not name.endswith("samples") and any(name in row.values for _, row in found)
    ]
    if not names:
        return None
    if len(names) > _MOST_COLUMNS:
        return _turned(title, report, found, names)
    claims: Sequence[Column] = _RATIO if any(row.ratio for _, row in found) else ()
    if not claims and any(row.unfit or row.unreadable for _, row in found):
        claims = _RATIO[1:]
    columns = [
        Column("test", number=False),
        *who(report),
        *(_column(name, method.units[name]) for name in names),
        *claims,
    ]
    return Table(
        title,
        columns,
        [
            [
                Cell(loaded.methods[row.task].subject),
                *names_of(report, loaded, row),
                *(_value(loaded, row, name) for name in names),
                *claim(row)[2 - len(claims) :],
            ]
            for loaded, row in found
        ],
    )


def _turned(title: str, report: Report, found: Sequence[tuple[LoadedRun, Row]], names: Sequence[str]) -> Table:
    who = list(dict.fromkeys(_series(loaded, row) for loaded, row in found))
    lines = []
    for task in dict.fromkeys(row.task for _, row in found):
        own = {_series(loaded, row): (loaded, row) for loaded, row in found if row.task == task}
        loaded = next(iter(own.values()))[0]
        for name in names:
            unit = loaded.methods[task].units[name]
            lines.append(
                [
                    Cell(loaded.methods[task].subject),
                    Cell(f"{wording.words(name)}, {wording.shown_unit(unit)}"),
                    *(_value(*own[each], name) if each in own else Cell("") for each in who),
                ]
            )
    columns = [Column("test", number=False), Column("value", number=False), *(Column(each) for each in who)]
    return Table(title, columns, lines)


def _without_empty(table: Table) -> Table:
    """The table without empty columns."""
    kept = [i for i in range(len(table.columns)) if any(row[i].text for row in table.rows)]
    rows = [[row[i] for i in kept] for row in table.rows]
    return Table(table.title, [table.columns[i] for i in kept], rows)


def _is_single(loaded: LoadedRun, task: TaskRecord) -> bool:
    # The verdict tables say everything about rates of single trials; other methods find more values.
    return wording.is_contest(task, loaded.rows)


def who(report: Report) -> list[Column]:
    """Columns: the engine, and the run where there are several."""
    return [_ENGINE, _RUN] if report.is_comparison else [_ENGINE]


def names_of(report: Report, loaded: LoadedRun, row: Row) -> list[Cell]:
    """Cells: the engine, and the run where there are several."""
    style = "quiet" if row.is_direct or row.verdict == "control" else ""
    names = [Cell(wording.engine(row), style=style)]
    return [*names, Cell(loaded.label)] if report.is_comparison else names


def _series(loaded: LoadedRun, row: Row) -> str:
    return wording.engine(row) + (f" · {loaded.label}" if loaded.label else "")


def _absolute(loaded: LoadedRun, row: Row) -> tuple[str, Sequence[Column], list[Cell]]:
    """The kind of the row's test; the columns of that kind, and the row's cells in them."""
    method = loaded.methods[row.task]
    prefix = wording.latency_prefix(method)
    loss = _cell(row.loss_ratio, "{:.1%}")
    if prefix is not None:
        columns = [_LOSS, *(Column(wording.words(name), "µs") for name in _LATENCIES)]
        return "Latency", columns, [loss, *(_value(loaded, row, prefix + name) for name in _LATENCIES)]
    if method.units[method.primary] in ("frames/s", "Gb/s") and (row.gigabits_per_second is not None or not row.values):
        rates = _cell(row.frames_per_second, "{:,.0f}"), _cell(row.gigabits_per_second, "{:.2f}")
        return "Rates", [*_RATES, _LOSS], [*rates, loss]
    names = [method.primary, *(name for name in _LATENCIES if name in method.units)]
    columns = [_column(name, method.units[name]) for name in names]
    return wording.method_title(method), columns, [_value(loaded, row, name) for name in names]


def claim(row: Row) -> list[Cell]:
    """Cells: ratio and verdict."""
    style = _STYLES.get(row.verdict, "quiet")
    verdict = Cell(row.verdict, style=style, hint=wording.printable(row.unfit or row.unreadable or ""))
    return [Cell(wording.ratio(row.ratio), row.ratio.mean if row.ratio else None), verdict]


def _column(name: str, unit: str) -> Column:
    """The column of a value; one that is named like its unit is a rate."""
    return Column("rate" if unit == f"{name}/s" else wording.words(name), wording.shown_unit(unit))


def _value(loaded: LoadedRun, row: Row, name: str) -> Cell:
    return Cell(wording.cell(loaded.methods[row.task], name, row), row.values.get(name))


def _cell(value: float | None, form: str) -> Cell:
    return Cell("") if value is None else Cell(form.format(value), value)
