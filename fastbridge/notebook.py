"""Notebook: what objects show of themselves there.

Tables and the drawing of a lab, as HTML that needs nothing else. They take the colours of the page, light or dark.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import islice
from typing import NamedTuple

#: The most rows of a table. Whoever makes rows need not make more.
MOST_ROWS = 1000
_MOST_STATIONS = 16  # in a drawing; more would be too small to read
_ONE_SIDE = 4  # so many stand above the bar alone

# A drawing, in pixels: a station's box, the wire to the bar, and the bar.
_COLUMN, _WIDTH, _HEIGHT, _WIRE, _BAR = 156, 140, 64, 52, 30
_LETTERS = 22  # that fit a box in small print
_WIRE_LINES = 3  # that fit beside a wire


class Station(NamedTuple):
    """What stands at one wire of a drawing."""

    name: str
    lines: Sequence[str]  #: below the name, at most two
    wire: Sequence[str]  #: what its wire does to frames, in short lines
    tip: str  #: shown when the mouse is over it


def table(
    title: str, heads: Sequence[str], rows: Iterable[Sequence[str]], total: int, *, right: Iterable[str] = ()
) -> str:
    """A table of the first MOST_ROWS rows of `total`. The columns named in `right` hold numbers."""
    numbers = [head in set(right) for head in heads]
    parts = [f"<caption style='text-align:left'><b>{escape(title)}</b></caption>"] if title else []
    parts.append(f"<thead>{_row('th', heads, numbers)}</thead><tbody>")
    parts += [_row("td", row, numbers) for row in islice(rows, MOST_ROWS)]
    parts.append("</tbody>")
    return f"<table>{''.join(parts)}</table>{lines([_more(total, MOST_ROWS)])}"


def lines(texts: Iterable[str]) -> str:
    """Paragraphs, one for each text that is not empty."""
    return "".join(f"<p style='margin:.3em 0'>{escape(text)}</p>" for text in texts if text)


def drawing(stations: Iterable[Station], total: int, bar: str) -> str:
    """The first stations of `total`, each on a wire to a bar with this text."""
    shown = list(islice(stations, _MOST_STATIONS))
    above = len(shown) if len(shown) <= _ONE_SIDE else (len(shown) + 1) // 2
    below = len(shown) > above
    width, at = max(above, 1) * _COLUMN, _HEIGHT + _WIRE  # at: the bar's upper edge
    height = at + _BAR + (_WIRE + _HEIGHT if below else 0)
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' role='img' aria-label='{escape(bar, quote=True)}' "
        f"viewBox='-1 -1 {width + 2} {height + 2}' width='{width + 2}' "
        "style='display:block;max-width:100%;height:auto;margin:.8em 0' "
        "font-family='system-ui,sans-serif' fill='currentColor' text-anchor='middle'>",
        _box(0, at, width, _BAR),
        _text(width // 2, at + _BAR // 2 + 5, bar, 13),
    ]
    for number, station in enumerate(shown):
        upper = number < above
        left = (number if upper else number - above) * _COLUMN + (_COLUMN - _WIDTH) // 2
        parts.append(_station(station, left, 0 if upper else at + _BAR + _WIRE, at if upper else at + _BAR, upper))
    return f"{''.join(parts)}</svg>{lines([_more(total, len(shown))])}"


def _station(station: Station, left: int, top: int, edge: int, upper: bool) -> str:
    middle, near = left + _WIDTH // 2, top + _HEIGHT if upper else top
    parts = [
        f"<g><title>{escape(station.tip)}</title>",
        _box(left, top, _WIDTH, _HEIGHT),
        _text(middle, top + 20, station.name, 13, "font-weight='600'"),
        *(_text(middle, top + 38 + 16 * i, _short(line), 11, "opacity='.75'") for i, line in enumerate(station.lines)),
        f"<line x1='{middle}' y1='{near}' x2='{middle}' y2='{edge}' stroke='currentColor'/>",
    ]
    first, words = min(near, edge) + 15, list(station.wire)
    if len(words) > _WIRE_LINES:
        words[_WIRE_LINES - 1 :] = ["…"]
    for i, word in enumerate(words):
        parts.append(_text(middle + 6, first + 14 * i, _short(word, _LETTERS // 2), 11, "text-anchor='start'"))
    return f"{''.join(parts)}</g>"


def _box(left: int, top: int, width: int, height: int) -> str:
    place = f"x='{left}' y='{top}' width='{width}' height='{height}'"
    return f"<rect {place} rx='6' fill='currentColor' fill-opacity='.06' stroke='currentColor'/>"


def _text(x: int, y: int, text: str, size: int, more: str = "") -> str:
    return f"<text x='{x}' y='{y}' font-size='{size}' {more}>{escape(text)}</text>"


def _row(kind: str, cells: Sequence[str], numbers: Sequence[bool]) -> str:
    sides = ["right" if number else "left" for number in numbers]
    made = (
        f"<{kind} style='text-align:{side};padding:.15em .6em'>{escape(cell)}</{kind}>"
        for cell, side in zip(cells, sides, strict=True)
    )
    return f"<tr>{''.join(made)}</tr>"


def _short(text: str, most: int = _LETTERS) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _more(total: int, shown: int) -> str:
    return f"… and {total - shown:,} more" if total > shown else ""
