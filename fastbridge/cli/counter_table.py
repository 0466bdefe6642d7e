"""Counters, as a table."""

from __future__ import annotations

from rich.table import Table

from fastbridge.console import make_table
from fastbridge.switch.counters import CELLS, Counters

_CONSUMED = CELLS.index("dropped")


def counter_table(counters: Counters, title: str = "Frames") -> Table:
    """Each port's frames, and what happened to them; those that policies took have a column where there are any."""
    heads = list(CELLS)
    if counters.total.consumed:
        heads.insert(_CONSUMED, "consumed")
    table = make_table(title, "port", *heads, right=tuple(heads))
    for name, port, style in (*((*of, "") for of in counters.ports.items()), ("total", counters.total, "bold")):
        cells = list(port.cells)
        if counters.total.consumed:
            cells.insert(_CONSUMED, f"{port.consumed:,}")
        table.add_row(name, *cells, style=style)
    return table
