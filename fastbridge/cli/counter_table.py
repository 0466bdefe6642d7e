"""Counters, as a table."""

from __future__ import annotations

from rich.table import Table

from fastbridge.console import make_table
from fastbridge.switch.counters import CELLS, Counters


def counter_table(counters: Counters, title: str = "Frames") -> Table:
    """Each port's frames, and what happened to them."""
    table = make_table(title, "port", *CELLS, right=CELLS)
    for name, port in counters.ports.items():
        table.add_row(name, *port.cells)
    table.add_row("total", *counters.total.cells, style="bold")
    return table
