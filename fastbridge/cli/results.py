"""Results, shown.

The tables that `compare` prints after measuring and `report` from a file: the contest first, then what each
method found, then what is irregular and where it was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rich.console import Console
from rich.table import Table

from fastbridge.bench.methods import Method
from fastbridge.bench.report import Row, method_of
from fastbridge.bench.report import rows as make_rows
from fastbridge.bench.results import Results, TaskRecord

from .output import make_table

_VERDICT_STYLES = {"win": "bold green", "loss": "bold red", "unfit": "red", "no difference": "yellow"}
_WHOLE = ("frames/s", "frames", "addresses", "addresses/s", "stations", "bytes")
_WORDS = ("engine", "ratio [95 %]", "verdict")  # columns of text
_MOST_COLUMNS = 6  # of values, beside an engine's name, ratio and verdict


def show_results(console: Console, results: Results) -> None:
    """Print everything that is known from `results`; raise BenchError where the record contradicts itself."""
    rows = make_rows(results)
    contest = [task for task in results.tasks if _is_contest(task, rows)]
    console.print(f"fastbridge compare, profile {results.profile}", style="bold")
    heads = ("engine", "frames/s", "Gb/s", "loss", "CPU\nns", "switch\nns", "ratio [95 %]", "verdict")
    for table in _stack(contest, rows, heads, _contest_cells) if contest else ():
        console.print()
        console.print(table)
    others = [task for task in results.tasks if task not in contest and any(row.task == task.name for row in rows)]
    for name in dict.fromkeys(task.method for task in others):
        for table in _method_tables([task for task in others if task.method == name], rows):
            console.print()
            console.print(table)
    console.print()
    for task in results.tasks:
        for text in _curves(method_of(task), [row for row in rows if row.task == task.name]):
            console.print(f"  {task.name}, {text}", soft_wrap=True)
    console.print()
    for text in _engines(results):
        console.print(f"  {text}", soft_wrap=True)
    for text in _irregularities(results, rows):
        # Reasons are a program's last words: of these, what is no character stays out of the terminal.
        shown = "".join(char if char.isprintable() else " " for char in text)
        console.print(f"  {shown}", style="dim", soft_wrap=True)
    console.print(_conditions(results, rows, {task.name for task in contest}))
    if results.interrupted:
        console.print("Interrupted: these are the trials until then.", style="yellow")


def _is_contest(task: TaskRecord, rows: list[Row]) -> bool:
    """Rates from single trials: they share one table."""
    method = method_of(task)
    rates = method.units[method.primary] in ("frames/s", "Gb/s")
    return rates and any(row.task == task.name and row.gigabits_per_second is not None for row in rows)


def _stack(
    tasks: list[TaskRecord],
    rows: list[Row],
    heads: tuple[str, ...],
    cells: Callable[[Row], tuple[str, ...]],
    note: str = "",
) -> Iterator[Table]:
    """A table a task, with the same columns; so narrow that a terminal of 80 has room for most."""
    lines = {task.name: [(row, cells(row)) for row in rows if row.task == task.name] for task in tasks}
    texts = [[max(head.split("\n"), key=len) for head in heads]]
    texts += [list(line) for of in lines.values() for _, line in of]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for task in tasks:
        table = make_table(task.name + note, *heads, right=tuple(head for head in heads if head not in _WORDS))
        table.show_header = task is tasks[0]
        table.padding = 0
        for column, width in zip(table.columns, widths, strict=True):
            column.width = width
        for row, line in lines[task.name]:
            table.add_row(*line, style=_VERDICT_STYLES.get(row.verdict, ""))
        yield table


def _contest_cells(row: Row) -> tuple[str, ...]:
    return (
        _engine(row),
        "" if row.frames_per_second is None else f"{row.frames_per_second:,.0f}",
        "" if row.gigabits_per_second is None else f"{row.gigabits_per_second:.2f}",
        "" if row.loss_ratio is None else f"{row.loss_ratio:.1%}",
        "" if row.cpu_added_ns is None or row.verdict == "ceiling" else f"{row.cpu_added_ns:,.0f}",
        "" if row.cpu_switch_ns is None else f"{row.cpu_switch_ns:,.0f}",
        _ratio(row),
        row.verdict,
    )


def _method_tables(tasks: list[TaskRecord], rows: list[Row]) -> Iterator[Table]:
    method = method_of(tasks[0])
    found = [row for row in rows if row.task in {task.name for task in tasks}]
    names = [name for name in method.units if not name.endswith("samples") and any(name in row.values for row in found)]
    if len(names) > _MOST_COLUMNS:
        yield _turned(method, tasks, found, names)
    elif names:
        heads = tuple(f"{_words(name)}\n{_shown_unit(method.units[name])}" for name in names)
        note = f" ({method.section})"

        def cells(row: Row) -> tuple[str, ...]:
            return (_engine(row), *(_cell(method, name, row) for name in names), _ratio(row), row.verdict)

        yield from _stack(tasks, found, ("engine", *heads, "ratio [95 %]", "verdict"), cells, note)


def _turned(method: Method, tasks: list[TaskRecord], rows: list[Row], names: list[str]) -> Table:
    """A column an engine, a line a value: for methods that find many."""
    engines = list(dict.fromkeys(_engine(row) for row in rows))
    title = f"{method.name.replace('-', ' ').capitalize()} ({method.section})"
    table = make_table(title, "", *engines, right=tuple(engines))
    for task in tasks:
        own = {_engine(row): row for row in rows if row.task == task.name}
        table.add_row(method_of(task).subject, style="bold")
        for name in names:
            cells = [_cell(method, name, own[engine]) if engine in own else "" for engine in engines]
            table.add_row(f" {_words(name)}, {_shown_unit(method.units[name])}", *cells)
    return table


def _curves(method: Method, rows: list[Row]) -> Iterator[str]:
    """Each curve of each engine in a line, point after point."""
    for row in rows:
        for name, points in row.series.items():
            x_unit, y_unit = method.units[name].split(" → ")
            shown = ", ".join(f"{_number(x, x_unit)} → {_number(y, y_unit)}" for x, y in points)
            yield f"{_engine(row)}: {x_unit} → {_words(name)} ({_shown_unit(y_unit)}): {shown}"


def _engines(results: Results) -> Iterator[str]:
    """What was run, and how."""
    for engine in results.engines:
        if engine.name != results.control and engine.command != "-":
            offloads = "" if engine.offloads == "default" else f"offloads {engine.offloads}"
            how = "; ".join(part for part in (engine.buffers, offloads) if part not in ("", "-"))
            version = "" if engine.version == "-" else f" {engine.version}"
            yield f"{engine.name}{version}: {engine.command}{f' ({how})' if how else ''}"


def _engine(row: Row) -> str:
    return "(control)" if row.verdict == "control" else row.engine


def _words(name: str) -> str:
    return name.replace("99_9", "99.9").replace("_", " ")


def _ratio(row: Row) -> str:
    if row.ratio is None:
        return ""
    mean, low, high = (f"{x:.2f}" if x < 10 else f"{x:.3g}" for x in (row.ratio.mean, row.ratio.low, row.ratio.high))
    return f"{mean} [{low}…{high}]"


def _cell(method: Method, name: str, row: Row) -> str:
    if name not in row.values:
        return ""
    return _number(row.values[name], method.units[name])


def _number(value: float, unit: str) -> str:
    if unit in _WHOLE:
        return f"{value:,.0f}"
    if unit == "ratio":
        return f"{value:.2%}"
    return f"{value:,.{0 if value >= 100 else 1}f}" if unit == "µs" else f"{value:,.3g}"


def _shown_unit(unit: str) -> str:
    return "%" if unit == "ratio" else unit


def _irregularities(results: Results, rows: list[Row]) -> Iterator[str]:
    for entry in results.unfit:
        if entry.task is None:
            yield f"{entry.engine}: {entry.reason}"
    # One reason once, and of whom: most hold for many.
    said: dict[str, dict[str, list[str]]] = {}
    for entry in results.unfit:
        if entry.task is not None:
            said.setdefault(f"unfit: {entry.reason}", {}).setdefault(entry.task, []).append(entry.engine)
    every = {task.name for task in results.tasks}
    for row in rows:
        for remark in row.remarks:
            said.setdefault(remark, {}).setdefault(row.task, []).append(_engine(row))
    for text, whom in said.items():
        engines = list(dict.fromkeys(engine for those in whom.values() for engine in those))
        if whom.keys() == every and all(those == engines for those in whom.values()):
            yield f"{text}: {', '.join(engines)}, in every task"
        else:
            yield f"{text}: " + "; ".join(f"{task} ({', '.join(those)})" for task, those in whom.items())
    trials = sum(row.trials for row in rows)
    for flag in dict.fromkeys(flag for row in rows for flag in row.flags):
        yield f"{flag}: in {sum(row.flags.get(flag, 0) for row in rows)} of {trials} trials"
    if dropped := sum(row.dropped for row in rows):
        yield f"left out of the ratios for steal: {dropped} of {sum(row.runs for row in rows)} runs"


def _conditions(results: Results, rows: list[Row], contest: set[str]) -> str:
    floors = {row.task: row.noise_floor for row in rows}
    known = [f"{task} ± {floor:.1%}" for task, floor in floors.items() if floor is not None]
    alone = [
        f"{row.task} {row.cpu_machine_ns:,.0f}"
        for row in rows
        if row.verdict == "ceiling" and row.cpu_machine_ns is not None and row.task in contest
    ]
    machine = results.fingerprint
    roles = ", ".join(f"{role} {cpu}" for role, cpu in machine.layout.items())
    return (
        f"Ratios are to {results.baseline}: geometric means over blocks, with 95 % intervals. Frame sizes include the "
        "FCS, Gb/s do not.\n"
        f"Noise floor ({results.baseline} against itself): {', '.join(known) or 'not measured'}. A win or a loss is "
        "claimed only outside of it.\n"
        "CPU ns: busy time of all CPUs for each forwarded frame, waiting in a spin included, less what the direct veth "
        f"pair takes for a frame ({', '.join(alone) or 'not measured'}); switch ns: of the engine's own processes.\n"
        f"{machine.cpu}, {machine.cpus} CPUs ({roles}), Linux {machine.kernel.partition(' ')[0]}, "
        f"hypervisor: {machine.hypervisor}; seed {results.seed}"
    )
