"""Results, shown.

The tables that `compare` prints after measuring and `report` from a file: the contest first, then what each
method found, then what is irregular and where it was measured.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from fastbridge.bench.methods import Method
from fastbridge.bench.report import Row, method_of
from fastbridge.bench.report import rows as make_rows
from fastbridge.bench.results import Results, TaskRecord

from .output import make_table

_VERDICT_STYLES = {"win": "bold green", "loss": "bold red", "unfit": "red", "no difference": "yellow"}
_FORMATS = {"frames/s": "{:,.0f}", "frames": "{:,.0f}", "addresses": "{:,.0f}", "addresses/s": "{:,.0f}"}


def show_results(console: Console, results: Results) -> None:
    """Print everything that is known from `results`; raise BenchError where the record contradicts itself."""
    rows = make_rows(results)
    contest = [task for task in results.tasks if _is_contest(task, rows)]
    if contest:
        console.print(_contest(results, contest, rows))
    others = [task for task in results.tasks if task not in contest and any(row.task == task.name for row in rows)]
    for name in dict.fromkeys(task.method for task in others):
        console.print()
        console.print(_method_table([task for task in others if task.method == name], rows))
    console.print()
    for text in _irregularities(results, rows):
        console.print(f"  {text}", style="dim", soft_wrap=True)
    console.print(_conditions(results, rows))
    if results.interrupted:
        console.print("Interrupted: these are the trials until then.", style="yellow")


def _is_contest(task: TaskRecord, rows: list[Row]) -> bool:
    """Rates from single trials: they share one table."""
    method = method_of(task)
    rates = method.units[method.primary] in ("frames/s", "Gb/s")
    return rates and any(row.task == task.name and row.gigabits_per_second is not None for row in rows)


def _contest(results: Results, tasks: list[TaskRecord], rows: list[Row]) -> Table:
    numbers = ("frames/s", "Gb/s", "loss", "CPU ns")
    title = f"fastbridge compare, {results.profile}"
    table = make_table(title, "engine", *numbers, "ratio [95 %]", "verdict", right=numbers)
    for task in tasks:
        table.add_row(task.name, style="bold")
        for row in (row for row in rows if row.task == task.name):
            table.add_row(
                f" {results.baseline if row.engine == results.control else row.engine}",
                "" if row.frames_per_second is None else f"{row.frames_per_second:,.0f}",
                "" if row.gigabits_per_second is None else f"{row.gigabits_per_second:.2f}",
                "" if row.loss_ratio is None else f"{row.loss_ratio:.1%}",
                "" if row.cpu_added_ns is None or row.verdict == "ceiling" else f"{row.cpu_added_ns:,.0f}",
                _ratio(row),
                row.verdict,
                style=_VERDICT_STYLES.get(row.verdict, ""),
            )
    return table


def _method_table(tasks: list[TaskRecord], rows: list[Row]) -> Table:
    methods = {task.name: method_of(task) for task in tasks}
    method = methods[tasks[0].name]
    found = [row for row in rows if row.task in methods]
    names = [name for name in method.units if any(name in row.values for row in found)]
    heads = [f"{name.replace('_', ' ')}\n{_shown_unit(method.units[name])}" for name in names]
    title = f"{method.name.replace('-', ' ').capitalize()} ({method.section})"
    repeated = any(row.ratio for row in found)
    table = make_table(title, "engine", *heads, *(["ratio [95 %]", "verdict"] if repeated else []), right=tuple(heads))
    for task in tasks:
        table.add_row(methods[task.name].subject, style="bold")
        for row in (row for row in found if row.task == task.name):
            cells = [_cell(method, name, row) for name in names]
            cells += [_ratio(row), row.verdict] if repeated else []
            table.add_row(f" {row.engine}", *cells, style=_VERDICT_STYLES.get(row.verdict, ""))
    return table


def _ratio(row: Row) -> str:
    return f"{row.ratio.mean:.2f} [{row.ratio.low:.2f}…{row.ratio.high:.2f}]" if row.ratio else ""


def _cell(method: Method, name: str, row: Row) -> str:
    if name not in row.values:
        return ""
    value, unit = row.values[name], method.units[name]
    if unit in _FORMATS:
        return _FORMATS[unit].format(value)
    if unit == "ratio":
        return f"{value:.2%}"
    return f"{value:,.1f}" if unit == "µs" else f"{value:,.3g}"


def _shown_unit(unit: str) -> str:
    return "%" if unit == "ratio" else unit


def _irregularities(results: Results, rows: list[Row]) -> Iterator[str]:
    for entry in results.unfit:
        if entry.task is None:
            yield f"{entry.engine}: {entry.reason}"
    for row in rows:
        reasons = [entry.reason for entry in results.unfit if (entry.engine, entry.task) == (row.engine, row.task)]
        for remark in (*(f"unfit: {reason}" for reason in reasons), *row.remarks, *row.flags):
            yield f"{row.task}, {row.engine}: {remark}"
        if row.dropped:
            yield f"{row.task}, {row.engine}: {row.dropped} of {row.runs} runs left out of the ratio for steal"


def _conditions(results: Results, rows: list[Row]) -> str:
    floors = {row.task: row.noise_floor for row in rows}
    known = [f"{task} ± {floor:.1%}" for task, floor in floors.items() if floor is not None]
    alone = [
        f"{row.task} {row.cpu_machine_ns:,.0f}"
        for row in rows
        if row.verdict == "ceiling" and row.cpu_machine_ns is not None
    ]
    machine = results.fingerprint
    roles = ", ".join(f"{role} {cpu}" for role, cpu in machine.layout.items())
    return (
        f"Ratios are to {results.baseline}: geometric means over blocks, with 95 % intervals. Frame sizes include the "
        "FCS, Gb/s do not.\n"
        f"Noise floor ({results.baseline} against itself): {', '.join(known) or 'not measured'}. A win or a loss is "
        "claimed only outside of it.\n"
        "CPU ns: busy time of all CPUs for each forwarded frame, waiting in a spin included, less what the direct veth "
        f"pair takes for a frame ({', '.join(alone) or 'not measured'}). Layout: {roles}.\n"
        f"{machine.cpu}, {machine.cpus} CPUs, Linux {machine.kernel.split()[0]}, hypervisor: {machine.hypervisor}; "
        f"seed {results.seed}"
    )
