"""RFC 2889, judged.

Where the RFC says what a switch should do, the answer is pass or fail. Where it asks for a number, the answer is
that number.
"""

from __future__ import annotations

from collections.abc import Callable

from . import wording
from .evidence import LoadedRun, Report
from .parts import Cell, Column, Table
from .rows import Row

METHODS = (
    "mesh",
    "congestion",
    "max-forwarding-rate",
    "address-caching",
    "address-learning",
    "errored-frames",
    "broadcast",
)


def judgements(report: Report) -> Table | None:
    """A row for each test, a column for each engine; None without such a test."""
    columns: list[str] = []
    lines: dict[str, dict[str, Cell]] = {}
    for loaded in report.runs:
        unfit = wording.unfit_everywhere(loaded.results, loaded.rows)
        for task in loaded.tasks(*METHODS):
            for row in (row for row in loaded.rows_of(task.name) if row.engine not in unfit):
                series = row.engine + (f" · {loaded.label}" if loaded.label else "")
                columns = list(dict.fromkeys([*columns, series]))
                for name, cell in _judge(loaded, row).items():
                    lines.setdefault(name, {})[series] = cell
    if not lines:
        return None
    heads = [Column("test", number=False), *(Column(series, number=False) for series in columns)]
    return Table(
        "", heads, [[Cell(name), *(own.get(each, Cell("")) for each in columns)] for name, own in lines.items()]
    )


def _judge(loaded: LoadedRun, row: Row) -> dict[str, Cell]:
    method = loaded.methods[row.task]
    where = method.section.replace("RFC 2889 ", "")
    if (reason := row.unfit or row.unreadable) and not row.values:
        style = "loss" if row.unfit else "even"
        return {f"{row.task} ({where})": Cell(row.verdict, style=style, hint=wording.printable(reason))}
    judge = {"congestion": _congestion, "errored-frames": _errored}.get(method.name)
    if judge is not None:
        return {f"{name} ({where})": cell for name, cell in judge(row).items()}
    number = {
        "mesh": _value("ndr", "frames/s", "NDR "),
        "max-forwarding-rate": _value("mfr", "frames/s"),
        "address-caching": _value("capacity", "addresses"),
        "address-learning": _value("learning_rate", "addresses/s"),
        "broadcast": _value("ndr", "frames/s", "NDR "),
    }[method.name]
    return {f"{row.task} ({where})": number(row)}


def _value(name: str, unit: str, prefix: str = "") -> Callable[[Row], Cell]:
    def judged(row: Row) -> Cell:
        if name not in row.values:
            return Cell("none found", style="even")
        least = "≥ " if any(text.removeprefix(prefix).startswith("≥") for text in row.remarks) else ""
        return Cell(f"{prefix}{least}{wording.number(row.values[name], unit)} {unit}", row.values[name])

    return judged


def _congestion(row: Row) -> dict[str, Cell]:
    if "loss_d" not in row.values:
        blocking = _not_shown("port C cannot be overloaded")
    elif row.values["loss_d"] == 0.0:
        blocking = Cell("pass", style="win")
    elif any(text.startswith("head-of-line blocking") for text in row.remarks):
        blocking = Cell(f"fail: {row.values['loss_d']:.2%} lost", style="loss")
    else:
        blocking = _not_shown("the switch as a whole is overloaded")
    pressure = row.values.get("back_pressure")
    shown = (
        _not_shown("port C cannot be overloaded")
        if pressure is None
        else Cell(f"{pressure:.1%}" if pressure else "none")
    )
    return {"no head-of-line blocking": blocking, "back pressure": shown}


def _errored(row: Row) -> dict[str, Cell]:
    judged = {}
    for name, what in (("runts_filtered", "runts filtered"), ("oversize_filtered", "over-size frames filtered")):
        share = row.values.get(name)
        if share is None:
            judged[what] = _not_shown("none can be sent over this link")
        elif share == 1.0:
            judged[what] = Cell("pass", style="win")
        else:
            judged[what] = Cell("fail: forwarded" if share == 0.0 else f"fail: {share:.1%} filtered", style="loss")
    judged["CRC errors, alignment errors, dribble bits"] = _not_shown("no veth can carry them")
    return judged


def _not_shown(why: str) -> Cell:
    return Cell("not shown", style="even", hint=why)
