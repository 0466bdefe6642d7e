"""Results in words.

How numbers, units, names and irregularities are written, in all forms of the report alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from fastbridge.bench.machine.fingerprint import UNKNOWN
from fastbridge.bench.methods import Method
from fastbridge.bench.results.results import EngineRecord, Results, TaskRecord

from .rows import Row, method_of
from .statistics import Ratio

_ABBREVIATIONS = ("ndr", "pdr", "frmol", "mfr", "fdb", "tcp")
_AMOUNT = re.compile(r"(?<![\w.,])(?:\d[\d,.]*(?=(?: of [\d,.]+)? (?:frames|addresses)\b)|\d{1,3}(?:,\d{3})+(?!\w))")
# Of methods, in a sentence.
_VALUES = {
    "tcp-bulk": "TCP rate",
    "request-response": "request rate",
    "ping": "ping time",
    "latency-at-load": "latency",
}
_NUMBER = re.compile(r"(?<![\w.,-])\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\w,])|(?<![\w.,-])\d+(?:\.\d+)?(?!\w)")
_WHOLE = ("frames/s", "transactions/s", "pings", "frames", "addresses", "addresses/s", "stations", "bytes", "ports")


def is_contest(task: TaskRecord, rows: Sequence[Row]) -> bool:
    """Whether a task's runs are single trials of a rate. Such tasks share one table."""
    method = method_of(task)
    rates = method.units[method.primary] in ("frames/s", "Gb/s")
    return rates and any(row.task == task.name and row.gigabits_per_second is not None for row in rows)


def words(name: str) -> str:
    """A value's name without its unit."""
    parts = name.replace("99_9", "99.9").removesuffix("_gbps").split("_")
    return " ".join(part.upper() if part in _ABBREVIATIONS else part for part in parts)


def number(value: float, unit: str) -> str:
    """A value with as many digits as its unit deserves."""
    if unit in _WHOLE:
        return f"{value:,.0f}"
    if unit == "ratio":
        return f"{value:.2%}"
    return f"{value:,.{0 if value >= 100 else 1}f}" if unit == "µs" else f"{value:,.3g}"


def shown_unit(unit: str) -> str:
    """The unit that `number` writes in."""
    return "%" if unit == "ratio" else unit


def cell(method: Method, name: str, row: Row) -> str:
    """One of a method's values; empty if the method did not find it."""
    return number(row.values[name], method.units[name]) if name in row.values else ""


def ratio(measured: Ratio | None) -> str:
    """Mean and interval."""
    if measured is None:
        return ""
    return f"{factor(measured.mean)} [{factor(measured.low)}…{factor(measured.high)}]"


def factor(value: float) -> str:
    """A ratio to about three digits, never with an exponent."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def method_title(method: Method) -> str:
    """A method's name, above a table."""
    name = words(method.name.replace("-", "_"))
    return name[0].upper() + name[1:]


def latency_prefix(method: Method) -> str | None:
    """The prefix of the percentiles that a method's verdict is about; None if it is about something else."""
    return method.primary.removesuffix("p50") if method.primary.endswith("p50") else None


def engine(row: Row) -> str:
    """The engine's name in a table; the control is "(control)"."""
    return "(control)" if row.is_control else row.engine


def printable(text: str) -> str:
    """The text without unprintable characters: names and reasons can hold anything."""
    return "".join(char if char.isprintable() else " " for char in text)


def by_kernel(record: EngineRecord) -> str:
    """How much of what it forwarded went by its kernel fast path; empty where it does not say."""
    return "" if record.kernel_share is None else f"{record.kernel_share:.2%}"


def warnings(results: Results, rows: Sequence[Row]) -> Iterator[str]:
    """What a reader must know before any number; nothing on a quiet machine."""
    watched = [trial.disturbance for run in results.runs for trial in run.trials if trial.disturbance is not None]
    tasks = list(dict.fromkeys(row.task for row in rows))
    withheld = list(dict.fromkeys(row.task for row in rows if row.verdict == "withheld"))
    if withheld:
        why = []
        if watched:
            used = median(each.foreign_seconds / each.seconds for each in watched)
            why.append(f"other programs used {used:.1f} of {results.fingerprint.cpus} CPUs (median of the trials)")
        if throttled := sum(each.throttled_seconds > 0 for each in watched):
            why.append(f"a CPU quota stopped the bench or an engine in {throttled} trials")
        if stolen := sum(row.flags.get("steal", 0) for row in rows):
            why.append(f"the hypervisor took CPU time in {stolen} trials")
        of = "of all tests" if withheld == tasks else f"of {'; '.join(withheld)}"
        yield f"Verdicts {of} are withheld, as most trials were disturbed: {', '.join(why)}."
    if results.fingerprint.quota not in ("none", UNKNOWN):
        yield f"A CPU quota held for all of it: {results.fingerprint.quota}, of {results.fingerprint.cpus}."
    if results.fingerprint.siblings not in ("none", UNKNOWN):
        yield f"CPUs that the bench uses share a core, and slow each other down: {results.fingerprint.siblings}."


def unfit_everywhere(results: Results, rows: Sequence[Row]) -> dict[str, str]:
    """The engines without any result, with the first reason."""
    able = {row.engine for row in rows if row.unfit is None} | {results.baseline, results.control}
    return {row.engine: row.unfit for row in reversed(rows) if row.unfit is not None and row.engine not in able}


def finding(results: Results, rows: Sequence[Row]) -> dict[str, str]:
    """Engine → a sentence: how many times the baseline's each of its values is."""
    said: dict[str, str] = {}
    tasks = {task.name: task for task in results.tasks}
    for record in results.engines:
        own = [row for row in rows if row.engine == record.name and row.ratio is not None and not row.is_direct]
        if record.name in (results.baseline, results.control) or not own:
            continue
        claims: list[str] = []
        for verdict in ("win", "loss"):
            for value, (subjects, ratios) in _by_value(tasks, own, verdict).items():
                whose = "its" if claims else f"{results.baseline}'s"
                times = " to ".join(dict.fromkeys((factor(min(ratios)), factor(max(ratios)))))
                claims.append(f"{times} times {whose} {value} ({'; '.join(subjects)})")
        parts = [", ".join(claims)] if claims else []
        for verdict, text in (
            ("no difference", "no difference in"),
            ("cannot tell", "the trials cannot tell about"),
            ("withheld", "verdicts are withheld on"),
            ("not measured", "no noise floor for"),
        ):
            of_value = _by_value(tasks, own, verdict)
            names = [f"{value} ({'; '.join(subjects)})" for value, (subjects, _) in of_value.items()]
            parts += [f"{text} {', '.join(names)}"] if names else []
        if parts:
            said[record.name] = "; ".join(parts)
    return said


def _by_value(
    tasks: Mapping[str, TaskRecord], rows: Sequence[Row], verdict: str
) -> dict[str, tuple[list[str], list[float]]]:
    """Of the rows with this verdict: a value's name → the subjects of its tests, and the ratios."""
    found: dict[str, tuple[list[str], list[float]]] = {}
    for row in rows:
        if row.verdict == verdict and row.ratio is not None:
            method = method_of(tasks[row.task])
            name = _VALUES.get(method.name, words(method.name.replace("-", "_")))
            subjects, ratios = found.setdefault(name, ([], []))
            subjects.append(method.subject)
            ratios.append(row.ratio.mean)
    return found


def noise_floors(rows: Sequence[Row]) -> dict[str, float]:
    """Task → noise floor, where it is known."""
    return {row.task: row.noise_floor for row in rows if row.noise_floor is not None}


def irregularities(results: Results, rows: Sequence[Row], *, absolute: bool = True) -> Iterator[str]:
    """Everything that is irregular or was not measured: each reason once, with the tasks and engines.

    Without `absolute`, rates and numbers of frames are "…".
    """
    shown = str if absolute else _without_amounts
    names = {row.engine: engine(row) for row in rows}
    for entry in results.unfit:
        if entry.task is None:
            yield f"{names.get(entry.engine, entry.engine)}: {shown(entry.reason)}"
    said: dict[str, dict[str, list[str]]] = {}
    for entry in results.unfit:
        if entry.task is not None:
            said.setdefault(f"unfit: {shown(entry.reason)}", {}).setdefault(entry.task, []).append(
                names.get(entry.engine, entry.engine)
            )
    of_task: dict[str, list[tuple[str, Row]]] = {}
    for row in rows:
        for remark in (*_why_no_verdict(results, row), *row.remarks):
            of_task.setdefault(row.task, []).append((shown(remark), row))
    for task, remarks in of_task.items():
        merged = merge_numbers([text for text, _ in remarks])
        for text, row in remarks:
            engines = said.setdefault(merged[text], {}).setdefault(task, [])
            if engine(row) not in engines:
                engines.append(engine(row))
    yield from _of_whom(results, said)
    trials = sum(row.trials for row in rows)
    for flag in dict.fromkeys(flag for row in rows for flag in row.flags):
        yield f"{flag}: in {sum(row.flags.get(flag, 0) for row in rows)} of {trials} trials"
    if dropped := sum(row.dropped for row in rows):
        yield f"left out of the ratios as disturbed: {dropped} of {sum(row.runs for row in rows)} runs"


def merge_numbers(texts: Sequence[str]) -> dict[str, str]:
    """Text → one text for all that differ only in numbers: "only 398 to 412 samples arrived"."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for text in dict.fromkeys(texts):
        alike.setdefault(tuple(_NUMBER.split(text)), []).append(text)
    merged: dict[str, str] = {}
    for between, group in alike.items():
        columns = zip(*(_NUMBER.findall(text) for text in group), strict=True)
        numbers = []
        for column in columns:
            ordered = sorted(set(column), key=lambda number: float(number.replace(",", "")))
            numbers.append(ordered[0] if len(ordered) == 1 else f"{ordered[0]} to {ordered[-1]}")
        whole = "".join(a + b for a, b in zip(between, [*numbers, ""], strict=True))
        merged |= dict.fromkeys(group, whole)
    return merged


def unreadable(results: Results, rows: Sequence[Row]) -> Iterator[str]:
    """The rows that cannot be read here, with the reason."""
    said: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        if row.unreadable is not None:
            said.setdefault(_not_readable(row), {}).setdefault(row.task, []).append(engine(row))
    return _of_whom(results, said)


def _of_whom(results: Results, said: Mapping[str, Mapping[str, list[str]]]) -> Iterator[str]:
    """Each text with its tasks and their engines."""
    every = {task.name for task in results.tasks}
    for text, whom in said.items():
        engines = list(dict.fromkeys(name for names in whom.values() for name in names))
        if whom.keys() == every and all(names == engines for names in whom.values()):
            yield f"{text}: {', '.join(engines)}, in every task"
        else:
            yield f"{text}: " + "; ".join(f"{task} ({', '.join(names)})" for task, names in whom.items())


def _not_readable(row: Row) -> str:
    return f"not readable here ({row.unreadable})"


def _why_no_verdict(results: Results, row: Row) -> Iterator[str]:
    if row.unreadable is not None:
        yield _not_readable(row)
    if row.verdict == "no baseline":
        yield f"no ratio, because {results.baseline} has no result to divide by"


def _without_amounts(text: str) -> str:
    return _AMOUNT.sub("…", text)
