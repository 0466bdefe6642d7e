"""Verbs about links, over a switch.

A place is a port, a pair `from>to`, or `*`: all ports.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Literal

from fastbridge.errors import ConfigError
from fastbridge.links.link import DIRECTIONS, Link
from fastbridge.links.places import Place, read_place, spoken

from .rows import LinkRow
from .wires import LinkState

if TYPE_CHECKING:
    from .base import SwitchBase

_ALL = ("*", "all")


class LinkVerbs:
    """The verbs `link.…` of a switch. One that changes something returns the links that it has changed, as they are."""

    def __init__(self, switch: SwitchBase) -> None:
        self._switch = switch

    def set(self, places: list[str], link: str) -> list[LinkRow]:
        """Replace links: `delay=20ms,loss=1%`, or a preset such as `4g`. What it does not name is perfect."""
        with self._switch.still():
            found = self._read(places)
            self._switch.set_links(dict.fromkeys(found, Link.parse(link)))
            return self._rows(found)

    def change(self, places: list[str], link: str) -> list[LinkRow]:
        """Change some words of links. The others stay, and their random numbers go on."""
        with self._switch.still():
            found = self._read(places)
            self._switch.change_links(found, link)
            return self._rows(found)

    def show(self, places: list[str] | None = None) -> list[LinkRow]:
        """The links that are not perfect, or some, with their counts. `group`: of a partition; null: all others."""
        with self._switch.still():
            if places is not None:
                return self._rows(self._read(places))
            return [_row(place, state) for place, state in self._switch.links.items()]

    def reset(self, places: list[str] | None = None) -> list[LinkRow]:
        """Make links perfect again, with what was cut; without places all of them, and end the partition."""
        with self._switch.still():
            found = list(self._switch.links) if places is None else self._read(places)
            self._switch.reset_links(None if places is None else found)
            return self._rows(found)

    def cut(self, places: list[str], direction: Literal["both", "to_pod", "from_pod"] = "both") -> list[LinkRow]:
        """Let links drop all frames, silently: the pods keep their carrier."""
        with self._switch.still():
            found = self._read(places)
            self._switch.cut(*found, direction=direction)
            return self._rows(found)

    def mend(self, places: list[str]) -> list[LinkRow]:
        """End a cut: the links are what they were."""
        with self._switch.still():
            found = self._read(places)
            self._switch.mend(*found)
            return self._rows(found)

    def partition(self, groups: list[list[str]]) -> list[LinkRow]:
        """Let no frame pass between ports of different groups. Ports that none of them names are one more group."""
        with self._switch.still():
            self._switch.partition(groups)
            return self.show()

    def heal(self) -> list[LinkRow]:
        """End the partition: the links are what they were."""
        with self._switch.still():
            self._switch.heal()
            return self.show()

    def _read(self, places: Sequence[str]) -> list[Place]:
        return read_places(self._switch, places)

    def _rows(self, places: Collection[Place]) -> list[LinkRow]:
        links = self._switch.links_of(places)
        return [_row(place, links.get(place) or self._perfect(place)) for place in places]

    def _perfect(self, place: Place) -> LinkState:
        """Raises ConfigError: there is no such port."""
        for port in (place,) if isinstance(place, str) else place:
            self._switch.flags(port)
        return LinkState(None)


def read_places(switch: SwitchBase, places: Sequence[str]) -> list[Place]:
    """The places that these words name. Raises ConfigError: there are none."""
    ports = [port.name for port in switch.ports]
    if not places:
        raise ConfigError("name a port, a pair such as veth1>veth2, or * for all ports")
    found: list[Place] = []
    for text in places:
        found += ports if text in _ALL and text not in ports else [read_place(text, ports)]
    return list(dict.fromkeys(found))


def _row(place: Place, state: LinkState) -> LinkRow:
    row: LinkRow = {
        "ifname": spoken(place),
        "link": str(state.link or ""),
        "words": state.link.as_words() if state.link else {},
        "cut": list(state.cut),
        "group": state.group,
    }
    for direction in DIRECTIONS:
        if direction in state.counts:
            row[direction] = state.counts[direction]._asdict()
    return row
