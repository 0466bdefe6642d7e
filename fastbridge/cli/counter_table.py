"""Counters, as a table."""

from __future__ import annotations

from rich.table import Table

from fastbridge.console import make_table
from fastbridge.switch.counters import CELLS, Counters


def counter_table(counters: Counters, title: str = "Frames") -> Table:
    """Every port's frames, and what became of them."""
    table = make_table(title, "port", *CELLS, right=CELLS)
    for name, port in counters.ports.items():
        table.add_row(name, *port.cells)
    table.add_row("total", *counters.total.cells, style="bold")
    return table


def reasons(counters: Counters) -> str:
    """The FDB's story in one line, and if there were any the reasons of all drops and what the policy did."""
    return counters.story
