"""Places: where a link is. A port, or a pair of ports: frames from the first to the second."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from fastbridge.errors import ConfigError

from .link import Link

#: A port, by its name, or a pair of ports, (from, to).
Place: TypeAlias = str | tuple[str, str]


def read_place(text: str, ports: Iterable[str] = ()) -> Place:
    """The place that a word names. A port of these may have > in its name; else it stands between the two of a pair."""
    if ">" not in text or text in ports:
        return text
    known = set(ports)
    halves = [(text[:at], text[at + 1 :]) for at, char in enumerate(text) if char == ">"]
    one, other = next((pair for pair in halves if known.issuperset(pair)), halves[0])
    if not one or not other or one == other:
        raise ConfigError(f"{text!r} is no pair of ports, such as veth1>veth2: frames from the first to the second")
    if "*" in (one, other):
        raise ConfigError(f"{text!r}: * stands for all ports, and not in a pair; name both ports")
    return one, other


def spoken(place: Place) -> str:
    """A place in one word: `pod1`, or `pod1>pod2`."""
    return place if isinstance(place, str) else ">".join(place)


def links_of(texts: Mapping[str, str], ports: Sequence[str]) -> dict[Place, Link]:
    """Links in words by their places in words; `*` stands for all ports that have none of their own."""
    every = Link.parse(texts["*"]) if "*" in texts else None
    links: dict[Place, Link] = dict.fromkeys(ports, every) if every else {}
    return links | {read_place(place, ports): Link.parse(text) for place, text in texts.items() if place != "*"}


def read_groups(groups: Sequence[Sequence[str]]) -> list[list[str]]:
    """The groups of a partition. Raises ConfigError: a port is in two, or a group has none."""
    found: set[str] = set()
    for group in groups:
        if not group:
            raise ConfigError("a group of a partition has one or more ports")
        for port in group:
            if port in found:
                raise ConfigError(f"{port} is named twice; a port is in one group of a partition")
            found.add(port)
    if not groups:
        raise ConfigError("a partition has one or more groups; the ports that none of them names are one more")
    return [list(group) for group in groups]
