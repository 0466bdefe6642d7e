"""Output, shared.

Consoles, numbers and the counter table that more than one command prints.
"""

from __future__ import annotations

import os
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastbridge.counters import CELLS, Counters

_FILE_WIDTH = 120


class _Plain(Console):
    """Lets through nothing that is no character: a file's names and reasons shall not steer the terminal."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Whatever is printed as a str comes through here, tables' cells too."""
        plain = "".join(char if char.isprintable() or char == "\n" else " " for char in text)
        return super().render_str(plain, **options)


def make_console(*, stderr: bool = False, markup: bool = True) -> Console:
    """A console that colours for a terminal only, and only what it is told to; a file has room for any table.

    markup=False: for what others wrote, whose brackets and control characters mean nothing.
    """
    kind = Console if markup else _Plain
    console = kind(stderr=stderr, highlight=False, soft_wrap=False, markup=markup)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _FILE_WIDTH
    return console


def make_table(title: str, *columns: str, right: tuple[str, ...] = ()) -> Table:
    """A table in the one style all commands have; the columns named in `right` hold numbers."""
    table = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    return table


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
