"""Parts of a report.

What a document says, before it becomes lines in a terminal, HTML, Markdown or pictures. Texts are plain: each form
escapes them in its own way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

ABOUT = (
    "fastbridge is a learning software switch for Linux pods, and a bench that measures it against the Linux bridge "
    "and other switches by the methods of RFC 2544 and RFC 2889."
)


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, and the number to sort it by if there is one."""

    text: str
    sort: float | None = None
    style: str = ""  #: win, loss, even, quiet or none
    hint: str = ""  #: shown while a pointer is over it

    @property
    def key(self) -> str:
        """What it is sorted by: a number, or the text. Empty cells come last."""
        return f"{self.sort!r}" if self.sort is not None else self.text


@dataclass(frozen=True)
class Column:
    """A column: its head, with the unit below."""

    name: str
    unit: str = ""
    number: bool = True
    hint: str = ""  #: what it means


@dataclass(frozen=True)
class Table:
    """Rows under columns; the first column names the row."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Figure:
    """A chart: which kind of it, and what it shows."""

    name: str  #: no other figure of the document has it
    title: str
    chart: str  #: a function of `drawn.charts`
    data: Mapping[str, Any]  #: its arguments
    caption: str = ""
    picture: str = ""  #: the picture that it is a part of
    wide: bool = False  #: takes the page's whole width


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Facts:
    """Names with their values."""

    entries: Mapping[str, str]


@dataclass(frozen=True)
class Lines:
    """A list."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Fold:
    """Parts that few readers want: closed until a reader opens it, open in print."""

    title: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Section:
    """A section. One without parts is left out, and `missing` says why."""

    name: str
    title: str
    lead: str = ""
    parts: Sequence[Part] = field(default=())
    missing: str = ""


@dataclass(frozen=True)
class Document:
    """Everything that a report says, in order."""

    title: str
    subtitle: str
    sections: Sequence[Section]
    warnings: Sequence[str] = ()  #: above everything else, below the title
    foot: Sequence[str] = (ABOUT,)


def figures_in(parts: Sequence[Part]) -> Iterator[Figure]:
    """All figures, also those in folds."""
    for part in parts:
        if isinstance(part, Fold):
            yield from figures_in(part.parts)
        elif isinstance(part, Figure):
            yield part


Part: TypeAlias = "Table | Figure | Text | Facts | Lines | Fold"
