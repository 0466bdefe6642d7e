"""Output, shared.

The consoles and tables that all commands print by.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

_FILE_WIDTH = 120


class _Plain(Console):
    """Lets only printable characters through, and reads no markup.

    Anybody may have written the names of interfaces and engines, the texts in a file and a program's last words. They
    must neither steer the terminal nor lose a bracket.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        """Every str that is printed comes through here, cells of tables too."""
        return super().render_str(plain(text), **options)


def plain(text: str) -> str:
    """Put blanks in place of unprintable characters."""
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text)


def make_console(*, stderr: bool = False, markup: bool = False) -> Console:
    """A console that colours on a terminal only, and nothing of its own accord. In a file any table has room.

    `markup`: read markup. Only for texts that are wholly our own.
    """
    kind = Console if markup else _Plain
    console = kind(stderr=stderr, highlight=False, soft_wrap=False, markup=markup, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _FILE_WIDTH
    return console


def print_lines(console: Console, lines: Iterable[str], indent: str = "  ", style: str = "") -> None:
    """Print lines of any length. A terminal gets them wrapped and indented, a file gets them whole."""
    for line in lines:
        text = Text(indent + plain(line), style=style)
        if console.is_terminal or "COLUMNS" in os.environ:
            within = max(1, console.width - 2 * len(indent))
            parts = Text(plain(line), style=style).wrap(console, within) or [text]
            for i, part in enumerate(parts):
                part.rstrip()
                console.print(Text(indent * (2 if i else 1)) + part, soft_wrap=True)
        else:
            console.print(text, soft_wrap=True)


class _Fitting(Table):
    """A table that cuts no number at any width.

    Where room is short, its texts wrap between words. Where that is not enough, each row becomes a paragraph: its
    values, each behind the head of its column.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table, or the paragraphs."""
        cells = [[_shown(console, each) for each in (column.header, *column.cells)] for column in self.columns]
        natural = [max(_widest(each) for each in of) for of in cells]
        natural = [max(width, column.width or 0) for width, column in zip(natural, self.columns, strict=True)]
        least = [
            width if column.no_wrap else max((len(word) for each in of for word in each.plain.split()), default=1)
            for width, column, of in zip(natural, self.columns, cells, strict=True)
        ]
        room = options.max_width - self._between() * (len(self.columns) - 1)
        if sum(least) > room:
            yield from self._paragraphs(console, cells, options.max_width)
            return
        widths = natural
        while sum(widths) > room:
            most = max(range(len(widths)), key=lambda i: (widths[i] - least[i], widths[i]))
            widths[most] -= 1
        for column, width in zip(self.columns, widths, strict=True):
            column.width = width
        yield from super().__rich_console__(console, options)

    def _between(self) -> int:
        _, right, _, left = self.padding
        return left + right + (1 if self.box else 0)

    def _paragraphs(self, console: Console, cells: list[list[Text]], width: int) -> Iterator[RenderableType]:
        if self.title:
            yield _shown(console, self.title, "bold")
        heads = [" ".join(each[0].plain.split()) for each in cells]
        for number, row in enumerate(self.rows):
            name, *values = (each[number + 1].plain for each in cells)
            yield Text(name, style=row.style or "")
            parts = [f"{head} {value}".strip() for head, value in zip(heads[1:], values, strict=True) if value]
            line = ""
            for part in parts:
                if line and len(line) + 3 + len(part) > width:
                    yield Text(line, style=row.style or "")
                    line = ""
                line = f"{line}, {part}" if line else f"  {part}"
            if line:
                yield Text(line, style=row.style or "")


def _shown(console: Console, cell: RenderableType, style: str = "") -> Text:
    return cell if isinstance(cell, Text) else console.render_str(str(cell), style=style)


def _widest(text: Text) -> int:
    return max((cell_len(line) for line in text.plain.split("\n")), default=0)


def make_table(title: str, *columns: str, right: tuple[str, ...] = ()) -> Table:
    """A table in the style of all commands. The columns named in `right` hold numbers."""
    table = _Fitting(
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
        number = column in right
        table.add_column(column, justify="right" if number else "left", no_wrap=number, overflow="fold")
    return table
