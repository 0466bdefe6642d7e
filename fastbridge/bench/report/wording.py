"""Results in words.

How numbers, units, names and irregularities are written: the same in the terminal, on the page and in Markdown, so
that nobody can quote one against the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from fastbridge.bench.methods import Method
from fastbridge.bench.results.results import EngineRecord, Results, TaskRecord

from .rows import Row, method_of
from .statistics import Ratio

_ABBREVIATIONS = ("ndr", "pdr", "frmol", "mfr")
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


def rates(row: Row) -> tuple[str, ...]:
    """Of single trials: frames/s, Gb/s, loss; ns a frame: the machine's beyond the direct pair, the switch's own."""
    added = None if row.is_direct else row.cpu_added_ns
    return (
        "" if row.frames_per_second is None else f"{row.frames_per_second:,.0f}",
        "" if row.gigabits_per_second is None else f"{row.gigabits_per_second:.2f}",
        "" if row.loss_ratio is None else f"{row.loss_ratio:.1%}",
        "" if added is None else f"{added:,.0f}",
        "" if row.cpu_switch_ns is None else f"{row.cpu_switch_ns:,.0f}",
    )


def latency_prefix(method: Method) -> str | None:
    """Of the percentiles that a method's verdict is about; None where it is about something else."""
    return method.primary.removesuffix("p50") if method.primary.endswith("p50") else None


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
            path = "" if record.kernel_share is None else f"{by_kernel(record)} of its frames forwarded by the kernel"
            how = "; ".join(part for part in (record.buffers, offloads, path) if part not in ("", "-"))
            version = "" if record.version == "-" else f" {record.version}"
            yield f"{record.name}{version}: {record.command}{f' ({how})' if how else ''}"


def by_kernel(record: EngineRecord) -> str:
    """How much of what it forwarded went by its kernel fast path; empty where it does not say."""
    return "" if record.kernel_share is None else f"{record.kernel_share:.2%}"


def warnings(results: Results, rows: Sequence[Row]) -> Iterator[str]:
    """What a reader has to know before any number; nothing of a quiet machine."""
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
    if results.fingerprint.quota not in ("none", "unknown"):
        yield f"A CPU quota held for all of it: {results.fingerprint.quota}, of {results.fingerprint.cpus}."
    if results.fingerprint.siblings not in ("none", "unknown"):
        yield f"CPUs that the bench uses share a core, and slow each other down: {results.fingerprint.siblings}."


def unfit_everywhere(results: Results, rows: Sequence[Row]) -> dict[str, str]:
    """Engines that have no result at all, with the first reason."""
    able = {row.engine for row in rows if row.unfit is None} | {results.baseline, results.control}
    return {row.engine: row.unfit for row in reversed(rows) if row.unfit is not None and row.engine not in able}


def finding(results: Results, rows: Sequence[Row]) -> dict[str, str]:
    """Engine → what was found of it, in a sentence: how many times the baseline's each value is."""
    said: dict[str, str] = {}
    whose = f"{results.baseline}'s"
    for record in results.engines:
        own = [row for row in rows if row.engine == record.name and row.ratio is not None and not row.is_direct]
        if record.name in (results.baseline, results.control) or not own:
            continue
        tasks = {task.name: task for task in results.tasks}
        claims = [
            f"{factor(row.ratio.mean)} times {'its' if i else whose} {_value_of(tasks[row.task])}"
            for i, row in enumerate(row for row in own if row.verdict in ("win", "loss"))
            if row.ratio is not None
        ]
        parts = [", ".join(claims)] if claims else []
        for verdict, text in (
            ("no difference", "no difference in"),
            ("cannot tell", "the trials cannot tell about"),
            ("withheld", "verdicts are withheld on"),
            ("not measured", "no noise floor for"),
        ):
            names = [_value_of(tasks[row.task]) for row in own if row.verdict == verdict]
            parts += [f"{text} {', '.join(names)}"] if names else []
        if parts:
            said[record.name] = "; ".join(parts)
    return said


def _value_of(task: TaskRecord) -> str:
    method = method_of(task)
    return f"{_VALUES.get(method.name, words(method.name.replace('-', ' ')))} ({method.subject})"


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
    """Each text → one for all that differ from it in numbers alone: "only 398 to 412 samples arrived"."""
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
