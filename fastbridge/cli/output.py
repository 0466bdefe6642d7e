"""Output, shared.

Consoles, numbers and the counter table that more than one command prints.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastbridge.counters import Counters, PortCounters

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
    numbers = ("received", "forwarded", "flooded", "dropped", "sent", "not sent")
    table = make_table(title, "port", *numbers, right=numbers)
    for name, port in counters.ports.items():
        table.add_row(name, *_cells(port))
    table.add_row("total", *_cells(counters.total), style="bold")
    return table


def reasons(counters: Counters) -> str:
    """The FDB's story in one line, and if there were any the reasons of all drops and what the policy did."""
    fdb = f"MAC addresses learned {counters.learned:,}, moved {counters.moved:,}, aged {counters.aged:,}"
    parts = [fdb + (f", refused {counters.refused:,} (FDB full)" if counters.refused else "")]
    for what, found in (("dropped", counters.total.dropped), ("not sent", counters.total.tx_dropped)):
        if any(found.values()):
            parts.append(f"{what}: {_listed(found)}")
    if counters.total.rx_missed:
        parts.append(f"missed by the kernel, ring full: {counters.total.rx_missed:,}")
    if any(counters.policy.values()):
        parts.append(f"policy: {_listed(counters.policy)}")
    return "; ".join(parts)


def _cells(port: PortCounters) -> list[str]:
    numbers = (
        port.rx_frames,
        port.forwarded,
        port.flooded,
        sum(port.dropped.values()),
        port.tx_frames,
        sum(port.tx_dropped.values()),
    )
    return [f"{number:,}" for number in numbers]


def _listed(found: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in found.items() if count)
