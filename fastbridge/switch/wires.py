"""Links of a switch: the emulated wires of its ports, by name.

What is wanted is kept by the names of ports, and the core has what follows from it. So a port that comes again under
its name has its link again, and a partition holds for ports that come later. A change is put to the core first, all of
it or none, and noted then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import NamedTuple, TypeAlias

from fastbridge.core.links import MEMORY, Links
from fastbridge.errors import ConfigError
from fastbridge.links.link import DIRECTIONS, Direction, Link
from fastbridge.links.places import Place, spoken
from fastbridge.links.stages import Stages

_Key: TypeAlias = tuple[str, int | None, int | None]  # as core/links.pyx has it


_CUT = Stages(cut=True)


class LinkCounts(NamedTuple):
    """What has happened in one direction of a link since there is one. Units are frames, or segments of GSO frames."""

    entered: int = 0
    lost: int = 0
    queue_full: int = 0  #: dropped because the queue was full, or the memory for frames in flight
    cut: int = 0  #: dropped because the link was cut, or its port went
    duplicated: int = 0
    corrupted: int = 0
    reordered: int = 0
    waiting: int = 0  #: in flight now
    waiting_bytes: int = 0
    queued: int = 0  #: of these, before the rate
    queued_bytes: int = 0


@dataclass(frozen=True, slots=True)
class LinkState:
    """The link of a port, or of a pair of ports, and what happens on it."""

    link: Link | None = None  #: None: it is perfect, but for what was cut
    cut: tuple[Direction, ...] = ()  #: the directions that cut() has cut
    #: of a port, while the switch is partitioned: which of the groups it is in, from 0 on; None: that of all others
    group: int | None = None
    #: of each direction that does something; a pair has "to_pod" alone
    counts: Mapping[Direction, LinkCounts] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is wanted of all links."""

    links: Mapping[Place, Link] = field(default_factory=dict)
    cuts: Mapping[Place, frozenset[Direction]] = field(default_factory=dict)
    groups: tuple[frozenset[str], ...] = ()  # of a partition; the ports in none of them are one more group

    def group_of(self, port: str) -> int | None:
        """Which group of a partition a port is in; None: that of all others."""
        return next((place for place, group in enumerate(self.groups) if port in group), None)

    def of(self, place: Place, direction: Direction) -> Stages | None:
        """What a direction of a link does; None: there is none."""
        return self.of_port(place, direction) if isinstance(place, str) else self.of_pair(*place)

    def of_port(self, port: str, direction: Direction) -> Stages | None:
        """What a direction of a port's link does; None: nothing."""
        link = self.links.get(port)
        stages = None if link is None else link.stages(direction, of=port)
        return _cut(stages) if direction in self.cuts.get(port, ()) else stages

    def of_pair(self, ingress: str, egress: str) -> Stages | None:
        """What the link of a pair does; None: there is none, and the port's link holds."""
        pair = ingress, egress
        link = self.links.get(pair)
        stages = None if link is None else link.stages("to_pod", of=spoken(pair)) or Stages()
        if self.group_of(ingress) != self.group_of(egress) or self.cuts.get(pair):
            return _cut(stages)
        return _cut(stages) if stages and "to_pod" in self.cuts.get(egress, ()) else stages

    def without(self, port: str) -> Wishes:
        """The same without all that is of a port."""

        def is_of(place: Place) -> bool:
            return port in (place if isinstance(place, tuple) else (place,))

        return Wishes(
            {place: link for place, link in self.links.items() if not is_of(place)},
            {place: cut for place, cut in self.cuts.items() if not is_of(place)},
            tuple(group - {port} for group in self.groups),
        )


class Wires:
    """The links of one switch. Its callers hold the lock under which ports come and go.

    Whatever changes them raises ConfigError where the core has no room, and then nothing has changed.
    """

    def __init__(
        self,
        core: Links,
        indices: Callable[[], Mapping[str, int]],
        now: Callable[[], int | None],
        slow: Callable[[int], object],
    ) -> None:
        """indices: of the ports, by name. now: ns, in memory. slow: called with each port that has got a link."""
        self._core, self._indices, self._now, self._slow = core, indices, now, slow
        self.wishes = Wishes()
        self._held: dict[_Key, Stages] = {}  # what the core has

    def set(self, links: Mapping[Place, Link | None], *, restart: bool) -> None:
        """Replace these links; None: take one off. restart: random numbers and frame counts begin anew."""
        wanted = {place: link for place, link in links.items() if link is not None}
        kept = {place: link for place, link in self.wishes.links.items() if place not in links}
        self._become(replace(self.wishes, links=kept | wanted), links, anew=set(wanted) if restart else set())

    def cut(self, places: Iterable[Place], directions: Iterable[Direction]) -> None:
        """Let these directions, and those cut before, drop all frames; (): mend them. A pair has "to_pod" alone."""
        cuts, more = dict(self.wishes.cuts), frozenset(directions)
        changed: set[Place] = set(places)
        for place in changed:
            cuts[place] = cuts.get(place, frozenset()) | more if more else more
        one_way: frozenset[Direction] = frozenset(["to_pod"])
        cuts = {place: cut if isinstance(place, str) else one_way for place, cut in cuts.items() if cut}
        self._become(replace(self.wishes, cuts=cuts), {*changed, *self._pairs_into(changed)})

    def partition(self, groups: Iterable[Iterable[str]]) -> None:
        """Cut all pairs of ports of different groups; (): heal the last partition."""
        wishes = replace(self.wishes, groups=tuple(map(frozenset, groups)))
        self._become(wishes, permutations(self._indices(), 2))

    def reset(self, places: Collection[Place] | None) -> None:
        """Take links off, with their cuts; None: all, with the partition."""
        if places is not None:
            links = {place: link for place, link in self.wishes.links.items() if place not in places}
            cuts = {place: cut for place, cut in self.wishes.cuts.items() if place not in places}
            self._become(replace(self.wishes, links=links, cuts=cuts), {*places, *self._pairs_into(places)})
            return
        pairs = permutations(self._indices(), 2) if self.wishes.groups else ()
        self._become(Wishes(), {*self.wishes.links, *self.wishes.cuts, *pairs})

    def join(self, port: str) -> None:
        """A port has come: it has the links that are wanted of one of its name."""
        wishes = self.wishes
        pairs = {pair for pair in (*wishes.links, *wishes.cuts) if isinstance(pair, tuple) and port in pair}
        if wishes.groups:
            pairs |= {pair for other in self._indices() if other != port for pair in ((port, other), (other, port))}
        self._become(wishes, [port, *pairs])

    def leave(self, index: int) -> None:
        """A port has gone, and the core has cut its links."""
        keys: list[_Key] = [("to_pod", None, index), ("from_pod", index, None)]
        keys += [key for at in self._indices().values() for key in (("pair", index, at), ("pair", at, index))]
        for key in keys:
            self._held.pop(key, None)

    def forget(self, port: str) -> None:
        """Nothing is wanted any more of a port that is gone."""
        self.wishes = self.wishes.without(port)

    def states(self) -> dict[Place, LinkState]:
        """All links that are wanted or cut; during a partition those of all ports that are there."""
        wishes = self.wishes
        places = dict.fromkeys([*(self._indices() if wishes.groups else ()), *wishes.links, *wishes.cuts])
        return self._states(places, self._core.state(self._now()))

    def states_of(self, places: Iterable[Place]) -> dict[Place, LinkState]:
        """As states(), of these places alone; there may be a million others."""
        indices, wishes = self._indices(), self.wishes
        groups = indices if wishes.groups else ()
        found = [place for place in places if place in wishes.links or place in wishes.cuts or place in groups]
        keys = [key for place in found for _, key in _keys(place, indices)]
        return self._states(found, self._core.state_of(keys, self._now()))

    def _states(self, places: Iterable[Place], counts: Mapping[_Key, dict[str, int]]) -> dict[Place, LinkState]:
        indices, wishes = self._indices(), self.wishes
        return {
            place: LinkState(
                wishes.links.get(place),
                tuple(each for each in DIRECTIONS if each in wishes.cuts.get(place, ())),
                wishes.group_of(place) if isinstance(place, str) else None,
                {each: LinkCounts(**counts[key]) for each, key in _keys(place, indices) if key in counts},
            )
            for place in places
        }

    @property
    def memory(self) -> tuple[int, int]:
        """Bytes that the frames in flight take, and the most that they may in each worker."""
        return self._core.memory[0], MEMORY

    def tidy(self) -> None:
        """Free what is not used any more."""
        self._core.tidy()

    def _pairs_into(self, places: Collection[Place]) -> list[Place]:
        """The links of pairs that end at these ports: a cut of the port cuts them."""
        return [pair for pair in self.wishes.links if isinstance(pair, tuple) and pair[1] in places]

    def _become(self, wishes: Wishes, places: Iterable[Place], anew: Collection[Place] = ()) -> None:
        """Have the core do what is wanted of these places. Those `anew` begin again, though nothing differs."""
        indices = self._indices()
        orders: dict[_Key, Stages | None] = {}
        for place in places:
            for direction, key in _keys(place, indices):
                stages = wishes.of(place, direction)
                if stages != self._held.get(key) or (stages is not None and place in anew):
                    orders[key] = stages
        try:
            if orders:
                self._core.set(orders, restart=bool(anew), now=self._now())
        except (MemoryError, ValueError, OSError) as error:
            raise ConfigError(f"the core takes no such link: {error}") from None
        self.wishes = wishes
        for key, stages in orders.items():
            if stages is None:
                del self._held[key]
            else:
                self._held[key] = stages
        for index in {_port_of(key) for key, stages in orders.items() if stages is not None}:
            self._slow(index)


def _keys(place: Place, indices: Mapping[str, int]) -> Iterator[tuple[Direction, _Key]]:
    """A place's directions, as the core knows them; none of a port that is not there."""
    if isinstance(place, str):
        if place in indices:
            yield "to_pod", ("to_pod", None, indices[place])
            yield "from_pod", ("from_pod", indices[place], None)
    elif place[0] in indices and place[1] in indices:
        yield "to_pod", ("pair", indices[place[0]], indices[place[1]])


def _port_of(key: _Key) -> int:
    """The port that a link is of: of a pair, the one that it leads to."""
    _, ingress, egress = key
    index = ingress if egress is None else egress
    assert index is not None  # a key has one or both
    return index


def _cut(stages: Stages | None) -> Stages:
    return _CUT if stages is None else replace(stages, cut=True)
