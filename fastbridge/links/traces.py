"""Links that change with time, as recorded.

Two kinds of file are read. mahimahi's: a line a delivery opportunity, each the millisecond in which 1504 bytes may
leave; the file begins anew at its last one. CSV: a header with `t` and at least one of `rate` and `delay`, then rows
that each hold from their time on; the last one stays.

Errors name file and line and quote nothing: who names a file to a switch may not be allowed to read it.

Source of the first: R. Netravali et al., Mahimahi: Accurate Record-and-Replay for HTTP, USENIX ATC 2015, and the manual
page of its mm-link.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from functools import lru_cache
from typing import NamedTuple

from fastbridge.errors import ConfigError

from .files import read_text, stamp
from .stages import MOST_RATE, MOST_TIME, Step
from .units import read_rate, read_time, show_rate, show_time

OPPORTUNITY = 1504  #: bytes
_MS = 10**6
_USUAL = {"t": "s", "rate": "bit", "delay": ""}  # columns, with the units of their bare numbers
_HEADING = re.compile(r"(t|rate|delay)\s*(?:[\[(]\s*([a-zA-Z]+)\s*[\])])?", re.IGNORECASE)


class TraceSteps(NamedTuple):
    """A trace as the core takes it."""

    steps: tuple[Step, ...]
    period_ns: int  #: 0: the last step stays
    rate: int  #: bit/s, for which a queue is sized; 0: the trace has none

    @property
    def has_delay(self) -> bool:
        """Whether the trace says the delay, too."""
        return self.steps[0][2] >= 0


def read_trace(path: str) -> TraceSteps:
    """The steps of a trace file. Raises ConfigError."""
    return _read(path, stamp("trace", path))


@lru_cache(maxsize=16)
def _read(path: str, version: object) -> TraceSteps:
    lines = read_text("trace", path).splitlines()
    filled = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if not filled:
        raise ConfigError(f"trace: {path} is empty")
    return _mahimahi(path, filled) if re.fullmatch("[0-9]+", filled[0][1]) else _csv(path, filled)


def _mahimahi(path: str, lines: list[tuple[int, str]]) -> TraceSteps:
    stamps: list[int] = []
    for number, line in lines:
        if not re.fullmatch("[0-9]{1,10}", line):
            raise ConfigError(f"trace: {path}:{number}: not a whole number of milliseconds, of 10 digits at most")
        if stamps and int(line) < stamps[-1]:
            raise ConfigError(f"trace: {path}:{number}: earlier than the line before; the lines must ascend")
        stamps.append(int(line))
    period = stamps[-1]
    if not period:
        raise ConfigError(f"trace: {path} has no time: its last line must be later than 0 ms")
    if period * _MS > MOST_TIME:  # an opportunity in this time is 3 bit/s: the mean is never 0
        raise ConfigError(f"trace: {path} is too long: its last line must be at most {MOST_TIME // _MS} ms")
    # What may leave at t leaves in the millisecond that ends there. The end is the next round's 0.
    chances = Counter((stamp or period) - 1 for stamp in stamps)
    steps: list[Step] = []
    for begin in sorted(chances.keys() | {end + 1 for end in chances if end + 1 < period} | {0}):
        rate = chances[begin] * OPPORTUNITY * 8 * 1000
        if rate > MOST_RATE:
            raise ConfigError(f"trace: {path}: too many lines say the same millisecond")
        if not steps or steps[-1][1] != rate:
            steps.append((begin * _MS, rate, -1))
    return TraceSteps(tuple(steps), period * _MS, round(len(stamps) * OPPORTUNITY * 8 * 1000 / period))


def _csv(path: str, lines: list[tuple[int, str]]) -> TraceSteps:
    rows = [(number, _cells(f"{path}:{number}", line)) for number, line in lines if line[0] != "#"]
    columns = _header(path, rows)
    steps: list[Step] = []
    for number, row in rows[1:]:
        where = f"trace: {path}:{number}"
        if len(row) != len(columns):
            raise ConfigError(f"{where}: {len(row)} values, not {len(columns)}: {', '.join(columns)}")
        values = {
            name: _value(where, name, _with_unit(cell, columns[name])) for name, cell in zip(columns, row, strict=True)
        }
        at = values["t"]
        if not steps and at:
            raise ConfigError(f"{where}: the first t must be 0")
        if steps and at <= steps[-1][0]:
            raise ConfigError(f"{where}: t is not later than in the row before; the rows must ascend")
        steps.append((at, values.get("rate", -1), values.get("delay", -1)))
    if not steps:
        raise ConfigError(f"trace: {path} has a header and no rows")
    rate = max(rate for _, rate, _ in steps)
    if rate == 0:
        raise ConfigError(f"trace: {path} has no rate above 0: nothing would ever leave; say cut for that")
    if steps[-1][1] == 0:
        raise ConfigError(f"trace: {path} ends with a rate of 0, which stays: add a row with the rate that follows")
    return TraceSteps(tuple(steps), 0, max(rate, 0))


def _header(path: str, rows: list[tuple[int, list[str]]]) -> dict[str, str]:
    """The columns, each with the unit of its bare numbers."""
    number, cells = rows[0] if rows else (1, [])
    matches = [_HEADING.fullmatch(cell) for cell in cells]
    columns = {match[1].lower(): match[2] or _USUAL[match[1].lower()] for match in matches if match}
    if len(columns) != len(cells) or len(columns) < 2 or "t" not in columns:
        raise ConfigError(
            f"trace: {path}:{number}: not a mahimahi trace (a whole number of ms a line), and not a CSV with the "
            "header t,rate,delay; units may follow in brackets: t [s],rate [mbit],delay [ms]"
        )
    return columns


def _cells(where: str, line: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line]))]
    except csv.Error:
        raise ConfigError(f"trace: {where}: not a row of a CSV") from None


def _value(where: str, column: str, text: str) -> int:
    """Nanoseconds, or bit/s. Raises ConfigError."""
    try:
        return read_rate(column, text) if column == "rate" else read_time(column, text)
    except ConfigError:
        allowed = f"a time such as 20ms, 0 … {show_time(MOST_TIME)}"
        if column == "rate":
            allowed = f"a rate such as 10mbit, 0 … {show_rate(MOST_RATE)}"
        raise ConfigError(f"{where}: {column} must be {allowed}") from None


def _with_unit(cell: str, unit: str) -> str:
    return cell + unit if cell[-1:].isdecimal() else cell
