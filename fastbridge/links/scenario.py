"""Scenarios: what happens to links, and when.

A file in TOML. Its whole text is checked before anything happens; an error names the line.
"""

from __future__ import annotations

import heapq
import itertools
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from fastbridge.errors import ConfigError
from fastbridge.toml_text import Document

from .files import read_text
from .link import DIRECTIONS, Link
from .places import Place, read_groups, read_place, spoken
from .units import read_time, show_time

ALL = "*"  #: as a link: those of all ports
_LEAST = 10 * 10**6  #: ns: what is shorter, no pod notices
_FLAP = re.compile(r"\s*(\S+?)\s*/\s*(\S+?)(?:\s+(down|cut))?\s*", re.IGNORECASE)

#: What can happen, and what it does to …
_ACTIONS = ("set", "change", "reset", "cut", "mend", "down", "up", "flap", "partition", "heal")
_EVERYWHERE = ("partition", "heal")  # … no link in particular
_CARRIER = ("down", "up")  # … a port's carrier, which a pair does not have
_CUTS = ("cut", "mend")
_KEYS = ("time", "link", *_ACTIONS)


class Flap(NamedTuple):
    """A link that fails again and again: `up` ns it is there, then `down` ns it is not."""

    up: int
    down: int
    cut: bool  #: it is cut; else the pod's carrier is lost

    @classmethod
    def parse(cls, text: object) -> Flap:
        """A flap from "10s/2s", or "10s/2s cut". Raises ConfigError."""
        match = _FLAP.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise ConfigError(f'flap must be the times up and down, such as "10s/2s" or "10s/2s cut", not {text!r}')
        up, down = (read_time("flap", time) for time in match.groups()[:2])
        if min(up, down) < _LEAST:
            raise ConfigError(f"flap {text!r}: each time must be {show_time(_LEAST)} or more")
        return cls(up, down, (match[3] or "").lower() == "cut")

    def __str__(self) -> str:
        return f"{show_time(self.up)}/{show_time(self.down)}{' cut' if self.cut else ''}"

    @property
    def off(self) -> str:
        """What happens when it fails …"""
        return "cut" if self.cut else "down"

    @property
    def on(self) -> str:
        """… and when it is back."""
        return "mend" if self.cut else "up"


@dataclass(frozen=True, slots=True)
class Step:
    """What happens at one moment of a scenario."""

    at: int  #: ns since it began
    do: str  #: "set", "change", "reset", "cut", "mend", "down", "up", "flap", "partition" or "heal"
    places: tuple[Place, ...] = ()
    #: A Link to set, words to change, a direction to cut, a Flap, the groups of a partition
    value: Any = None
    where: str = ""  #: FILE:LINE
    flaps: bool = False  #: a flap has it happen

    @property
    def ports(self) -> tuple[str, ...]:
        """The places that are ports: all but pairs."""
        return tuple(place for place in self.places if isinstance(place, str))

    def __str__(self) -> str:
        places = " ".join(map(spoken, self.places))
        value = "" if self.value is None else str(self.value)
        if self.do == "partition":
            value = " | ".join(" ".join(group) for group in self.value)
        return " ".join(part for part in (places, self.do, value) if part)


@dataclass(frozen=True, slots=True)
class Scenario:
    """Steps in the order of their times, which are ns since it began."""

    steps: tuple[Step, ...]
    period: int = 0  #: ns, after which it begins anew; 0: it does not
    source: str = "the scenario"

    @classmethod
    def load(cls, path: str | Path) -> Scenario:
        """The scenario in a file. Raises ConfigError."""
        return cls.parse(cls.read(path), str(path))

    @staticmethod
    def read(path: str | Path) -> str:
        """The text of a file. Raises ConfigError."""
        return read_text("scenario", str(path))

    @classmethod
    def parse(cls, text: str, source: str = "the scenario") -> Scenario:
        """A scenario from TOML. source: what errors call it. Raises ConfigError that names the line."""
        document = Document(text, source)
        for key in document.table:
            if key not in ("repeat", "at"):
                raise ConfigError(f"{document.where((key,))}: there is no key {key}; there are: repeat, at")
        tables = document.table.get("at")
        if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
            raise ConfigError(f"{document.where(('at',))}: a scenario has one [[at]] or more, each with a time")
        steps = [_read(table, document, ("at", place)) for place, table in enumerate(tables)]
        period = 0
        if "repeat" in document.table:
            period = _checked(document, ("repeat",), read_time, "repeat", document.table["repeat"])
            if period < max(_LEAST, *(step.at + 1 for step in steps)):
                raise ConfigError(
                    f"{document.where(('repeat',))}: repeat must be {show_time(_LEAST)} or more, and later than each "
                    f"time, not {show_time(period)}"
                )
        return cls(tuple(sorted(steps, key=lambda step: step.at)), period, source)

    @classmethod
    def flapping(cls, places: Collection[Place], flap: Flap) -> Scenario:
        """One link or more that flap from now on. Raises ConfigError: a pair has no carrier to lose."""
        if not flap.cut:
            _no_pairs("flap", places)
        return cls((Step(0, "flap", tuple(places), flap),), source="flap")

    def bound(
        self,
        ports: Collection[str],
        links: Mapping[Place, Link],
        may_come: Callable[[str], bool] = lambda name: False,
    ) -> Scenario:
        """The scenario for a switch with these ports, and links that are not perfect: * stands for all ports.

        may_come: whether a port of this name may join later.

        Raises ConfigError that names the line: there is no such port, or a change contradicts what a link is then.
        """
        steps = tuple(_bound(step, ports, may_come) for step in self.steps)
        now = dict(links)
        for step in steps * (2 if self.period else 1):  # the second time, links are as the first time left them
            for place in step.places:
                if step.do == "set":
                    now[place] = step.value
                elif step.do == "reset":
                    now.pop(place, None)
                elif step.do == "change":
                    try:
                        now[place] = now.get(place, Link()).change(step.value)
                    except ConfigError as error:
                        raise ConfigError(f"{step.where}: {spoken(place)}: {error}") from None
        return replace(self, steps=steps)

    def moments(self) -> Iterator[Step]:
        """What happens, one by one, in the order of time: without flaps, which become the steps that they consist of.

        It may have no end. What has the same time is in the order of the file.
        """
        for begin in itertools.count(0, self.period) if self.period else (0,):
            happens = False
            for step in self._round():
                happens = True
                yield replace(step, at=begin + step.at)
            if not happens:  # no flap comes to its first outage
                return

    def _round(self) -> Iterator[Step]:
        waiting = [(step.at, number, step) for number, step in enumerate(self.steps)]  # a heap: it is sorted
        numbers = itertools.count(len(waiting))
        flapping: dict[tuple[Place, bool], tuple[Flap, Step]] = {}  # by place and kind: with what comes next

        def go_on(flap: Flap, place: Place, at: int, off: bool, where: str) -> None:
            at += flap.down if off else flap.up
            then = Step(at, flap.on if off else flap.off, (place,), where=where, flaps=True)
            flapping[place, flap.cut] = flap, then
            heapq.heappush(waiting, (at, next(numbers), then))

        while waiting:
            at, _, step = heapq.heappop(waiting)
            if self.period and at >= self.period:
                break
            if step.flaps:
                flap, then = flapping.get((step.places[0], step.do in _CUTS), (None, None))
                if flap is None or then is not step:
                    continue  # it has ended
                go_on(flap, step.places[0], at, step.do == flap.off, step.where)
            elif step.do in (*_CARRIER, *_CUTS, "reset"):  # which mends
                for place in step.places:
                    flapping.pop((place, step.do not in _CARRIER), None)
            elif step.do == "flap":
                for place in step.places:
                    yield from _ended(flapping.pop((place, step.value.cut), None), at)
                    go_on(step.value, place, at, False, step.where)
                continue
            yield step
        for flap_and_next in flapping.values():
            yield from _ended(flap_and_next, self.period)


def _ended(flapping: tuple[Flap, Step] | None, at: int) -> Iterator[Step]:
    """What ends a flap: the link is there again."""
    if flapping and flapping[1].do == flapping[0].on:
        yield replace(flapping[1], at=at)


def _read(table: dict[str, Any], document: Document, path: tuple[str | int, ...]) -> Step:
    where = document.where(path)
    for key in table:
        if key not in _KEYS:
            raise ConfigError(f"{document.where((*path, key))}: there is no key {key}; there are: {', '.join(_KEYS)}")
    if "time" not in table:
        raise ConfigError(f'{where}: there is no time; add time = "10s"')
    at = _checked(document, (*path, "time"), read_time, "time", table["time"])
    actions = [key for key in table if key in _ACTIONS]
    if len(actions) != 1:
        said = " and ".join(actions) or "nothing"
        raise ConfigError(f"{where}: one thing happens at a time, not {said}; it is one of: {', '.join(_ACTIONS)}")
    (do,) = actions
    if (do in _EVERYWHERE) is ("link" in table):
        what = f"{do} is about all ports: leave link out" if do in _EVERYWHERE else f'{do} needs a link = "pod1"'
        raise ConfigError(f"{where}: {what}")
    places = _checked(document, (*path, "link"), _places, do, table["link"]) if "link" in table else ()
    value = _checked(document, (*path, do), _value, do, table[do])
    if isinstance(value, Flap) and not value.cut:
        _checked(document, (*path, "link"), _no_pairs, do, places)
    return Step(at, do, places, value, where)


def _checked(document: Document, path: tuple[str | int, ...], read: Any, *arguments: Any) -> Any:
    """What `read` returns. Raises ConfigError that names the line."""
    try:
        return read(*arguments)
    except ConfigError as error:
        raise ConfigError(f"{document.where(path)}: {error}") from None


def _places(do: str, value: object) -> tuple[Place, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise ConfigError(
            f'link must be a port, a pair "pod1>pod2", "*" for all ports, or an array of these: {value!r}'
        )
    places = tuple(dict.fromkeys(map(read_place, texts)))
    if do in _CARRIER:
        _no_pairs(do, places)
    return places


def _no_pairs(do: str, places: Collection[Place]) -> None:
    for place in places:
        if not isinstance(place, str):
            raise ConfigError(f"{spoken(place)} is a pair, which has no carrier: cut it, or {do} one of its ports")


def _value(do: str, value: Any) -> Any:
    if do in ("set", "change"):
        if not isinstance(value, str):
            raise ConfigError(f'{do} must be words of a link, such as "delay=20ms,loss=1%", not {value!r}')
        # Words to change are checked by themselves where they can be: whether they go together depends on the link.
        return Link.parse(value) if do == "set" else value
    if do == "cut":
        if value is True:
            return None
        if value not in DIRECTIONS:
            raise ConfigError(f"cut must be true, or one way: {' or '.join(DIRECTIONS)}, not {value!r}")
        return value
    if do == "flap":
        return Flap.parse(value)
    if do == "partition":
        if not isinstance(value, list) or not all(
            isinstance(group, list) and all(isinstance(port, str) for port in group) for group in value
        ):
            raise ConfigError(f'partition must be groups of ports, such as [["pod1", "pod2"], ["pod3"]], not {value!r}')
        return tuple(map(tuple, read_groups(value)))
    if value is not True:
        raise ConfigError(f"{do} must be true, not {value!r}")
    return None


def _bound(step: Step, ports: Collection[str], may_come: Callable[[str], bool]) -> Step:
    """A step with names that there are. Raises ConfigError."""
    places = tuple(dict.fromkeys(each for place in step.places for each in (ports if place == ALL else (place,))))
    groups = step.value if step.do == "partition" else ()
    named = [port for place in (*places, *groups) for port in ((place,) if isinstance(place, str) else place)]
    for port in named:
        if port not in ports and not may_come(port):
            where = f"{step.where}: " if step.where else ""
            raise ConfigError(f"{where}the switch has no port {port!r}; it has: {', '.join(ports) or 'none'}")
    return replace(step, places=places)
