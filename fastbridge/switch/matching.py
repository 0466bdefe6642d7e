"""Ports as they come.

A switch can be told by patterns which interfaces shall be its ports. Those that match join when they appear and leave
when they go. A port that a user named stays wanted: when its interface is deleted and made again, it is a port again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

from fastbridge.errors import FastbridgeError
from fastbridge.forks import in_child
from fastbridge.journal import Journal
from fastbridge.link_watch import Link, LinkWatch

from .fast_path.punts import is_punt_end
from .port_links import PortLink

_log = logging.getLogger(__name__)

# Between two tries with an interface that another switch holds, or that the kernel refuses.
_AGAIN_SECONDS = 0.9  # it is called once a second

#: A switch's ports by name: the state of each, and its interface.
Ports = Mapping[str, tuple[str, PortLink | None]]


class Matching:
    """The interfaces of the current network namespace that shall be ports of a switch. For one thread at a time."""

    def __init__(self, patterns: Sequence[str], journal: Journal) -> None:
        """Raises PortError."""
        self._patterns, self._journal = patterns, journal
        self._named: set[str] = set()  # ports that a user named …
        self._joined: set[str] = set()  # … and those that joined because they match
        self._removed: set[int] = set()  # interfaces that a user took out
        self._links: dict[int, Link] = {}  # of interfaces whose names are wanted, ports or not
        self._told: dict[int, str] = {}  # why an interface is no port
        self._refused: dict[int, float] = {}  # interfaces that could not be added, and when to try again
        self._watch = LinkWatch()
        in_child(self, Matching.close)
        for link in self._watch.links():
            self._note(link)

    def fileno(self) -> int:
        """Readable when interfaces have changed."""
        return self._watch.fileno()

    def close(self) -> None:
        """Hear of no more changes."""
        self._watch.close()

    def add(self, name: str) -> None:
        """A user wants this port, whether it matches or not."""
        self._named.add(name)
        self._joined.discard(name)
        if link := self._watch.look(name):
            self._removed.discard(link.index)
            self._note(link)

    def remove(self, name: str, index: int) -> None:
        """A user does not want this interface as a port, even if it matches."""
        self._named.discard(name)
        self._joined.discard(name)
        self._removed.add(index)

    @property
    def names(self) -> list[str]:
        """The interfaces there are of the wanted names, ports or not."""
        return [link.name for link in self._links.values()]

    def hear(self) -> bool:
        """Note the interfaces that have changed; returns whether there are any. Raises PortError."""
        changed = list(self._watch.changes(list(self._links), all_there=True))
        for link in changed:
            self._note(link)
        return bool(changed)

    def leave(self, ports: Ports, remove: Callable[[str], object]) -> None:
        """Remove the ports that joined because they match, and are gone or renamed."""
        for name in sorted(self._joined):
            state, port = ports.get(name, ("gone", None))
            if state == "gone" or (port and port.link.name != name):
                self._joined.discard(name)
                if name in ports:
                    remove(name)

    def join(self, ports: Ports, add: Callable[[Sequence[str]], object]) -> list[str]:
        """Add the interfaces that are wanted and fit; returns their names."""
        links = [link for link in self._links.values() if self._fits(link, ports)]
        added = links and self._try(links, add)
        if links and not added and len(links) > 1:  # all or none: one of them spoils it
            added = [link for link in links if self._try([link], add)]
        names = [link.name for link in added]
        self._joined.update(set(names) - self._named)
        return names

    def _note(self, link: Link) -> None:
        self._refused.pop(link.index, None)
        if not link.gone and self._wants(link.name):
            self._links[link.index] = link
            return
        self._links.pop(link.index, None)
        self._told.pop(link.index, None)
        if link.gone:
            self._removed.discard(link.index)

    def _wants(self, name: str) -> bool:
        """Never a punt pair: its frames are the core's already."""
        wanted = name in self._named or any(fnmatchcase(name, pattern) for pattern in self._patterns)
        return wanted and not is_punt_end(name)

    def _fits(self, link: Link, ports: Ports) -> bool:
        state, port = ports.get(link.name, ("gone", None))
        why = ""
        if link.index in self._removed or time.monotonic() < self._refused.get(link.index, 0.0):
            return False
        if state != "gone":
            if port and port.link.index != link.index and not port.lost:
                why = f"port {link.name} is the interface {port.link.name}"
        elif not link.ethernet:
            why = "it is not an Ethernet interface"
        elif link.master and port and port.link.index == link.index:
            return False  # it was a port, and what became of it is said
        elif link.master:
            why = f"it belongs to another interface (ip link set {link.name} nomaster takes it out)"
        elif link.up and not link.starting:
            return True
        self._tell(link, why)
        return False

    def _try(self, links: Sequence[Link], add: Callable[[Sequence[str]], object]) -> Sequence[Link]:
        """Add these ports, all or none; returns those added."""
        try:
            add([link.name for link in links])
        except FastbridgeError as error:
            if len(links) == 1 and self._watch.look(links[0].index):  # else it is gone again
                self._refused[links[0].index] = time.monotonic() + _AGAIN_SECONDS
                self._tell(links[0], str(error))
            return []
        for link in links:
            self._told.pop(link.index, None)
        return links

    def _tell(self, link: Link, why: str) -> None:
        """Say once why an interface is no port."""
        if why and self._told.get(link.index) != why:
            self._told[link.index] = why
            self._journal.warn(_log, "interfaces that are no ports", f"{link.name} is no port: {why}", thing=link.name)
