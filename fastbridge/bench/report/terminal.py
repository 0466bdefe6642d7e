"""The report in a terminal.

Tables have the width of the terminal. Charts are left out, and so are folds: their numbers are in Markdown and on the
page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from rich.console import Console, RenderableType
from rich.rule import Rule
from rich.table import Table as DrawnTable
from rich.text import Text as Styled

from fastbridge.console import make_table, plain, print_lines

from .parts import Cell, Document, Facts, Figure, Fold, Lines, Part, Table, Text

_STYLES: Mapping[str, str] = MappingProxyType(
    {"win": "bold green", "loss": "bold red", "even": "yellow", "quiet": "dim", "warning": "yellow"}
)


def show(console: Console, document: Document) -> None:
    """Print the document."""
    console.print(document.title, style="bold", soft_wrap=True)
    print_lines(console, [document.subtitle], indent="")
    print_lines(console, document.warnings, indent="", style=_STYLES["warning"])
    missing, folded = [], []
    for section in document.sections:
        parts = [part for part in section.parts if not isinstance(part, (Figure, Fold))]
        folded += [f"{section.title}, {fold.title.lower()}" for fold in section.parts if isinstance(fold, Fold)]
        if parts:
            console.print()
            console.print(Rule(Styled(section.title, style="bold"), align="left", style="dim"))
            print_lines(console, [section.lead] if section.lead else [], indent="", style="dim")
        elif not section.parts:
            missing.append(f"{section.title}: {section.missing}")
        else:
            folded.append(f"{section.title}, charts")
        for part in parts:
            _show(console, part)
    console.print()
    for title, lines in (
        ("Left out:", missing),
        ("On the page and in Markdown (-o FILE.html, -o FILE.md) there are also:", folded),
    ):
        if lines:
            print_lines(console, [title], indent="", style="dim")
            print_lines(console, lines, style="dim")
    print_lines(console, document.foot[1:], indent="", style="dim")


def _show(console: Console, part: Part) -> None:
    if isinstance(part, Table):
        for drawn in _tables(part):
            console.print()
            console.print(drawn)
    elif isinstance(part, Facts):
        print_lines(console, [f"{name}: {value}" for name, value in part.entries.items()])
    elif isinstance(part, Lines):
        print_lines(console, part.lines)
    elif isinstance(part, Text):
        console.print()
        print_lines(console, [part.text], indent="")


def _tables(table: Table) -> Iterator[RenderableType]:
    """The table; where several rows have the same name, a table for each name, below each other."""
    groups: dict[str, list[Sequence[Cell]]] = {}
    for row in table.rows:
        groups.setdefault(row[0].text, []).append(row)
    if len(groups) == len(table.rows):
        yield _drawn(table, table.title, table.rows, 0)
        return
    if table.title:
        yield Styled(plain(table.title), style="bold")
    texts = [[max(column.name, column.unit, key=len) for column in table.columns]]
    texts += [[cell.text for cell in row] for row in table.rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)][1:]
    for number, (name, rows) in enumerate(groups.items()):
        drawn = _drawn(table, name, rows, 1)
        drawn.show_header = number == 0
        for column, width in zip(drawn.columns, widths, strict=True):
            column.width = width
        yield drawn


def _drawn(table: Table, title: str, rows: Sequence[Sequence[Cell]], first: int) -> DrawnTable:
    """These rows without the columns before the first."""
    columns = table.columns[first:]
    heads = [f"{column.name}\n{column.unit}" if column.unit else column.name for column in columns]
    numbers = [head for head, column in zip(heads, columns, strict=True) if column.number]
    drawn = make_table(title, *heads, right=tuple(numbers))
    drawn.padding = 0
    for row in rows:
        drawn.add_row(*(Styled(plain(cell.text), style=_STYLES.get(cell.style, "")) for cell in row[first:]))
    return drawn
