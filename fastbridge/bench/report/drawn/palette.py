"""Colours and shapes.

An engine has one colour and one shape, in every chart of every page. The hues are Okabe and Ito's: people with any kind
of colour blindness can tell them apart. Some are a little darker or lighter: each has a contrast of 3:1 or more to
white and to the page's dark background. Shapes differ too, for print in black and white.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

LIGHT, DARK = "#ffffff", "#15181d"  #: the page's backgrounds


@dataclass(frozen=True)
class Marker:
    """How an engine is drawn."""

    colour: str
    shape: str


_KNOWN = {
    "fastbridge": Marker("#2b7fd3", "circle"),
    "linux-bridge": Marker("#d55e00", "square"),
    "python": Marker("#009e73", "diamond"),
    "ovs": Marker("#b05cb8", "triangle-up"),
    "testpmd": Marker("#b8860b", "triangle-down"),
    "testpmd-xdp": Marker("#8c6d5a", "cross"),
    "vde": Marker("#3a9ba6", "triangle-right"),
    "direct": Marker("#808890", "triangle-left"),
    "linux-bridge-nf": Marker("#c2455a", "square"),
    "vde/wirefilter": Marker("#b05cb8", "cross"),
    "fastbridge/no-coalesce": Marker("#2b7fd3", "diamond"),
}
_COLOURS = ("#7a8b2e", "#a66bbe", "#9a7b62", "#4c9aa8", "#5f6cc9", "#c2455a")
_SHAPES = ("cross", "triangle-up", "diamond", "square", "circle", "triangle-down", "triangle-right")


def markers(engines: Iterable[str]) -> dict[str, Marker]:
    """A marker for each engine; unknown engines get spare ones, in their order."""
    names = list(dict.fromkeys(engines))
    others = [name for name in names if name not in _KNOWN]
    spare = {name: Marker(_COLOURS[i % len(_COLOURS)], _SHAPES[i % len(_SHAPES)]) for i, name in enumerate(others)}
    return {name: _KNOWN.get(name) or spare[name] for name in names}
