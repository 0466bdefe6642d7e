"""Results in words.

How numbers, units, names and irregularities are written: the same in the terminal, on the page and in Markdown, so
that nobody can quote one against the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from .methods import Method
from .report import Row, method_of
from .results import Results, TaskRecord
from .statistics import Ratio

_ABBREVIATIONS = ("ndr", "pdr", "frmol", "mfr")
_AMOUNT = re.compile(r"(?<![\w.,])(?:\d[\d,.]*(?=(?: of [\d,.]+)? (?:frames|addresses)\b)|\d{1,3}(?:,\d{3})+(?!\w))")
_WHOLE = ("frames/s", "frames", "addresses", "addresses/s", "stations", "bytes", "ports")


def is_contest(task: TaskRecord, rows: Sequence[Row]) -> bool:
    """Whether a task's runs are single trials of a rate: such tasks share one table."""
    method = method_of(task)
    rates = method.units[method.primary] in ("frames/s", "Gb/s")
    return rates and any(row.task == task.name and row.gigabits_per_second is not None for row in rows)


def words(name: str) -> str:
    """A value's name, without the unit that stands beside it."""
    parts = name.replace("99_9", "99.9").removesuffix("_gbps").split("_")
    return " ".join(part.upper() if part in _ABBREVIATIONS else part for part in parts)


def number(value: float, unit: str) -> str:
    """A value, as exactly as its unit deserves."""
    if unit in _WHOLE:
        return f"{value:,.0f}"
    if unit == "ratio":
        return f"{value:.2%}"
    return f"{value:,.{0 if value >= 100 else 1}f}" if unit == "µs" else f"{value:,.3g}"


def shown_unit(unit: str) -> str:
    """The unit that `number` writes in."""
    return "%" if unit == "ratio" else unit


def cell(method: Method, name: str, row: Row) -> str:
    """One of a method's values; empty where it did not find it."""
    return number(row.values[name], method.units[name]) if name in row.values else ""


def ratio(measured: Ratio | None) -> str:
    """Mean and interval."""
    if measured is None:
        return ""
    return f"{factor(measured.mean)} [{factor(measured.low)}…{factor(measured.high)}]"


def factor(value: float) -> str:
    """A ratio, to three digits or so, and never with an exponent."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def engine(row: Row) -> str:
    """Its name in a table; the control's says only what it is."""
    return "(control)" if row.is_control else row.engine


def printable(text: str) -> str:
    """Without what is no character: reasons are a program's last words, and names are anybody's."""
    return "".join(char if char.isprintable() else " " for char in text)


def engine_lines(results: Results) -> Iterator[str]:
    """What was run, and how."""
    for record in results.engines:
        if record.name != results.control and record.command != "-":
            offloads = "" if record.offloads == "default" else f"offloads {record.offloads}"
            how = "; ".join(part for part in (record.buffers, offloads) if part not in ("", "-"))
            version = "" if record.version == "-" else f" {record.version}"
            yield f"{record.name}{version}: {record.command}{f' ({how})' if how else ''}"


def noise_floors(rows: Sequence[Row]) -> dict[str, float]:
    """By task, where it is known."""
    return {row.task: row.noise_floor for row in rows if row.noise_floor is not None}


def irregularities(results: Results, rows: Sequence[Row], *, absolute: bool = True) -> Iterator[str]:
    """Everything that is irregular or was not measured, with its reason and of whom; one reason once.

    Without `absolute` there is "…" for rates and for how many frames.
    """
    shown = str if absolute else _without_amounts
    for entry in results.unfit:
        if entry.task is None:
            yield f"{entry.engine}: {shown(entry.reason)}"
    said: dict[str, dict[str, list[str]]] = {}
    for entry in results.unfit:
        if entry.task is not None:
            said.setdefault(f"unfit: {shown(entry.reason)}", {}).setdefault(entry.task, []).append(entry.engine)
    for row in rows:
        for remark in (*_why_no_verdict(results, row), *row.remarks):
            said.setdefault(shown(remark), {}).setdefault(row.task, []).append(engine(row))
    yield from _of_whom(results, said)
    trials = sum(row.trials for row in rows)
    for flag in dict.fromkeys(flag for row in rows for flag in row.flags):
        yield f"{flag}: in {sum(row.flags.get(flag, 0) for row in rows)} of {trials} trials"
    if dropped := sum(row.dropped for row in rows):
        yield f"left out of the ratios for steal: {dropped} of {sum(row.runs for row in rows)} runs"


def unreadable(results: Results, rows: Sequence[Row]) -> Iterator[str]:
    """What of `rows` cannot be read here, with its reason."""
    said: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        if row.unreadable is not None:
            said.setdefault(_not_readable(row), {}).setdefault(row.task, []).append(engine(row))
    return _of_whom(results, said)


def _of_whom(results: Results, said: Mapping[str, Mapping[str, list[str]]]) -> Iterator[str]:
    """Each text with the tasks, and of each the engines, that it is said of."""
    every = {task.name for task in results.tasks}
    for text, whom in said.items():
        engines = list(dict.fromkeys(name for those in whom.values() for name in those))
        if whom.keys() == every and all(those == engines for those in whom.values()):
            yield f"{text}: {', '.join(engines)}, in every task"
        else:
            yield f"{text}: " + "; ".join(f"{task} ({', '.join(those)})" for task, those in whom.items())


def _not_readable(row: Row) -> str:
    return f"not readable here ({row.unreadable})"


def _why_no_verdict(results: Results, row: Row) -> Iterator[str]:
    if row.unreadable is not None:
        yield _not_readable(row)
    if row.verdict == "no baseline":
        yield f"no ratio, because {results.baseline} has no result to divide by"


def _without_amounts(text: str) -> str:
    return _AMOUNT.sub("…", text)
