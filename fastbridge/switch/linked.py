"""The links of a switch: its verbs for them (docs/links.md)."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from fastbridge.errors import ConfigError
from fastbridge.links.link import DIRECTIONS, Direction, Link
from fastbridge.links.places import Place, read_groups, spoken
from fastbridge.named import refuse_text

from .fdb import PortRef
from .wires import LinkState, Wires

#: Where a link is: a port, or a pair of ports, (from, to).
PlaceRef = PortRef | tuple[PortRef, PortRef]


class Linked:
    """A switch, as far as its links go."""

    _wires: Wires
    _changing: threading.RLock

    @property
    def links(self) -> Mapping[Place, LinkState]:
        """The links that are not perfect, by port or pair (from, to), with their counts. See docs/links.md."""
        with self._changing:
            return self._wires.states()

    def links_of(self, places: Iterable[Place]) -> Mapping[Place, LinkState]:
        """As `links`, of these places alone, by the names of ports. One that is perfect is left out."""
        with self._changing:
            return self._wires.states_of(places)

    @property
    def own_links(self) -> Mapping[Place, Link]:
        """The links that are set, by port or pair; also of ports that may come again under their names."""
        return self._wires.wishes.links

    @property
    def link_memory(self) -> tuple[int, int]:
        """Bytes that the frames in flight take now, and the most that they may for each worker."""
        return self._wires.memory

    def set_link(self, place: PlaceRef, link: Link | str | None) -> None:
        """Replace the link of a port, or of a pair of ports (from, to), also while running.

        None: it is perfect, but for what cut() and partition() have cut; reset_links() mends cuts, too.

        link: a Link, or its text, "delay=20ms,loss=1%". Delays are one way, and a port has both: the RTT is the sum.
        A pair has one way; it takes the place of `to_pod` of the second port's link. Frames in flight keep their times
        and their order. A port that comes again under its name has its link again. Raises ConfigError.
        """
        self.set_links({place: link})

    def set_links(self, links: Mapping[Any, Link | str | None], *, restart: bool = True) -> None:
        """As set_link(), for many at once, {place: link}: all or none.

        restart: their random numbers and frame counts begin anew; else they go on.
        """
        # A matrix has few texts for many pairs. Those that are alike share a seed, mixed with the names of their ports.
        texts = {link: Link.parse(link) for link in {link for link in links.values() if isinstance(link, str)}}
        made = {place: texts[link] if isinstance(link, str) else link for place, link in links.items()}
        for link in made.values():
            if link is not None and not isinstance(link, Link):
                raise ConfigError(f"a link is a Link, its text or None, not {link!r}")
        with self._changing:
            ports = self._indices()
            # A matrix of 500 ports has 250,000 pairs: those that are plain names are not looked for.
            places = [place if _is_pair_of(place, ports) else self._place_of(place) for place in made]
            self._wires.set(dict(zip(places, made.values(), strict=True)), restart=restart)

    def change_link(self, place: PlaceRef, words: str) -> None:
        """Change some words of a link, "loss=2%"; the others stay, and its random numbers go on. Raises ConfigError."""
        self.change_links([place], words)

    def change_links(self, places: Iterable[PlaceRef], words: str) -> None:
        """As change_link(), for many at once: all or none."""
        with self._changing:
            links = self._wires.wishes.links
            named = map(self._place_of, places)
            self._wires.set({place: links.get(place, Link()).change(words) for place in named}, restart=False)

    def reset_links(self, places: Iterable[PlaceRef] | None = None) -> None:
        """Make links perfect: no link, no cut. None: all links, and there is no partition. Raises ConfigError."""
        with self._changing:
            self._wires.reset(None if places is None else {self._place_of(place) for place in places})

    def cut(self, *places: PlaceRef, direction: Direction | Literal["both"] = "both") -> None:
        """Let the links of ports or pairs drop all frames, silently: pods keep their carrier. Raises ConfigError."""
        if direction not in ("both", *DIRECTIONS):
            raise ConfigError(f"a direction is both, to_pod or from_pod, not {direction!r}")
        with self._changing:
            named = [self._place_of(place) for place in places]
            pair = next((place for place in named if isinstance(place, tuple)), None)
            if pair and direction == "from_pod":
                raise ConfigError(f"the pair {spoken(pair)} has one direction, to the pod of {pair[1]}")
            self._wires.cut(named, DIRECTIONS if direction == "both" else (direction,))

    def mend(self, *places: PlaceRef) -> None:
        """End cut(): the links are what they were. Raises ConfigError."""
        with self._changing:
            self._wires.cut([self._place_of(place) for place in places], ())

    def partition(self, groups: Sequence[Sequence[PortRef]]) -> None:
        """Let no frame pass between ports of different groups, until heal(). It takes the place of the last partition.

        The ports that no group names, and those that come later, are one more group. Raises ConfigError.
        """
        refuse_text(groups, "groups")
        for group in groups:
            refuse_text(group, "a group")
        with self._changing:
            names = [[self._name_of(self._index_of(port)) for port in group] for group in groups]
            self._wires.partition(read_groups(names))

    @property
    def parts(self) -> Sequence[frozenset[str]]:
        """The groups of the partition, without that of all others; empty: there is none."""
        return self._wires.wishes.groups

    def heal(self) -> None:
        """End the partition: the links are what they were."""
        with self._changing:
            self._wires.partition(())

    def set_carrier(self, port: PortRef, up: bool) -> None:
        """Take the carrier from a port's pod (False), or give it back: the pod's `ip link` shows NO-CARRIER meanwhile.

        The port's interface is switched off, its state is "down", and the stations behind it are forgotten. The carrier
        comes back when the port is removed, and when the switch stops. In memory such a pod sends nothing: process()
        takes no frames from its port. Raises ConfigError; PortError: somebody else has switched the interface off.
        """
        if not isinstance(up, bool):
            raise ConfigError(f"a carrier is there (True) or not (False), not {up!r}")
        with self._changing:
            self._switch_carrier(self._index_of(port), up)

    def _place_of(self, place: PlaceRef) -> Place:
        """A place by its names. Raises ConfigError."""
        if not isinstance(place, tuple):
            return self._name_of(self._index_of(place))
        if len(place) != 2:
            raise ConfigError(f"a pair has two ports, (from, to), not {len(place)}")
        one, other = (self._name_of(self._index_of(port)) for port in place)
        if one == other:
            raise ConfigError(f"a pair has two ports, and {one} is one; its own link is named by it alone")
        return one, other

    def _switch_carrier(self, index: int, up: bool) -> None:
        raise NotImplementedError

    def _indices(self) -> dict[str, int]:
        """The ports' indices by name."""
        raise NotImplementedError

    def _index_of(self, port: PortRef) -> int:
        """A port's index. Raises ConfigError."""
        raise NotImplementedError

    def _name_of(self, index: int) -> str:
        """A port's name."""
        raise NotImplementedError


def _is_pair_of(place: object, ports: Mapping[str, int]) -> bool:
    """Whether it is two names of these ports, one after the other."""
    return (
        type(place) is tuple
        and len(place) == 2
        and place[0] != place[1]
        and all(type(one) is str and one in ports for one in place)
    )
