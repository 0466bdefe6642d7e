"""Counters, as a table."""

from __future__ import annotations

from rich.table import Table

from fastbridge.console import make_table
from fastbridge.switch.counters import Counters


def counter_table(counters: Counters, title: str = "Frames") -> Table:
    """Each port's frames, and what happened to them."""
    heads, rows = counters.table
    table = make_table(title, *heads, right=tuple(heads[1:]))
    for row in rows:
        table.add_row(*row, style="bold" if row is rows[-1] else "")
    return table
