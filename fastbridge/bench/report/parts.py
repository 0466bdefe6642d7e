"""Parts of a report.

What a section is made of, before anybody decides whether it becomes HTML or Markdown. Texts are plain: whoever
writes them down escapes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias


@dataclass(frozen=True)
class Cell:
    """Of a table: what is shown, and what it is sorted by (its text, if nothing else is said)."""

    text: str
    sort: float | None = None
    style: str = ""  #: win, loss, even, quiet or none
    hint: str = ""  #: shown to who hovers over it

    @property
    def key(self) -> str:
        """For sorting: a number, or the text; nothing sorts last."""
        return f"{self.sort!r}" if self.sort is not None else self.text


@dataclass(frozen=True)
class Column:
    """A head with its unit below."""

    name: str
    unit: str = ""
    number: bool = True
    hint: str = ""  #: what it means, for who wants to know


@dataclass(frozen=True)
class Table:
    """Rows under columns; the first column names the row."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Figure:
    """A chart; its name is that of its picture's file, and of no other figure of the page."""

    name: str
    title: str
    spec: Mapping[str, Any]  #: Vega-Lite
    caption: str = ""
    wide: bool = False  #: takes the page's whole width


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Facts:
    """Names and what stands behind them."""

    entries: Mapping[str, str]


@dataclass(frozen=True)
class Lines:
    """A list."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Fold:
    """Parts that only some readers want: closed until somebody opens it, open in print."""

    title: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Section:
    """A numbered part of the report; one without parts is left out, and `missing` says why."""

    name: str
    title: str
    lead: str = ""
    parts: Sequence[Part] = field(default=())
    missing: str = ""


Part: TypeAlias = "Table | Figure | Text | Facts | Lines | Fold"
