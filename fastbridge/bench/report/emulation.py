"""Emulated links, as a table: what was wanted, what came, and how far that is off."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from fastbridge.bench.methods.emulation import QUANTITIES

from .evidence import LoadedRun, Report
from .parts import Cell, Column, Table
from .rows import Row
from .tables import names_of, who

LEAD = (
    "Each stage of a link, one way: what was wanted against what came. Without a link the same frames pass the same "
    "engine: that is the floor of engine and tester together, and it is not subtracted. 99 of 100 perfect links stay "
    "within chance; an error beyond it is marked."
)
_NAMES = {
    "distance": "KS distance",
    "lost": "loss",
    "burst": "burst",
    "waiting": "queueing p50",
    "reordered": "out of order",
}
_FORMS: Mapping[str, Callable[[float], str]] = {
    "ms": "{:,.3f}".format,
    "share": "{:.4f}".format,
    "ratio": lambda value: f"{100 * value:.3g}",
    "frames": "{:.2f}".format,
    "Mb/s": "{:,.2f}".format,
}
_UNITS = {"share": "", "ratio": "%"}


def emulation_table(report: Report) -> Table | None:
    """A row for each quantity of each engine in each test; None if no link was emulated."""
    columns = [
        Column("test", number=False),
        *who(report),
        Column("value", number=False),
        Column("wanted"),
        Column("got"),
        Column("error", hint="got less wanted: in ms, or relative to what was wanted"),
        Column("chance", hint="what 99 of 100 perfect links stay within"),
        Column("no link", hint="the same frames through the same engine, without a link"),
    ]
    lines = [
        [Cell(loaded.methods[task].subject), *names_of(report, loaded, row), *cells]
        for task in dict.fromkeys(task.name for loaded in report.runs for task in loaded.tasks("emulation"))
        for loaded in report.runs
        if task in loaded.methods
        for row in loaded.rows_of(task)
        for cells in _quantities(row)
    ]
    return Table("", columns, lines) if lines else None


def _quantities(row: Row) -> Iterator[list[Cell]]:
    for name, unit in QUANTITIES.items():
        if name not in row.values:
            continue
        got, wanted = row.values[name], row.values[f"wanted_{name}"]
        chance, bare = row.values.get(f"chance_{name}"), row.values.get(f"bare_{name}")
        form, shown = _FORMS[unit], _UNITS.get(unit, unit)
        yield [
            Cell(f"{_NAMES.get(name, name)}, {shown}" if shown else _NAMES.get(name, name)),
            Cell(form(wanted), wanted),
            Cell(form(got), got),
            _error(unit, got, wanted, chance),
            Cell("" if chance is None else f"± {chance / wanted:.1%}" if wanted else form(chance), chance),
            Cell("" if bare is None else form(bare), bare),
        ]


def _error(unit: str, got: float, wanted: float, chance: float | None) -> Cell:
    error = got - wanted
    is_beyond = abs(error) > chance if chance is not None else not wanted and error > 0
    text = f"{error:+,.3f}" if unit == "ms" else f"{error / wanted:+.2%}" if wanted else _FORMS[unit](error)
    return Cell(text, error, style="loss" if is_beyond else "")


def distributions(loaded: LoadedRun, task: str) -> Iterator[dict[str, object]]:
    """Points of the distributions that came: of the first block, by engine."""
    for row in loaded.rows_of(task):
        for x, y in row.series.get("got", ()):
            yield {**loaded.who(row.engine), "x": x, "y": y}
